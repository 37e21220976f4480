"""Options of every public function of `ops` and `augment`: what has no meaning is refused, by name."""

import importlib
import inspect
import math
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision.augment
import jaxvision.ops
from jaxvision import augment
from jaxvision.augment import window
from jaxvision.ops import box_losses, losses, matching, nms, pixels
from jaxvision.ops.options import COUNT, FRACTION, POSITIVE, Bound, allowed

WITHOUT_BOUNDS = {
    "fill": "checked by `resample.check`, `random_erasing` itself, or the caller",
    "shapes": "those of a network's maps",
    "height": "of a canvas",
    "width": "of a canvas",
    "rows": "of a batch",
    "level": "a row of AutoAugment's table",
    "counts": "checked together: one is above 0",
    "options": "of a check",
    "canvas": "height and width",
    "extent": "height and width",
    "factors": "by the loss that each multiplies; checked by `added`",
}
NESTED = {
    ("pyramid", "sizes"),
    ("ssd_default_boxes", "ratios"),
    ("draw", "area"),
    ("draw", "ratio"),
    ("shrunk", "size"),
}
"""Lists of lists, whose members `around_zero` checks or which are data; ranges that the callers checked; a size."""
DATA = {("computed_by", "operator"), ("maximum", "a"), ("maximum", "b"), ("minimum", "a"), ("minimum", "b")}


def functions():
    for package in (jaxvision.ops, jaxvision.augment):
        for each in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{each.name}")
            for name, function in vars(module).items():
                own = inspect.isfunction(function) and function.__module__ == module.__name__
                if own and not name.startswith("_") and each.name != "options":
                    yield function


def numeric(parameter):
    text = str(parameter.annotation)
    return bool(re.search(r"\b(int|float)\b", text)) and not text.startswith("<class 'jaxtyping")


FUNCTIONS = {f"{f.__module__.removeprefix('jaxvision.')}.{f.__name__}": f for f in functions()}
BOUNDED = {name: f for name, f in FUNCTIONS.items() if hasattr(f, "bounds")}


def test_every_numeric_option_has_a_bound():
    without = {
        (f.__name__, name)
        for f in FUNCTIONS.values()
        for name, parameter in inspect.signature(f).parameters.items()
        if numeric(parameter) and name not in getattr(f, "bounds", {}) and name not in WITHOUT_BOUNDS
    }
    assert without == NESTED | DATA
    assert len(BOUNDED) > 60


def nonsense(bound):
    """Values outside, by the bound's own words."""
    values = [math.nan, -math.inf, "1", True, (), (math.nan,), [[]]]
    values += [] if bound.infinite else [math.inf]
    values += [] if bound.none else [None]
    values += [bound.low - 1, np.float32(bound.low - 1)] if math.isfinite(bound.low) else []
    values += [bound.high + 1, 1e30] if math.isfinite(bound.high) else []
    values += [bound.low] if bound.above else []
    values += [bound.high] if bound.below else []
    values += [bound.low + 0.5] if bound.whole else []
    values += [bound.low + 1, (1, 0.5), (0.5,), (0.5, 0.6, 0.7)] if bound.pair else []
    return values + ([bound.low + 1, (1,) * (bound.length + 1), (1,) * (bound.length - 1)] if bound.length else [])


@pytest.mark.parametrize("name", BOUNDED)
def test_what_has_no_meaning_is_refused_by_name(name):
    function = BOUNDED[name]
    needed = [n for n, p in inspect.signature(function).parameters.items() if p.default is inspect.Parameter.empty]
    for option, bound in function.bounds.items():
        for value in nonsense(bound):
            given = dict.fromkeys(needed, jnp.zeros(())) | {option: value}
            with pytest.raises(ValueError, match=re.escape(f"{function.__name__}({option}={value!r}): allowed is ")):
                function(**given)


ZERO = jnp.zeros((1, 4))
REFUSED = {
    "a flip of NaN": (lambda: augment.flip(math.nan), "flip(probability=nan): allowed is 0 to 1"),
    "noise of NaN": (lambda: augment.noise(math.nan), "noise(deviation=nan): allowed is 0 or more"),
    "an endless shift": (lambda: augment.affine(shift=math.inf), "affine(shift=inf): allowed is 0 or more"),
    "no classes": (lambda: augment.mixup(1.0, 0), "mixup(classes=0): allowed is 1 or more, whole"),
    "half a chain": (lambda: augment.augmix(depth=1.5), "augmix(depth=1.5): allowed is 1 or more, whole"),
    "a short range": (lambda: augment.random_erasing(area=(0.1,)), "random_erasing(area=(0.1,)): allowed is a range"),
    "a text": (lambda: augment.pad_and_crop("4"), "pad_and_crop(padding='4'): allowed is 0 or more, whole"),
    "no beta": (lambda: box_losses.smooth_l1(0), "smooth_l1(beta=0): allowed is above 0"),
    "IoU of NaN": (lambda: nms.greedy(math.nan), "greedy(iou=nan): allowed is finite"),
    "no std": (
        lambda: pixels.normalise(jnp.zeros((2, 2, 3)), jnp.array([2, 2]), 0.0, (1.0, 0.0, 1.0)),
        "(std=(1.0, 0.0,",
    ),
    "weight of NaN": (
        lambda: losses.class_weighted(losses.cross_entropy, [1, math.nan]),
        "(weights=[1, nan]): allowed",
    ),
    "no sample": (
        lambda: matching.sample(None, jnp.ones(3, bool), jnp.ones(3, bool), count=0, positive_fraction=0.5),
        "sample(count=0): allowed is 1 or more, whole",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_messages_say_what_was_given_and_what_is_allowed(case):
    call, message = REFUSED[case]
    with pytest.raises(Exception, match=re.escape(message)) as told:
        call()
    assert isinstance(told.value, ValueError)


def test_the_ends_of_a_bound_are_what_it_says():
    assert all(map(FRACTION.holds, (0, 1, 0.5, np.float32(1), np.int64(0), jnp.asarray(7.0))))
    assert COUNT.holds(10**12)
    assert POSITIVE.holds(5e-324)
    assert Bound(0, 1, pair=True).holds([0, 0])
    assert augment.mixup_objects(math.inf)
    assert augment.mosaic(close=None)
    assert str(window.AREA) == "a range within above 0 to 1, low <= high"


def test_numbers_that_python_or_numpy_have_and_no_option_can_be_are_refused_by_name():
    for value in (np.array(2), np.array(0.5), 10**400, -(10**400)):
        for bound in (COUNT, FRACTION, POSITIVE, Bound(0, 1, pair=True), Bound(length=2)):
            assert not bound.holds(value)
            assert not bound.holds((value, value))
    with pytest.raises(ValueError, match=r"flip\(probability=array\(0.5\)\): allowed is 0 to 1"):
        augment.flip(np.array(0.5))
    with pytest.raises(
        ValueError, match=r"pad_and_crop\(padding=10{70,90}\.\.\.0{30,40}\): allowed is 0 or more, whole"
    ):
        augment.pad_and_crop(10**400)


def test_a_compiled_program_knows_nothing_of_it():
    plain = lambda x, factor: x * factor
    made = allowed(factor=POSITIVE)(plain)
    assert str(jax.make_jaxpr(made)(1.0, 2.0)) == str(jax.make_jaxpr(plain)(1.0, 2.0))
    with pytest.raises(TypeError, match="missing a required argument|missing 1 required"):
        made(1.0)

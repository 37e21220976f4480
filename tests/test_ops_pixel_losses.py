"""Losses of class maps against NumPy, pixel by pixel and class by class; gradients by complex steps of the same."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.ops import losses, pixel_losses
from jaxvision.types import SegmentationMap

SHAPE = (5, 6)
WEIGHTS = (0.5, 2.0, 0.0, 1.0)
STEP = 1e-20
pytestmark = pytest.mark.usefixtures("float64")


def softmax(z):
    each = np.exp(z - z.real.max(-1, keepdims=True))
    return each / each.sum(-1, keepdims=True)


def by_pixel(term):
    """The mean of `term(logits k, label)` over the pixels that count, each times its weight."""

    def loss(z, label, valid, weight):
        places = [(y, x) for y, x in np.ndindex(label.shape) if valid[y, x] and weight[y, x] > 0]
        total = sum((weight[at] * term(z[at], label[at]) for at in places), 0.0)
        return total / max(len(places), 1)

    return loss


def nats(z, label):
    return -np.log(softmax(z)[label])


def focal(gamma, weights=None):
    def term(z, label):
        p = softmax(z)[label]
        return -(1 if weights is None else weights[label]) * (1 - p) ** gamma * np.log(p)

    return term


def binary(z, label):
    p = 1 / (1 + np.exp(z[0] - z[1]))
    return -np.log(p if label == 1 else 1 - p)


def tversky(alpha, beta, smooth, classes=None):
    def loss(z, label, valid, weight):
        w = np.where(valid, weight, 0)
        if not w.any():
            return 0.0
        p, indices = softmax(z), []
        for k in range(z.shape[-1]) if classes is None else classes:
            hit = (w * p[..., k])[label == k].sum()
            invented = (w * p[..., k])[label != k].sum()
            missed = (w * (1 - p[..., k]))[label == k].sum()
            whole = hit + alpha * invented + beta * missed + smooth
            indices.append((hit + smooth) / whole if whole != 0 else 1.0)
        return 1 - sum(indices) / len(indices)

    return loss


def lovasz(errors, truth):
    """The Lovász extension as its definition has it: each error times what it adds to one less the IoU of a set."""
    order, total, before = np.argsort(-errors.real, kind="stable"), 0.0, 0.0
    for count in range(1, len(order) + 1):
        wrong = np.zeros(len(order), bool)
        wrong[order[:count]] = True
        now = wrong.sum() / (truth | wrong).sum()
        total += errors[order[count - 1]] * (now - before)
        before = now
    return total


def lovasz_softmax(z, label, valid, weight):
    del weight
    p, y = softmax(z[valid]), label[valid]
    each = [lovasz(np.where(y == k, 1 - p[:, k], p[:, k]), y == k) for k in np.unique(y)]
    return sum(each) / max(len(each), 1)


def lovasz_hinge(z, label, valid, weight):
    del weight
    margin = 1 - (z[..., 1] - z[..., 0])[valid] * np.where(label[valid] == 1, 1, -1)
    return lovasz(np.where(margin.real > 0, margin, 0), label[valid] == 1) if valid.any() else 0.0


def both(z, label, valid, weight):
    return 2 * by_pixel(nats)(z, label, valid, weight) + 0.5 * tversky(0.5, 0.5, 0.5)(z, label, valid, weight)


MEANS = {
    "cross_entropy": (pixel_losses.cross_entropy(), by_pixel(nats), 4),
    "weighted": (pixel_losses.cross_entropy(WEIGHTS), by_pixel(lambda z, y: WEIGHTS[y] * nats(z, y)), 4),
    "binary": (pixel_losses.binary, by_pixel(binary), 2),
    "focal": (pixel_losses.focal(), by_pixel(focal(2)), 4),
    "weighted_focal": (pixel_losses.focal(1.5, (0.75, 0.25)), by_pixel(focal(1.5, (0.75, 0.25))), 2),
    "squared": (
        pixel_losses.each_pixel(losses.squared_error),
        by_pixel(lambda z, y: ((softmax(z) - np.eye(3)[y]) ** 2).mean()),
        3,
    ),
    "dice": (pixel_losses.dice(), tversky(0.5, 0.5, 0.5), 4),
    "sharp_dice": (pixel_losses.dice(0), tversky(0.5, 0.5, 0.0), 4),
    "foreground_dice": (pixel_losses.dice(classes=(1,)), tversky(0.5, 0.5, 0.5, (1,)), 2),
    "tversky": (pixel_losses.tversky(), tversky(0.3, 0.7, 1.0), 4),
    "added": (pixel_losses.added({pixel_losses.cross_entropy(): 2, pixel_losses.dice(): 0.5}), both, 4),
}
"""Losses that take weights of pixels, what they are by NumPy, and the number of classes."""
EVERY = {
    **MEANS,
    "lovasz_softmax": (pixel_losses.lovasz_softmax, lovasz_softmax, 4),
    "lovasz_hinge": (pixel_losses.lovasz_hinge, lovasz_hinge, 2),
}


def mean(loss, logits, target):
    """The loss of a batch of one."""
    part = loss(logits, target)
    return (part.sum / jnp.maximum(part.count, 1)).sum()


VALUE = {
    name: jax.jit(jax.value_and_grad(lambda z, t, loss=loss: mean(loss, z, t))) for name, (loss, *_) in EVERY.items()
}


def case_of(name, case, seed=0):
    """Logits, and a map as NumPy arrays: label, valid, weight."""
    random = np.random.default_rng(seed)
    count = EVERY[name][2]
    label, valid = random.integers(0, count, SHAPE), random.uniform(0, 1, SHAPE) > 0.3
    weight = random.choice([0, 0.5, 2.5], SHAPE) if case == "weights" else np.ones(SHAPE)
    match case:
        case "empty":
            label[:] = 0
        case "one class":
            label[:] = 1
        case "absent":
            label = np.where(label == 1, 0, label)
        case "all void":
            valid[:] = False
        case "one pixel":
            valid[:] = False
            valid[2, 3] = True
    return random.normal(0, 2, (*SHAPE, count)), label, valid, weight


def by_numpy(loss, z, *map):
    """Value, and gradient by complex steps."""
    gradient = np.zeros(z.shape)
    for at in np.ndindex(z.shape):
        moved = z.astype(np.complex128)
        moved[at] += STEP * 1j
        gradient[at] = np.imag(loss(moved, *map)) / STEP
    return np.real(loss(z.astype(np.complex128), *map)), gradient


def target_of(label, valid, weight):
    return SegmentationMap(
        jnp.asarray(label, jnp.int32), jnp.asarray(valid), None if (weight == 1).all() else jnp.asarray(weight)
    )


VARIANTS = ("weighted", "weighted_focal", "squared", "sharp_dice", "foreground_dice", "tversky")
"""Others of the same form."""
MOSTLY = pytest.mark.parametrize(
    "name", [n if n not in VARIANTS else pytest.param(n, marks=pytest.mark.slow) for n in EVERY]
)
CASES = ("some void", "empty", "one class", "absent", "all void", "one pixel")
PAIRS = [*itertools.product(EVERY, CASES), *((name, "weights") for name in MEANS)]


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_value_and_gradient_equal_numpy(name, case):
    z, *map = case_of(name, case)
    expected, slope = by_numpy(EVERY[name][1], z, *map)
    with jax.numpy_dtype_promotion("strict"):
        value, gradient = VALUE[name](jnp.asarray(z), target_of(*map))
    assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
    assert_allclose(gradient, slope, rtol=1e-9, atol=1e-11)
    if case == "all void":
        assert not np.any(value)
        assert not np.any(gradient)
    else:
        assert_array_equal(np.asarray(gradient)[~(map[1] & (map[2] > 0))], 0)


@MOSTLY
def test_void_pixels_may_hold_anything(name):
    z, label, valid, weight = case_of(name, "some void")
    expected = VALUE[name](jnp.asarray(z), target_of(label, valid, weight))
    for odd in (np.nan, np.inf, -np.inf):
        rubbish = SegmentationMap(jnp.where(valid, label, 255), jnp.asarray(valid))
        found = VALUE[name](jnp.where(valid[..., None], z, odd), rubbish)
        jax.tree.map(assert_array_equal, found, expected)
    if name in MEANS:
        weights = SegmentationMap(jnp.asarray(label), jnp.asarray(valid), jnp.where(valid, 1.0, jnp.nan))
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-12), VALUE[name](jnp.asarray(z), weights), expected)


@MOSTLY
def test_any_logits_but_nan_give_finite_losses_and_gradients(name):
    z, *map = case_of(name, "some void")
    for far in (1e3, 1e300, np.inf):
        for wide in (True, False):
            logits = jnp.where(z > 0, far, -far).astype(jnp.float64 if wide else jnp.float32)
            value, gradient = VALUE[name](logits, target_of(*map))
            assert np.isfinite(value)
            assert value >= -1e-6
            assert np.isfinite(gradient).all()
    place = tuple(np.argwhere(map[1])[0])
    assert np.isnan(VALUE[name](jnp.asarray(z).at[place].set(jnp.nan), target_of(*map))[0])


def test_parts_of_images_make_the_mean_of_the_batch():
    cases = [case_of("cross_entropy", case, seed) for seed, case in enumerate(("some void", "all void", "one pixel"))]
    logits = jnp.asarray([each[0] for each in cases])
    target = jax.tree.map(lambda *x: jnp.stack(x), *(target_of(*each[1:]) for each in cases))
    entropy, dice = pixel_losses.cross_entropy(), pixel_losses.dice()
    each = (entropy, pixel_losses.summed(entropy), pixel_losses.added({entropy: 2, dice: 1}))
    part, sums, several = jax.jit(lambda *given: [jax.vmap(loss)(*given) for loss in each])(logits, target)
    assert_array_equal(part.count, [each[2].sum() for each in cases])
    whole = [np.concatenate(each) for each in zip(*cases, strict=True)]
    assert_allclose(part.sum.sum() / part.count.sum(), by_pixel(nats)(*whole), rtol=1e-12)
    assert_allclose(sums.sum, part.sum)
    assert_array_equal(sums.count, [1, 0, 1])
    assert_allclose(several.sum[:, 0], 2 * part.sum)
    assert_array_equal(several.count[:, 0], part.count)
    assert_array_equal(several.count[:, 1], [1, 0, 1])


def test_two_channels_0_and_x_are_the_sigmoid_of_x():
    z, label, *_ = case_of("binary", "all void")
    x, target = z[..., 0], SegmentationMap(jnp.asarray(label), jnp.ones(SHAPE, bool))
    channels = jnp.asarray(np.stack([0 * x, x], -1))
    expected = {
        pixel_losses.binary: lambda: optax.sigmoid_binary_cross_entropy(x, label).mean(),
        pixel_losses.cross_entropy(): lambda: optax.sigmoid_binary_cross_entropy(x, label).mean(),
        pixel_losses.focal(2, (0.75, 0.25)): lambda: optax.sigmoid_focal_loss(x, label, alpha=0.25, gamma=2).mean(),
        pixel_losses.dice(2, (1,)): lambda: 1 - (2 * (jax.nn.sigmoid(x) * label).sum() + 2) / whole(),
    }
    whole = lambda: jax.nn.sigmoid(x).sum() + label.sum() + 2
    pairs = lambda: [(mean(loss, channels, target), value()) for loss, value in expected.items()]
    for found, value in jax.jit(pairs)():
        assert_allclose(found, value, rtol=1e-9)


def test_what_cannot_be_is_refused():
    z, label, valid, weight = case_of("cross_entropy", "some void")
    target = target_of(label, valid, weight)
    weighted = target.replace(weight=jnp.ones(SHAPE))
    for call, told in [
        (lambda: pixel_losses.cross_entropy((1, -1)), r"weights=\(1, -1\)"),
        (lambda: pixel_losses.cross_entropy((1, 1))(jnp.asarray(z), target), "2 class weights for logits of 4 classes"),
        (lambda: pixel_losses.focal(-1), r"focal\(gamma=-1\)"),
        (lambda: pixel_losses.tversky(beta=-1), r"tversky\(beta=-1\)"),
        (lambda: pixel_losses.dice(math.nan), r"dice\(smooth=nan\)"),
        (
            lambda: pixel_losses.dice(classes=(1, 4))(jnp.asarray(z), target),
            r"classes=\(1, 4\) has \[4\]; the logits have classes 0 to 3",
        ),
        (lambda: pixel_losses.binary(jnp.asarray(z), target), "needs two channels, .* the logits have 4"),
        (lambda: pixel_losses.lovasz_hinge(jnp.asarray(z), target), "needs two channels"),
        (lambda: pixel_losses.lovasz_softmax(jnp.asarray(z), weighted), "lovasz_softmax takes no weights of pixels"),
        (lambda: pixel_losses.added({}), "one loss or more"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_pixels_are_counted_in_float32_at_least(dtype):
    target = SegmentationMap(jnp.ones((300, 300), jnp.int32), jnp.ones((300, 300), bool))
    part = pixel_losses.cross_entropy()(jnp.zeros((300, 300, 2), dtype), target)
    assert float(part.count) == 90_000
    assert float(part.sum / part.count) == pytest.approx(np.log(2), rel=1e-5)

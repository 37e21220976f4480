"""The report: every array is accounted for, and what was not named is an error that names it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from numpy.testing import assert_array_equal
from parity_networks import filled, spec_of
from safetensors.numpy import save_file

from jaxvision import train
from jaxvision.nn import vgg
from jaxvision.nn.head import Head, WithHead
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.export import own_sources
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import Source, Turn, inside, load
from jaxvision.pretrained.torch_layout import conv_kernel, dense_kernel, dense_kernel_after_flatten, unchanged
from jaxvision.tasks.classification import classification

OURS = {
    "params": {
        "head": {"kernel": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)},
        "norm": {"scale": np.ones(4, np.float32)},
    }
}
THEIRS = {"fc.weight": np.arange(12.0).reshape(3, 4), "fc.bias": np.ones(3), "bn.weight": np.full(4, 2.0)}


def sources(variables):
    del variables
    return {
        ("params", "head", "kernel"): Source("fc.weight", dense_kernel),
        ("params", "head", "bias"): Source("fc.bias", unchanged),
        ("params", "norm", "scale"): Source("bn.weight", unchanged),
    }


def test_everything_fits():
    loaded = load(sources({}), {**THEIRS, "bn.num_batches_tracked": np.array(3)}, OURS)
    assert_array_equal(loaded.variables["params"]["head"]["kernel"], THEIRS["fc.weight"].T)
    assert sorted(loaded.report.loaded) == ["params/head/bias", "params/head/kernel", "params/norm/scale"]
    assert loaded.report.numbers == 19
    assert (loaded.report.new, loaded.report.unused) == ((), ())
    assert str(loaded.report) == "3 loaded, 19 numbers"


def test_what_is_new_stays_and_its_counterpart_may_be_anything():
    for theirs in (THEIRS, {**THEIRS, "fc.weight": np.zeros((9, 4))}, {"bn.weight": THEIRS["bn.weight"]}):
        loaded = load(sources({}), theirs, OURS, new=("head/.*",))
        assert_array_equal(loaded.variables["params"]["head"]["kernel"], np.zeros((4, 3)))
        assert_array_equal(loaded.variables["params"]["norm"]["scale"], np.full(4, 2.0))
        assert loaded.report.new == ("params/head/kernel", "params/head/bias")
        assert str(loaded.report) == "1 loaded, 4 numbers\n2 new: params/head/kernel, params/head/bias"


def test_what_is_left_aside_is_told():
    report = load(sources({}), {**THEIRS, "aux.weight": np.ones(2)}, OURS, unused=(r"aux\..*",)).report
    assert str(report).splitlines()[1] == "1 unused: aux.weight"


@pytest.mark.parametrize(
    ("theirs", "options", "line"),
    [
        ({"fc.bia": np.ones(3)}, {}, "1 missing: fc.bias (for params/head/bias), nearest is fc.bia"),
        ({"fc.bia": np.ones(3)}, {}, "1 unexpected: fc.bia"),
        ({"fc.bias": np.ones(7)}, {}, "1 of another shape: fc.bias (7,) (for params/head/bias (3,))"),
        ({"fc.weight": np.ones(7)}, {}, "1 of another shape: fc.weight (7,) (for params/head/kernel (4, 3))"),
        ({}, {"new": ("haed/.*",)}, "1 patterns that match nothing: new='haed/.*'"),
        ({}, {"new": ("hea",)}, "1 patterns that match nothing: new='hea'"),
        ({}, {"unused": (r"fc\..*",)}, r"1 patterns that match nothing: unused='fc\..*'"),
    ],
)
def test_what_was_not_named_is_an_error(theirs, options, line):
    given = {**{name: array for name, array in THEIRS.items() if name != "fc.bias"}, "fc.bias": np.ones(3)}
    if "fc.bia" in theirs:
        del given["fc.bias"]
    with pytest.raises(ValueError, match="^the given arrays do not fit the network") as error:
        load(sources({}), given | theirs, OURS, **options)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_what_no_map_names_is_an_error_unless_it_is_new():
    ours = {"params": {**OURS["params"], "neck": {"bias": np.zeros(2, np.float32)}}}
    with pytest.raises(ValueError, match="1 without a counterpart: params/neck/bias"):
        load(sources({}), THEIRS, ours)
    assert load(sources({}), THEIRS, ours, new=("neck/.*",)).report.new == ("params/neck/bias",)


def test_a_long_list_is_cut():
    with pytest.raises(ValueError, match="20 unexpected: .*, and 15 more") as error:
        load(sources({}), THEIRS | {f"x{i}": np.ones(1) for i in range(20)}, OURS)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("turn", "shape"),
    [
        (unchanged, (3, 4)),
        (conv_kernel, (2, 3, 4, 5)),
        (dense_kernel, (3, 4)),
        (dense_kernel_after_flatten(2, 3, 4), (5, 24)),
    ],
)
def test_the_way_back_is_the_inverse(turn, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    assert isinstance(turn, Turn)
    assert_array_equal(turn.back(turn(array)), array)
    assert_array_equal(turn(turn.back(turn(array))), turn(array))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_new_head_on_a_given_backbone(tmp_path, capsys, wrapped):
    """With a map that knows no such head, and with the map of a part."""
    theirs = {"features.0.weight": np.ones((4, 3, 3, 3)), "features.0.bias": np.ones(4)}
    theirs |= {"features.3.weight": np.ones((8, 4, 3, 3)), "features.3.bias": np.ones(8)}
    theirs |= {f"classifier.{i}.{part}": np.ones(2) for i in (0, 3, 6) for part in ("weight", "bias")}
    save_file({name: array.astype(np.float32) for name, array in theirs.items()}, tmp_path / "vgg.safetensors")
    network = WithHead(vgg.Backbone((1, 1), (4, 8)), Head(2, hidden=5))
    fresh = filled(spec_of(network, (1, 8, 8, 3)))
    whole = (
        (lambda variables: torchvision.vgg_sources({"params": {"backbone": variables["params"]}})) if wrapped else None
    )
    renamed = lambda variables: {("params", *path[2:]): source for path, source in whole(variables).items()}
    sources = inside("backbone", renamed) if wrapped else torchvision.vgg_sources
    options = {"new": ("head/.*",), "unused": (r"classifier\..*",)}
    variables = start(sources, tmp_path / "vgg.safetensors", **options)(fresh)
    assert_array_equal(variables["params"]["backbone"]["stage2_conv1"]["kernel"], np.ones((3, 3, 4, 8)))
    jax.tree.map(assert_array_equal, variables["params"]["head"], fresh["params"]["head"])
    said = capsys.readouterr().out
    assert "4 new: params/head/" in said
    assert "6 unused: classifier.0.bias" in said


class TwoLayers(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return nn.Dense(self.classes, name="head")(nn.relu(nn.Dense(4, name="first")(x.reshape(x.shape[0], -1))))


def test_a_run_starts_from_a_file(tmp_path, colour_batch, capsys):
    spec = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, colour_batch(count=2, side=4)))
    kernel = np.arange(48.0 * 4, dtype=np.float32).reshape(48, 4)
    given = {"params/first/kernel": kernel, "params/first/bias": np.ones(4, np.float32)}
    save_file({**given, "params/head/kernel": np.ones((4, 1000), np.float32)}, tmp_path / "net.safetensors")
    task = classification(TwoLayers(3))
    from_file = start(own_sources, tmp_path / "net.safetensors", new=("head/.*",))
    state = train.init_state(task, optax.sgd(0.1), jax.random.key(0), spec, start=from_file)
    assert_array_equal(state.params["first"]["kernel"], kernel)
    assert state.params["head"]["kernel"].shape == (4, 3)
    assert "net.safetensors: 2 loaded, 196 numbers\n2 new: params/head/" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"net\.safetensors: the given arrays do not fit the network: 1 missing: params/head/bias"
    ):
        start(own_sources, tmp_path / "net.safetensors")({"params": state.params})

"""YOLOX's networks: shapes, names, what they refuse; the published counts of parameters are in the slow tests."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from parity_networks import UNOPTIMISED, parameter_count, shapes_of, spec_of

from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import strict
from jaxvision.pretrained.yolox import stem_kernel, yolox_sources
from jaxvision.tasks import yolox

GOLDEN = Path(__file__).parent / "golden"
COUNTS = {"nano": 912_159, "tiny": 5_055_855, "s": 8_968_255, "m": 25_326_495, "l": 54_208_895, "x": 99_071_455}
"""Of the authors' networks for COCO, which their table rounds: 0.91, 5.06, 9.0, 25.3, 54.2 and 99.1 million."""


def test_every_second_pixel_goes_to_channels_column_by_column():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    found = yolox.every_second(jnp.asarray(images, jnp.float32))
    assert found.shape == (2, 2, 3, 12)
    corner = [images[1, 2 + y, 4 + x] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert_array_equal(found[1, 1, 2], np.concatenate(corner))


def test_pooling_is_over_5_9_and_13_neighbours():
    x = np.random.default_rng(0).normal(size=(1, 17, 15, 2)).astype(np.float32)
    found = np.asarray(jax.jit(yolox.with_neighbours)(x)).reshape(17, 15, 4, 2)
    for number, side in enumerate((1, 5, 9, 13)):
        half = side // 2
        for row, column in np.ndindex(17, 15):
            window = x[0, max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
            assert_array_equal(found[row, column, number], window.max((0, 1)))


def small(depthwise=False, norm=yolox.yolox_norm, dtype=jnp.float32):
    make = yolox.Make(depthwise, dtype, norm)
    return yolox.YOLOX(yolox.CSPDarknet(4, 1, make), 3, 1, make)


@pytest.mark.parametrize("depthwise", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_outputs_are_of_strides_8_16_32_and_begin_at_one_in_a_hundred(depthwise):
    network = small(depthwise, dtype=jnp.bfloat16)
    images = jnp.zeros((2, 64, 96, 3))
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    outputs = jax.eval_shape(lambda v: network.apply(v, images, train=False), variables)
    assert [x.shape for x in outputs] == [(2, 8, 12, 8), (2, 4, 6, 8), (2, 2, 3, 8)]
    assert {x.dtype for x in outputs} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert set(variables["params"]) == {"backbone", "neck", "head"}


def test_fresh_scores_are_low():
    head = yolox.DecoupledHead(yolox.Make(), 3)
    run = lambda maps: head.init_with_output(jax.random.key(0), maps, train=False)[0]
    outputs = jax.jit(run, compiler_options=UNOPTIMISED)([jnp.zeros((1, 2, 2, 8))])
    for x in outputs:
        np.testing.assert_allclose(jax.nn.sigmoid(x[..., 4:]), 0.01, rtol=1e-5)
        assert not np.asarray(x[..., :4]).any()


def test_the_norm_is_ones_own():
    spec = spec_of(small(norm=FrozenBatchNorm), (1, 32, 32, 3))
    assert set(spec["params"]["backbone"]["stem"]) == {"conv"}
    assert set(spec["batch_stats"]["backbone"]["stem"]["norm"]) == {"scale", "bias", "mean", "var"}


@pytest.mark.parametrize("shape", [(1, 48, 64, 3), (1, 64, 65, 3)])
def test_sides_must_be_multiples_of_32(shape):
    with pytest.raises(ValueError, match=r"sides must be multiples of 32 pixels, those of the images are \("):
        spec_of(small(), shape)


def test_the_first_kernel_is_turned_from_bgr_to_rgb_and_back():
    theirs = np.random.default_rng(0).normal(size=(5, 12, 3, 3))
    pixels = np.random.default_rng(1).normal(size=(1, 6, 6, 3)).astype(np.float32)
    ours = stem_kernel(theirs)
    by_ours = np.einsum("hwi,hwio->o", yolox.every_second(jnp.asarray(pixels))[0], ours)
    bgr = yolox.every_second(jnp.asarray(pixels[..., ::-1]))[0]
    np.testing.assert_allclose(by_ours, np.einsum("hwi,oihw->o", bgr, theirs), rtol=1e-5)
    assert_array_equal(stem_kernel.back(ours), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["nano", "s"])
def test_every_array_of_the_public_weights_is_used_once(size):
    """The golden file lists the names and shapes of the authors' network for six classes."""
    with np.load(GOLDEN / f"yolox_{size}.npz") as golden:
        shapes = shapes_of(golden)
    spec = spec_of(getattr(yolox, f"yolox_{size}")(6), (1, 32, 32, 3))
    given = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    given["backbone.backbone.stem.conv.bn.num_batches_tracked"] = np.zeros(())
    report = strict.load(yolox_sources(spec), given, spec).report
    assert report.numbers == sum(leaf.size for leaf in jax.tree.leaves(spec))
    sources = {"/".join(path): source.name for path, source in yolox_sources(spec).items()}
    assert sources["params/neck/down2_reduce/conv/kernel"] == "backbone.lateral_conv0.conv.weight"
    assert sources["params/head/class1/kernel"] == "head.cls_preds.0.weight"
    assert sources["batch_stats/backbone/stage4_csp/leave/norm/var"] == "backbone.backbone.dark5.2.conv3.bn.running_var"


def test_arrays_of_another_network_are_refused():
    with pytest.raises(ValueError, match="no counterpart of 'backbone/stage5_csp/leave/conv'"):
        yolox_sources({"params": {"backbone": {"stage5_csp": {"leave": {"conv": {"kernel": np.zeros((1, 1, 2, 2))}}}}}})


@pytest.mark.parametrize("size", [pytest.param(s, marks=[pytest.mark.slow] * (s in "mlx")) for s in COUNTS])
def test_parameters_are_as_many_as_published(size):
    assert parameter_count(getattr(yolox, f"yolox_{size}")(80), 32) == COUNTS[size]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["nano", "s"])
def test_outputs_losses_and_gradients_are_those_of_the_authors(size, float64):
    import parity_yolox

    with np.load(GOLDEN / f"yolox_{size}.npz") as golden:
        expected = dict(golden)
    shapes = shapes_of(expected)
    parity_yolox.assert_same(parity_yolox.golden_of(shapes, parity_yolox.figures(size, shapes)), expected)

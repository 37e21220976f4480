"""VGG against torchvision's figures in tests/golden, and what it promises of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import assert_equals_golden, parameter_count, random_weights, shapes_of, spec_of, trained_once

from jaxvision.nn import vgg
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm
from jaxvision.pretrained import torchvision

GOLDEN = Path(__file__).parent / "golden"


def small(dropout=0.0, hidden=16, **options):
    backbone = vgg.Backbone((1, 1, 2, 2, 2), channels=(4, 6, 8, 8, 8), **options)
    return vgg.VGG(backbone, 5, hidden=hidden, dropout=dropout)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vgg11", 132_863_336),
        pytest.param("vgg13", 133_047_848, marks=pytest.mark.slow),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        pytest.param("vgg11_bn", 132_868_840, marks=pytest.mark.slow),
        pytest.param("vgg13_bn", 133_053_736, marks=pytest.mark.slow),
        ("vgg16_bn", 138_365_992),
        pytest.param("vgg19_bn", 143_678_248, marks=pytest.mark.slow),
    ],
)
def test_has_the_published_number_of_parameters(name, count):
    assert parameter_count(getattr(vgg, name)(), 224) == count


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), [("vgg", None), ("vgg_bn", BatchNorm)])
def test_equals_torchvision_in_float64(float64, name, norm):
    flattened = {"classifier.0.weight": (8, 7, 7)}
    network = small(dtype=jnp.float64, norm=norm)
    golden = np.load(GOLDEN / f"{name}.npz")
    assert_equals_golden(golden, network, torchvision.vgg, torchvision.vgg_sources, flattened)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains_with_dropout_and_keeps_logits_and_gradients_in_float32(dtype):
    network = vgg.VGG(vgg.Backbone((1, 1), channels=(4, 6), dtype=dtype, norm=BatchNorm), 5, hidden=8)
    logits, gradient = trained_once(network, (2, 32, 32, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, gradient))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["backbone"]["stage1_conv1"]["kernel"]).max() > 0


def test_backbone_gives_a_map_for_each_stage():
    backbone = vgg.vgg16(channels=(2, 3, 4, 5, 6)).backbone
    maps = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 64, 48, 3))
    )
    assert [leaf.shape for leaf in maps] == [
        (1, 64, 48, 2), (1, 32, 24, 3), (1, 16, 12, 4), (1, 8, 6, 5), (1, 4, 3, 6),
    ]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "side"), [(7, 7, 7), (2, 9, 7), (13, 4, 3), (1, 1, 2)])
def test_adaptive_pooling_averages_even_areas(height, width, side):
    images = np.random.RandomState(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = np.zeros((2, side, side, 3))
    for y in range(side):
        for x in range(side):
            top, bottom = y * height // side, -(-(y + 1) * height // side)
            left, right = x * width // side, -(-(x + 1) * width // side)
            expected[:, y, x] = images[:, top:bottom, left:right].mean((1, 2))
    assert_allclose(vgg.adaptive_average_pool(jnp.asarray(images), side), expected, atol=1e-6)


def test_different_numbers_of_stages_are_an_error():
    with pytest.raises(ValueError, match=r"depths \(1, 1\) and channels \(4,\)"):
        vgg.Backbone((1, 1), channels=(4,)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)


def test_new_classes_keep_the_own_head_and_frozen_statistics_are_filled():
    weights = random_weights(shapes_of(np.load(GOLDEN / "vgg_bn.npz")), seed=1)
    network = small(norm=FrozenBatchNorm).clone(classes=9)
    own = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), spec_of(network, (1, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"classifier\.6\.weight \(5, 16\) \(for params/head/kernel \(16, 9\)\)"):
        torchvision.vgg(weights, own)
    variables = torchvision.vgg(weights, own, head=False)
    assert (variables["params"]["head"]["kernel"] == 0.5).all()
    norm = variables["batch_stats"]["backbone"]["stage2_norm1"]
    assert_allclose(norm["scale"], weights["features.5.weight"], rtol=1e-6)
    with pytest.raises(ValueError, match="no counterpart of 'neck'"):
        torchvision.vgg(weights, {"params": {**own["params"], "neck": {"bias": np.zeros(2)}}})

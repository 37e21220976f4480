"""MobileNetV2 and EfficientNet-Lite0 against torchvision's and timm's figures in tests/golden, and what they promise."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from parity_networks import assert_equals_golden, parameter_count, random_weights, shapes_of, spec_of, trained_once

from jaxvision.nn import efficientnet
from jaxvision.nn.mobilenet import (
    Backbone,
    MobileNet,
    Stage,
    mobilenet_v2,
    multiple_of_8,
    relu6,
    same_padding,
)
from jaxvision.pretrained import timm, torchvision

GOLDEN = Path(__file__).parent / "golden"
SHORT = (Stage(1, 8, 1, 1), Stage(6, 16, 2, 2), Stage(6, 24, 1, 2))
LITE = (Stage(1, 8, 1, 1), Stage(6, 16, 2, 2), Stage(6, 16, 1, 2, 5), Stage(6, 24, 2, 1, 5))


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (mobilenet_v2(), 3_504_872),
        pytest.param(mobilenet_v2(width=0.5), 1_968_680, marks=pytest.mark.slow),
        (efficientnet.efficientnet_lite0(), 4_652_008),
    ],
    ids=["v2", "v2_half", "lite0"],
)
def test_has_the_published_number_of_parameters(network, count):
    assert parameter_count(network, 224) == count


@pytest.mark.slow
def test_mobilenet_equals_torchvision_in_float64(float64):
    network = mobilenet_v2(5, width=0.75, stages=SHORT, dtype=jnp.float64).clone(dropout=0.0)
    golden = np.load(GOLDEN / "mobilenet_v2.npz")
    assert_equals_golden(golden, network, torchvision.mobilenet_v2, torchvision.mobilenet_v2_sources)


@pytest.mark.parametrize("name", ["efficientnet_lite", "tf_efficientnet_lite"])
@pytest.mark.slow
def test_efficientnet_equals_timm_in_float64(float64, name):
    whole = getattr(efficientnet, f"{name}0")(stages=LITE, stem=8, dtype=jnp.float64)
    network = MobileNet(whole.backbone, 5, last=32, dropout=0.0)
    golden = np.load(GOLDEN / f"{name}.npz")
    assert_equals_golden(golden, network, timm.efficientnet_lite0, timm.efficientnet_lite0_sources)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains_with_dropout_and_keeps_logits_and_gradients_in_float32(dtype):
    network = MobileNet(Backbone(SHORT, stem=8, dtype=dtype), 5, last=16)
    logits, gradient = trained_once(network, (2, 16, 16, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, gradient))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["backbone"]["stem_conv"]["kernel"]).max() > 0


def test_backbone_gives_the_last_map_of_every_stride():
    backbone = mobilenet_v2().backbone
    maps = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 64, 64, 3))
    )
    assert [leaf.shape[2:] for leaf in maps] == [(32, 16), (16, 24), (8, 32), (4, 96), (2, 320)]


@pytest.mark.parametrize(
    ("pixels", "kernel", "stride", "expected"),
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (7, 5, 1, (2, 2)), (14, 5, 2, (1, 2)), (2, 1, 2, (0, 0))],
)
def test_same_padding_is_tensorflows(pixels, kernel, stride, expected):
    assert same_padding(pixels, kernel, stride) == expected
    assert tuple(jax.lax.padtype_to_pads((pixels,), (kernel,), (stride,), "SAME")[0]) == expected


def test_another_padding_is_an_error():
    with pytest.raises(ValueError, match="'valid' is unknown; allowed: 'symmetric', 'same'"):
        spec_of(mobilenet_v2(padding="valid"), (1, 32, 32, 3))


def test_channels_are_multiples_of_8_and_lose_a_tenth_at_most():
    assert [multiple_of_8(c) for c in (1, 11, 12, 18, 24, 33.6, 1792)] == [8, 16, 16, 24, 24, 32, 1792]


def test_relu6_has_no_gradient_at_its_corners_and_lets_nan_through():
    x = jnp.asarray([-1.0, 0.0, 3.0, 6.0, 7.0])
    assert_array_equal(relu6(x), [0, 0, 3, 6, 6])
    assert_array_equal(jax.grad(lambda x: relu6(x).sum())(x), [0, 0, 1, 0, 0])
    assert np.isnan(relu6(jnp.asarray([jnp.nan])))[0]


def test_a_module_that_the_other_library_has_not_is_named():
    weights = random_weights(shapes_of(np.load(GOLDEN / "mobilenet_v2.npz")), seed=1)
    spec = spec_of(mobilenet_v2(5, width=0.75, stages=SHORT), (1, 32, 32, 3))
    extra = {**spec, "params": {**spec["params"], "neck": {"bias": np.zeros(2)}}}
    for load, library in ((torchvision.mobilenet_v2, "MobileNetV2"), (timm.efficientnet_lite0, "EfficientNet")):
        with pytest.raises(ValueError, match=f"{library} has no counterpart of 'neck'"):
            load(weights, extra)

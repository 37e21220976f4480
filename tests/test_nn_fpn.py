"""Feature pyramids against NumPy; shapes and parameters of the networks on them are the published ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.nn import resnet
from jaxvision.nn.fpn import FPN, Convolved, doubled
from jaxvision.nn.roi_heads import pool_last
from jaxvision.tasks.faster_rcnn import faster_rcnn_fpn, faster_rcnn_resnet50_fpn, faster_rcnn_vgg16
from jaxvision.tasks.retinanet import Tower, retinanet_fpn, retinanet_resnet50_fpn


class Given(nn.Module):
    """The maps of an image: it, every second and every fourth pixel of it."""

    @nn.compact
    def __call__(self, images, *, train):
        return [images[:, ::step, ::step] for step in (1, 2, 4)]


def at_centre(matrix, size):
    """The kernel of a convolution that multiplies every pixel by a matrix."""
    kernel = np.zeros((size, size, *matrix.shape))
    kernel[size // 2, size // 2] = matrix
    return kernel


def doubled_by_numpy(x, like):
    return x.repeat(2, 1).repeat(2, 2)[:, : like.shape[1], : like.shape[2]]


@pytest.mark.parametrize("first", [0, 1])
def test_maps_are_merged_from_the_coarsest_down(float64, first):
    random = np.random.RandomState(0)
    x = random.standard_normal((2, 11, 14, 3))
    network = FPN(Given(), first, 4, dtype=jnp.float64)
    count = 3 - first
    lateral, output = random.standard_normal((count, 3, 4)), random.standard_normal((count, 4, 4))
    params = {
        **{f"lateral{n + 1}": {"kernel": at_centre(lateral[n], 1), "bias": np.full(4, float(n))} for n in range(count)},
        **{f"output{n + 1}": {"kernel": at_centre(output[n], 3), "bias": np.zeros(4)} for n in range(count)},
    }
    found = jax.jit(lambda p, x: network.apply({"params": p}, x, train=False))(params, x)
    maps = [x[:, ::step, ::step] for step in (1, 2, 4)[first:]]
    merged = [m @ lateral[n] + n for n, m in enumerate(maps)]
    for n in range(count - 2, -1, -1):
        merged[n] = merged[n] + doubled_by_numpy(merged[n + 1], merged[n])
    expected = [m @ output[n] for n, m in enumerate(merged)]
    for ours, theirs in zip(found, [*expected, expected[-1][:, ::2, ::2]], strict=True):
        assert_allclose(ours, theirs, atol=1e-12)


def test_two_convolutions_on_top(float64):
    random = np.random.RandomState(0)
    x, p6, p7 = random.standard_normal((1, 7, 9, 3)), random.standard_normal((3, 2)), random.standard_normal((2, 2))
    params = {
        "p6": {"kernel": at_centre(p6, 3), "bias": np.zeros(2)},
        "p7": {"kernel": at_centre(p7, 3), "bias": np.ones(2)},
    }
    top = Convolved(2, jnp.float64)
    first, second, third = jax.jit(lambda p, x: top.apply({"params": p}, [x]))(params, x)
    assert_array_equal(first, x)
    assert_allclose(second, (x @ p6)[:, ::2, ::2], atol=1e-12)
    assert_allclose(third, np.maximum(x @ p6, 0)[:, ::4, ::4] @ p7 + 1, atol=1e-12)


def test_a_map_that_is_not_half_of_the_next_is_refused():
    with pytest.raises(ValueError, match="a map of 3 x 4 is not half of one of 8 x 8"):
        doubled(jnp.zeros((1, 3, 4, 1)), 8, 8)


def test_pyramids_have_the_published_levels_and_parameters():
    images = jax.ShapeDtypeStruct((1, 128, 160, 3), jnp.float32)
    boxes = jax.ShapeDtypeStruct((1, 7, 4), jnp.float32)
    key = jax.random.key(0)
    count = lambda spec: sum(leaf.size for leaf in jax.tree.leaves(spec["params"]))

    retina = retinanet_resnet50_fpn(91)
    outputs, spec = jax.eval_shape(lambda k, x: retina.init_with_output(k, x, train=False), key, images)
    assert [x.logits.shape[1:3] for x in outputs] == [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
    assert outputs[0].logits.shape[3:] == (9, 91)
    assert count(spec) == 34_014_999  # `num_params` of torchvision's weights

    faster = faster_rcnn_resnet50_fpn(90)
    (outputs, scores), spec = jax.eval_shape(
        lambda k, x, b: faster.init_with_output(k, x, b, train=False), key, images, boxes
    )
    assert [x.offsets.shape[1:] for x in outputs][::4] == [(32, 40, 3, 4), (2, 3, 3, 4)]
    assert (scores.logits.shape, scores.offsets.shape) == ((1, 7, 91), (1, 7, 91, 4))
    assert count(spec) == 41_755_286

    vgg = faster_rcnn_vgg16(20)
    (outputs, scores), spec = jax.eval_shape(
        lambda k, x, b: vgg.init_with_output(k, x, b, train=False), key, images, boxes
    )
    assert [x.logits.shape for x in outputs] == [(1, 8, 10, 9, 1)]
    assert scores.offsets.shape == (1, 7, 21, 4)
    # VGG16 with its dense layers but the last, the layers of the region head, and those of 21 classes.
    assert count(spec) == 138_357_544 - 4_097_000 + 512 * (9 * 512 + 1) + 513 * 9 * 5 + 4097 * 21 * 5


def test_any_residual_network_goes_underneath():
    images, key = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32), jax.random.key(0)
    tiny = faster_rcnn_fpn(resnet.Backbone(resnet.BasicBlock, (1, 1, 1), width=4, stem="cifar"), 3, channels=8)
    boxes = jax.ShapeDtypeStruct((1, 2, 4), jnp.float32)
    regions, _ = jax.eval_shape(lambda k, x, b: tiny.init_with_output(k, x, b, train=False)[0], key, images, boxes)
    assert [x.logits.shape[1] for x in regions] == [64, 32, 16, 8]


@pytest.mark.slow
def test_every_class_starts_improbable():
    tower = Tower(3, 2, 4, 1, bias=-math.log(99), dtype=jnp.float32)
    maps = [jnp.ones((1, 2, 2, 4))]
    logits, _ = jax.jit(lambda key: tower.init_with_output(key, maps))(jax.random.key(0))
    assert_allclose(1 / (1 + np.exp(-np.asarray(logits[0]))), np.full((1, 2, 2, 2, 3), 0.01), rtol=0.1)
    network = retinanet_fpn(resnet.resnet18(None).backbone, 3)
    assert (network.prior, network.depth, network.anchors_per_cell) == (0.01, 4, 9)


def test_the_single_map_is_pooled_by_maximum():
    last = np.random.RandomState(0).standard_normal((14, 14, 2)).astype(np.float32)
    found = jax.jit(pool_last)([np.zeros((28, 28, 2)), last], np.float32([[0, 0, 208, 208]]))
    assert_array_equal(found[0], last.reshape(7, 2, 7, 2, 2).max((1, 3)))

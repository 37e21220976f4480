"""U^2-Net: its parameters, its outputs, its loss and its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import variables_of
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import spec_of

from jaxvision.ops import pixels
from jaxvision.tasks.u2net import RSU, Stage, U2Net, salient_objects, u2net, u2netp
from jaxvision.types import Batch, SegmentationMap

TINY = (Stage(3, 2, 4), Stage(3, 2, 4, dilated=True))


@pytest.mark.parametrize(("make", "count"), [(u2net, 44_009_869), (u2netp, 1_131_181)])
def test_they_have_as_many_parameters_as_the_published_ones(make, count):
    spec = spec_of(make(), (1, 64, 64, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(spec["params"])) == count
    assert set(spec["params"]) == {
        *(f"stage{n}" for n in range(1, 7)),
        *(f"decoder{n}" for n in range(1, 6)),
        *(f"side{n}" for n in range(1, 7)),
        "fuse",
    }


def test_seven_outputs_are_trained_and_one_predicts():
    network = u2netp()
    image = jax.ShapeDtypeStruct((1, 75, 64, 3), jnp.float32)
    run = lambda x, train: network.init_with_output(jax.random.key(0), x, train=train)[0]
    trained = jax.eval_shape(lambda x: run(x, True), image)
    assert [each.shape for each in trained] == [(1, 75, 64, 2)] * 7
    assert jax.eval_shape(lambda x: run(x, False), image).shape == (1, 75, 64, 2)


@pytest.mark.parametrize("dilated", [False, True])
def test_a_block_adds_its_u_net_to_its_entry(dilated):
    block = RSU(Stage(4, 2, 5, dilated))
    spec = spec_of(block, (1, 13, 10, 3))
    shapes = {name: leaf["kernel"].shape[2:] for name, leaf in spec["params"].items() if name.endswith("_conv")}
    assert shapes == {
        **{"input_conv": (3, 5), "encode1_conv": (5, 2), "encode2_conv": (2, 2), "encode3_conv": (2, 2)},
        **{"encode4_conv": (2, 2), "decode3_conv": (4, 2), "decode2_conv": (4, 2), "decode1_conv": (4, 5)},
    }


def batch_of(image, label, size):
    size = jnp.asarray([size], jnp.int32)
    target = SegmentationMap(jnp.asarray(label)[None], jnp.ones((1, *label.shape), bool))
    return Batch(jnp.asarray(image)[None], size, size, jnp.zeros(1, jnp.int32), jnp.ones(1, bool), target)


def test_the_loss_is_the_sum_of_binary_cross_entropies(float64):
    network = U2Net(TINY, TINY[:1], dtype=jnp.float64)
    task = salient_objects(network, dtype=jnp.float64)
    random = np.random.default_rng(0)
    image, label = random.uniform(0, 200, (17, 14, 3)), random.integers(0, 2, (17, 14)).astype(np.int32)
    batch = batch_of(image, label, (17, 14))
    variables = variables_of(task, batch)
    loss, out = jax.jit(task.loss)(variables, batch, jax.random.key(0))
    scaled = (image * (255 / image.max()) - np.array(pixels.IMAGENET_MEAN)) / np.array(pixels.IMAGENET_STD)
    run = jax.jit(lambda x: network.apply(variables, x, train=True, mutable=["batch_stats"]))
    outputs, _ = run(jnp.asarray(scaled[None]))
    assert len(outputs) == 3
    expected = []
    for logits in outputs:
        assert_array_equal(logits[..., 0], 0)
        probability = 1 / (1 + np.exp(-np.asarray(logits[0, ..., 1])))
        expected.append(-np.where(label == 1, np.log(probability), np.log(1 - probability)).mean())
    assert_allclose(loss, sum(expected), rtol=1e-9)
    named = [out.metrics[name] for name in ("pixel_loss", "auxiliary1_loss", "auxiliary2_loss")]
    assert_allclose(named, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_image_is_divided_by_the_largest_value_of_its_content(dtype):
    image = np.random.default_rng(0).integers(3, 90, (6, 5, 3)).astype(dtype)
    image[4:], image[:, 3:] = 255, 255
    found = pixels.brightened(jnp.asarray(image), jnp.int32([4, 3]))
    assert found.dtype == jnp.float32
    assert_allclose(found, image * (255 / image[:4, :3].max()), rtol=1e-6)
    assert_array_equal(pixels.brightened(jnp.zeros((4, 4, 3), dtype), jnp.int32([4, 4])), 0)

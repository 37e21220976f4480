"""Explanations of classifiers: against captum, grad-cam and NumPy loops, and what is refused."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explained_resnet import explained
from numpy.testing import assert_allclose
from parity_networks import filled, shapes_of, spec_of

from jaxvision.errors import ConfigError
from jaxvision.nn.cnn import SmallCNN
from jaxvision.nn.vit import ViT
from jaxvision.tasks.classification import classification
from jaxvision.trust.explain import cam, gradients, layers, masking, rollout, scores
from jaxvision.types import Batch

GOLDEN = Path(__file__).parent / "golden"


def batch_of(images):
    count, side = len(images), images.shape[1:3]
    size, index = np.tile(np.int32([side]), (count, 1)), np.arange(count, dtype=np.int32)
    return Batch(images, size, size, index, index >= 0)


@pytest.fixture
def small():
    """A small network's score of class 1, and two images."""
    images = jnp.asarray(np.random.RandomState(0).uniform(0, 255, (2, 12, 12, 3)), jnp.float32)
    network = SmallCNN(3, (4, 6), depth=1)
    task = classification(network, mean=127.0, std=64.0)
    variables = filled(spec_of(network, images.shape), 3)
    variables["params"] = jax.tree.map(lambda x: x - 0.07, variables["params"])
    return scores.of_class(task, variables, batch_of(images), 1), images


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_maps_equal_those_of_captum_and_grad_cam():
    """Golden values: tests/golden/make_explanations.py, captum 0.9.0, grad-cam 1.5.7, torchvision 0.29.1."""
    golden = np.load(GOLDEN / "explanations.npz")
    found = explained(shapes_of(golden), int(golden["seed"]), tuple(golden["shape"]))
    for name, ours in found.items():
        assert_allclose(ours, golden[name], rtol=0, atol=1e-6, err_msg=name)


def test_saliency_is_the_gradient_and_smooth_grad_without_noise_is_it_too(small):
    score, images = small
    step = 0.05 * jnp.zeros_like(images).at[1, 4, 7, 2].set(1)
    slope = (score(images + step) - score(images - step))[1] / 0.1
    found = gradients.saliency(score, images)
    assert_allclose(found[1, 4, 7, 2], abs(slope), rtol=2e-2)
    assert_allclose(gradients.smooth_grad(score, images, jax.random.key(0), 2, 0.0), found, rtol=1e-4, atol=1e-9)


def test_integrated_gradients_add_up_to_the_difference(small):
    score, images = small
    found = gradients.integrated_gradients(score, images, 127.0, 300)
    difference = score(images) - score(jnp.full_like(images, 127.0))
    assert_allclose(found.sum((1, 2, 3)), difference, rtol=0.01)


def test_rise_is_the_mean_of_masks_by_their_scores(small):
    score, images = small
    masks = masking.random_masks(np.random.default_rng(0), 6, (12, 12), grid=3)
    assert masks.shape == (6, 12, 12)
    assert 0 <= masks.min() < 0.3 < 0.7 < masks.max() <= 1
    expected = np.zeros((12, 12))
    for mask in masks:
        shown = images[0] * mask[..., None] + 30.0 * (1 - mask[..., None])
        expected += float(score(shown[None])[0]) * mask
    found = masking.rise(score, images[0], masks, 30.0, at_once=4)
    assert_allclose(found, expected / (6 * masks.mean()), rtol=1e-4)


def test_rollout_equals_a_loop_and_the_written_out_attention_what_the_network_computes():
    images = jnp.asarray(np.random.RandomState(0).uniform(0, 255, (2, 8, 8, 3)), jnp.float32)
    network = ViT(patch=4, width=6, depth=2, heads=2, classes=3)
    variables = filled(spec_of(network, images.shape))
    score = scores.of_class(classification(network, mean=127.0, std=64.0), variables, batch_of(images), 1)
    attended, values = [], []

    def listen(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.module.name == "projection":
            attended.append(np.asarray(args[0]))
        if context.module.name == "qkv":
            values.append(np.asarray(output).reshape(2, 5, 3, 2, 3)[:, :, 2])
        return output

    with nn.intercept_methods(listen):
        score(images)
    found = rollout.attention_weights(score, images)
    for weights, value, expected in zip(found, values, attended, strict=True):
        assert_allclose(np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(expected.shape), expected, atol=1e-6)
    for image in range(2):
        product = np.eye(5)
        for block in found:
            product = (0.5 * np.asarray(block[image]).mean(0) + 0.5 * np.eye(5)) @ product
        assert_allclose(rollout.of_class_token(found, (2, 2))[image].ravel(), product[0, 1:], atol=1e-6)


def test_a_layer_that_is_not_there_is_refused_with_the_nearest(small):
    score, images = small
    with pytest.raises(
        ConfigError, match=r"no layer 'stage2_conv2' among 4 layers with a map; did you mean 'stage2_conv1'"
    ):
        layers.with_gradients(score, images, "stage2_conv2")


def test_grad_cam_looks_at_the_last_layer_unless_told(small):
    score, images = small
    found = layers.outputs(score, images)
    assert layers.last(found) == list(found)[-1] == "stage2_norm1"
    outputs, slopes = layers.with_gradients(score, images, "stage2_norm1")
    assert cam.on_canvas(cam.grad_cam, outputs, slopes, (12, 12)).shape == (2, 12, 12)


def test_rollout_is_refused_where_there_is_no_attention(small):
    with pytest.raises(ConfigError, match="rollout is for a vision transformer"):
        rollout.attention_weights(*small)

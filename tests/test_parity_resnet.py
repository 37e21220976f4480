"""Residual networks against torchvision itself: python -m pytest -m parity, with torch and torchvision installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import compute, compute_torch, random_images, random_weights, shapes_torch, under_torch_names

from jaxvision.nn import resnet
from jaxvision.pretrained import torchvision

pytestmark = pytest.mark.parity


def both(name, dtype, shape):
    """Our figures and torchvision's from the same weights, images and labels."""
    reason = "needs torch and torchvision: install the parity extra"
    pytest.importorskip("torch", reason=reason)
    theirs = getattr(pytest.importorskip("torchvision", reason=reason).models, name)()
    theirs = theirs.double() if dtype == np.float64 else theirs
    weights = random_weights(shapes_torch(theirs), seed=7)
    images, labels = random_images(shape, 1000, seed=8)
    ours = getattr(resnet, name)(dtype=dtype)
    spec = jax.eval_shape(lambda: ours.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    variables = torchvision.resnet(weights, spec)
    logits, loss, gradient, statistics = compute(ours, variables, jnp.asarray(images, dtype), jnp.asarray(labels))
    sources = torchvision.resnet_sources(spec)
    named = under_torch_names(sources, "params", gradient), under_torch_names(sources, "batch_stats", statistics)
    return (logits, loss, *named), compute_torch(theirs, weights, images, labels)


def furthest(ours, theirs):
    """Largest relative error in norm of all arrays."""
    assert sorted(ours) == sorted(theirs)
    return max(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (4, 64, 64, 3)),
        ("resnet34", (2, 75, 64, 3)),
        ("resnet50", (4, 64, 64, 3)),
        ("resnet101", (2, 64, 64, 3)),
        ("resnet152", (2, 64, 64, 3)),
    ],
)
def test_equals_torchvision_in_float64(float64, name, shape):
    ours, theirs = both(name, np.float64, shape)
    errors = {
        "logits": np.abs(ours[0] - theirs[0]).max() / np.abs(theirs[0]).max(),
        "loss": abs(ours[1] - theirs[1]) / theirs[1],
        "gradient": furthest(ours[2], theirs[2]),
        "statistics": furthest(ours[3], theirs[3]),
    }
    print(name, errors)
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_logits_equal_torchvision_in_float32(name):
    ours, theirs = both(name, np.float32, (4, 64, 64, 3))
    error = np.abs(ours[0] - theirs[0]).max() / np.abs(theirs[0]).max()
    print(name, error)
    assert_allclose(error, 0, atol=1e-4)

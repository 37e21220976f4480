"""timm's weights for our networks: `state_dict` as NumPy arrays, timm itself is not needed.

Arguments and errors of the loaders are those of `jaxvision.pretrained.torchvision`.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from jaxvision.pretrained.strict import Path, Source
from jaxvision.pretrained.torch_layout import fill_network, module_sources, unchanged
from jaxvision.types import Variables


def efficientnet_lite0(
    state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True
) -> dict[str, Any]:
    """Variables of an EfficientNet-Lite0 of `jaxvision.nn.efficientnet`, with timm's or (`tf_`) TensorFlow's weights."""
    return fill_network(efficientnet_lite0_sources(variables), state_dict, variables, () if head else ("classifier",))


def vit(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.vit.ViT`: timm's `vit_{tiny,small,base,large}_patch{16,14}_224`."""
    return fill_network(vit_sources(variables), state_dict, variables, () if head else ("head",))


def efficientnet_lite0_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of an EfficientNet-Lite0: for every array its name in timm and how its axes turn into ours."""
    blocks = variables["params"]["backbone"]
    expanding = {name for name, block in blocks.items() if "expand_conv" in block}
    return module_sources(variables, partial(_efficientnet_module, expanding=expanding))


def vit_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `ViT`: for every array its name in timm and how its axes turn into ours."""
    single = {"class_token": "cls_token", "positions": "pos_embed"}
    arrays = {("params", ours): Source(theirs, unchanged) for ours, theirs in single.items()}
    modules = {name: tree for name, tree in variables["params"].items() if name not in single}
    return {**arrays, **module_sources({"params": modules}, _vit_module)}


def _efficientnet_module(ours: str, expanding: set[str]) -> str:
    """`backbone/stage2_block1/project_norm` is `blocks.1.0.bn3`."""
    ours = ours.removeprefix("backbone/")
    outside = {
        "stem_conv": "conv_stem",
        "stem_norm": "bn1",
        "last_conv": "conv_head",
        "last_norm": "bn2",
        "head": "classifier",
    }
    if ours in outside:
        return outside[ours]
    inside = re.fullmatch(r"(stage(\d+)_block(\d+))/(\w+)", ours)
    if inside is None:
        raise ValueError(f"timm's EfficientNet has no counterpart of {ours!r}")
    block, stage, number, layer = inside.groups()
    plain = {"depthwise_conv": "conv_dw", "depthwise_norm": "bn1", "project_conv": "conv_pw", "project_norm": "bn2"}
    inverted = {
        "expand_conv": "conv_pw",
        "expand_norm": "bn1",
        "depthwise_conv": "conv_dw",
        "depthwise_norm": "bn2",
        "project_conv": "conv_pwl",
        "project_norm": "bn3",
    }
    names = inverted if block in expanding else plain
    return f"blocks.{int(stage) - 1}.{int(number) - 1}.{names[layer]}"


def _vit_module(ours: str) -> str:
    """`block1/qkv` is `blocks.0.attn.qkv`."""
    outside = {"patches": "patch_embed.proj", "norm": "norm", "head": "head"}
    if ours in outside:
        return outside[ours]
    inside = re.fullmatch(r"block(\d+)/(\w+)", ours)
    if inside is None:
        raise ValueError(f"timm's ViT has no counterpart of {ours!r}")
    number, layer = inside.groups()
    names = {"qkv": "attn.qkv", "projection": "attn.proj", "dense1": "mlp.fc1", "dense2": "mlp.fc2"}
    return f"blocks.{int(number) - 1}.{names.get(layer, layer)}"

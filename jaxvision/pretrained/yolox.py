"""The public weights of YOLOX for ours, from a `state_dict` of NumPy arrays: the `model` of its checkpoints.

    start(yolox_sources, "yolox_s.pth", inside="model")

They are for pixels in the order blue, green, red; ours are red, green, blue, and the first kernel is turned for that.
"""

import re

import numpy as np

from jaxvision.pretrained.strict import Path, Source, Turn
from jaxvision.pretrained.torch_layout import conv_kernel, module_sources
from jaxvision.types import Variables

STEM = ("params", "backbone", "stem", "conv", "kernel")
LAYERS = {"conv": "conv", "norm": "bn", "depthwise": "dconv", "pointwise": "pconv"}
CSP = {"enter": "conv1", "aside": "conv2", "leave": "conv3"}
POOLING = {"enter": "conv1", "leave": "conv2"}
NECK = {
    "down2_reduce": "backbone.lateral_conv0",
    "down2_csp": "backbone.C3_p4",
    "down1_reduce": "backbone.reduce_conv1",
    "down1_csp": "backbone.C3_p3",
    "up1_conv": "backbone.bu_conv2",
    "up1_csp": "backbone.C3_n3",
    "up2_conv": "backbone.bu_conv1",
    "up2_csp": "backbone.C3_n4",
}
BRANCHES = {"class": "cls", "box": "reg", "objectness": "obj"}


def yolox_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.yolox.YOLOX` on `CSPDarknet`: for every array its name in the file and how its axes turn.

    Raises:
      ValueError: for arrays of another network.
    """
    found = module_sources(variables, _module)
    return {**found, STEM: Source(found[STEM].name, stem_kernel)}


def _opposite_colours(kernel: np.ndarray) -> np.ndarray:
    """The first kernel, whose inputs are the three colours of each of four pixels, with the colours in the other order."""
    height, width, channels, features = kernel.shape
    by_pixel = kernel.reshape(height, width, channels // 3, 3, features)
    return by_pixel[:, :, :, ::-1].reshape(kernel.shape)


stem_kernel = Turn(
    lambda weight: _opposite_colours(conv_kernel(weight)), lambda kernel: conv_kernel.back(_opposite_colours(kernel))
)
"""Kernel `o i h w` for blue, green, red to `h w i o` for red, green, blue."""


def _module(ours: str) -> str:
    """`backbone/stage1_csp/block1_reduce/conv` is `backbone.backbone.dark2.1.m.0.conv1.conv`."""
    part, name, *inner = ours.split("/")
    layers = LAYERS | (POOLING if name.endswith("pooling") else CSP)
    theirs = {"backbone": _in_backbone, "neck": NECK.get, "head": _in_head}.get(part, lambda name: None)(name)
    names = [theirs, *(_block(each) or layers.get(each) for each in inner)]
    if None in names:
        raise ValueError(f"the authors' YOLOX has no counterpart of {ours!r}")
    return ".".join(str(each) for each in names)


def _in_backbone(name: str) -> str | None:
    if found := re.fullmatch(r"stage([1-3])_(conv|csp)", name):
        return f"backbone.backbone.dark{int(found[1]) + 1}.{('conv', 'csp').index(found[2])}"
    if found := re.fullmatch(r"stage4_(conv|pooling|csp)", name):
        return f"backbone.backbone.dark5.{('conv', 'pooling', 'csp').index(found[1])}"
    return "backbone.backbone.stem.conv" if name == "stem" else None


def _in_head(name: str) -> str | None:
    if found := re.fullmatch(r"stem(\d)", name):
        return f"head.stems.{int(found[1]) - 1}"
    if found := re.fullmatch(r"(class|box|objectness)(\d)", name):
        return f"head.{BRANCHES[found[1]]}_preds.{int(found[2]) - 1}"
    if found := re.fullmatch(r"(class|box)(\d)_conv(\d)", name):
        return f"head.{BRANCHES[found[1]]}_convs.{int(found[2]) - 1}.{int(found[3]) - 1}"
    return None


def _block(name: str) -> str | None:
    found = re.fullmatch(r"block(\d+)_(reduce|conv)", name)
    return found and f"m.{int(found[1]) - 1}.conv{('reduce', 'conv').index(found[2]) + 1}"

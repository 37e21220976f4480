"""torchvision's detectors for ours, from a `state_dict` of NumPy arrays: torch itself is not needed."""

import re

from jaxvision.pretrained.strict import Path, Source
from jaxvision.pretrained.torch_layout import module_sources, unchanged
from jaxvision.pretrained.torchvision import vgg_sources
from jaxvision.types import Variables

VGG16_CONVOLUTIONS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (1, 3, 5)}
"""Places of the convolutions of each stage in torchvision's `features`, and of the last stage in its `extra.0`."""


def ssd_sources(variables: Variables) -> dict[Path, Source]:
    """For every array of an `nn.ssd.SSD` on VGG16 its name in torchvision, and how its axes turn into ours."""
    scale = ("params", "features", "norm4", "scale")
    params = {**variables["params"], "features": {**variables["params"]["features"]}}
    del params["features"]["norm4"]
    found = module_sources({**variables, "params": params}, _ssd_module)
    return {**found, scale: Source("backbone.scale_weight", unchanged)}


def ssd_backbone_sources(variables: Variables) -> dict[Path, Source]:
    """For the VGG16 within such a network, its names in torchvision's VGG16: `features.21`; nothing for the rest."""
    backbone = {"params": {"backbone": variables["params"]["features"]["backbone"]}}
    found = vgg_sources({"params": {**backbone["params"]}})
    return {("params", "features", *path[1:]): source for path, source in found.items()}


def _ssd_module(ours: str) -> str:
    """`features/backbone/stage4_conv3` is `backbone.features.21`."""
    if stage := re.fullmatch(r"features/backbone/stage(\d)_conv(\d)", ours):
        number, layer = map(int, stage.groups())
        return f"backbone.{'extra.0' if number == 5 else 'features'}.{VGG16_CONVOLUTIONS[number][layer - 1]}"
    if extra := re.fullmatch(r"features/extra(\d)_(squeeze|conv)", ours):
        return f"backbone.extra.{extra[1]}.{0 if extra[2] == 'squeeze' else 2}"
    if head := re.fullmatch(r"(classes|boxes)(\d)", ours):
        kind = {"classes": "classification", "boxes": "regression"}[head[1]]
        return f"head.{kind}_head.module_list.{int(head[2]) - 1}"
    dense = {"features/conv6": "backbone.extra.0.7.1", "features/conv7": "backbone.extra.0.7.3"}
    if ours not in dense:
        raise ValueError(f"torchvision's SSD has no counterpart of {ours!r}")
    return dense[ours]

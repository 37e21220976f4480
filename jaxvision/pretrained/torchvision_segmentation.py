"""torchvision's semantic segmenters for ours, from a `state_dict` of NumPy arrays: torch itself is not needed."""

import re
from collections.abc import Callable
from functools import partial

import numpy as np

from jaxvision.pretrained.strict import Path, Source, Turn
from jaxvision.pretrained.torch_layout import conv_kernel, module_sources, unchanged
from jaxvision.pretrained.torchvision import resnet_sources, vgg_sources
from jaxvision.types import Variables

HEAD = {"conv": "0", "norm": "1", "logits": "4"}
"""Places of the layers of an `FCNHead` in torchvision's."""


def fcn_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.fcn.FCN` from torchvision's `fcn_resnet50`, and of other depths.

    The distributed `fcn_resnet50_coco-1167a1af.pth` has 21 classes, background and VOC's 20, and an auxiliary head. It was
    trained on images whose short side is 520 pixels: `placement.resize_shortest_edge(520, ...)`.
    """
    heads = {"head": "classifier", "auxiliary": "aux_classifier"}
    return _on_resnet(variables, lambda ours: _fcn_module(ours, heads))


def deeplab_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.deeplab.deeplabv3_resnet50` from torchvision's, and of other depths.

    What is said of `fcn_sources` goes for the distributed `deeplabv3_resnet50_coco-cd0a2569.pth`, too.
    """
    last = max(int(name[len("branch") : -len("_conv")]) for name in _branches(variables))
    return _on_resnet(variables, partial(_deeplab_module, image=last))


def backbone_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of the ResNet within such a network from torchvision's ResNet: `layer1.0.conv1`; nothing for the rest."""
    backbone = {
        collection: {"backbone": tree["backbone"]} for collection, tree in variables.items() if "backbone" in tree
    }
    return resnet_sources(backbone)


def vgg16_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.fcn.SkipFCN` but its scores from torchvision's VGG16, dense layers as convolutions.

    `classifier.6` of the file is left over.
    """
    params = variables["params"]
    found = vgg_sources({"params": {"backbone": params["backbone"]}})
    for name, theirs, side in (("conv6", "classifier.0", 7), ("conv7", "classifier.3", 1)):
        kernel = Turn(partial(_as_convolution, side=side), _as_dense)
        found[("params", name, "kernel")] = Source(f"{theirs}.weight", kernel)
        found[("params", name, "bias")] = Source(f"{theirs}.bias", unchanged)
    return found


def _as_convolution(weight: np.ndarray, side: int) -> np.ndarray:
    """Weight of a dense layer behind flattened features, `o (i h w)`, as the kernel of a convolution, `h w i o`."""
    return conv_kernel(weight.reshape(len(weight), -1, side, side))


def _as_dense(kernel: np.ndarray) -> np.ndarray:
    weight = conv_kernel.back(kernel)
    return weight.reshape(len(weight), -1)


def _branches(variables: Variables) -> list[str]:
    return [name for name in variables["params"]["head"] if re.fullmatch(r"branch\d+_conv", name)]


def _on_resnet(variables: Variables, module: Callable[[str], str]) -> dict[Path, Source]:
    """The names of a segmenter on a ResNet, given those of the modules but the backbone."""
    inner = {
        path: source._replace(name=f"backbone.{source.name}") for path, source in backbone_sources(variables).items()
    }
    heads = {
        collection: {name: part for name, part in tree.items() if name != "backbone"}
        for collection, tree in variables.items()
    }
    return {**inner, **module_sources(heads, module)}


def _fcn_module(ours: str, heads: dict[str, str]) -> str:
    """`auxiliary/norm` is `aux_classifier.1`."""
    head, _, layer = ours.partition("/")
    if head not in heads or layer not in HEAD:
        raise ValueError(f"torchvision's segmenters have no counterpart of {ours!r}")
    return f"{heads[head]}.{HEAD[layer]}"


def _deeplab_module(ours: str, image: int) -> str:
    """`head/branch2_norm` is `classifier.0.convs.1.1`, `head/image_conv` is `classifier.0.convs.4.1`."""
    parts = re.fullmatch(r"head/(branch(\d+)|image|project|last)_(conv|norm)", ours)
    if ours == "head/logits":
        return "classifier.4"
    if parts is None:
        return _fcn_module(ours, {"auxiliary": "aux_classifier"})
    place = ("conv", "norm").index(parts[3])
    if parts[2]:
        return f"classifier.0.convs.{int(parts[2]) - 1}.{place}"
    places = {
        "image": f"classifier.0.convs.{image}.{place + 1}",
        "project": f"classifier.0.project.{place}",
        "last": f"classifier.{place + 1}",
    }
    return places[parts[1]]

"""torchvision's weights for our networks: `state_dict` as NumPy arrays, torch itself is not needed.

arrays = {name: tensor.numpy() for name, tensor in torchvision_model.state_dict().items()}
variables = resnet(arrays, variables)

All loaders have the same arguments and errors:
    state_dict: name to array, as torchvision names them; `num_batches_tracked` is ignored.
    variables: the network's own, from `init`; those that are replaced may be `jax.ShapeDtypeStruct`.
    head: False keeps the head of `variables`, if it has one, and ignores the given one: for other classes.
    WeightsError: if names are missing or left over, or shapes differ; it counts them and names some.
Each has a `..._sources(variables)`: for every array of the network its name in torchvision and how its axes turn into ours.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from flax import traverse_util

from jaxvision.pretrained.strict import Path, Source
from jaxvision.pretrained.torch_layout import (
    block_indices,
    channel_scale,
    dense_kernel_after_flatten,
    fill_network,
    module_sources,
)
from jaxvision.types import Variables


def resnet(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.resnet.ResNet` with torchvision's weights; arguments and errors: see the module."""
    return fill_network(resnet_sources(variables), state_dict, variables, () if head else ("fc",))


def resnet_backbone(state_dict: Mapping[str, np.ndarray], variables: Variables) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.resnet.Backbone` with torchvision's ResNet weights, whose `fc` is ignored.

    Arguments and errors as for `resnet`.
    """
    inside = {collection: {"backbone": tree} for collection, tree in variables.items()}
    filled = resnet(state_dict, inside, head=False)
    return {collection: tree["backbone"] for collection, tree in filled.items()}


def vgg(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.vgg.VGG`, with or without BatchNorm; arguments and errors: see the module."""
    return fill_network(vgg_sources(variables), state_dict, variables, () if head else ("classifier.6",))


def squeezenet(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.squeezenet.SqueezeNet`; arguments and errors: see the module."""
    return fill_network(squeezenet_sources(variables), state_dict, variables, () if head else ("classifier.1",))


def mobilenet_v2(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.mobilenet.mobilenet_v2`; arguments and errors: see the module."""
    return fill_network(mobilenet_v2_sources(variables), state_dict, variables, () if head else ("classifier.1",))


def inception_v3(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.inception.InceptionV3`; arguments and errors: see the module.

    A network without an auxiliary head ignores the given one; `head=False` keeps both heads. The weights that torchvision
    distributes were trained on pixels (x - 127.5) / 127.5.
    """
    auxiliary = () if "AuxLogits" in variables["params"] else ("AuxLogits",)
    heads = () if head else ("fc", "AuxLogits.fc")
    return fill_network(inception_v3_sources(variables), state_dict, variables, auxiliary + heads)


def googlenet(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.googlenet.GoogLeNet`; arguments and errors: see the module.

    A network without auxiliary heads ignores the given ones; `head=False` keeps all heads. The weights that torchvision
    distributes were trained on pixels (x - 127.5) / 127.5, and have no auxiliary heads of use.
    """
    auxiliary = () if "aux1" in variables["params"] else ("aux1", "aux2")
    heads = () if head else ("fc", "aux1.fc2", "aux2.fc2")
    return fill_network(googlenet_sources(variables), state_dict, variables, auxiliary + heads)


def convnext(state_dict: Mapping[str, np.ndarray], variables: Variables, *, head: bool = True) -> dict[str, Any]:
    """Variables of a `jaxvision.nn.convnext.ConvNeXt`; arguments and errors: see the module."""
    return fill_network(convnext_sources(variables), state_dict, variables, () if head else ("classifier.2",))


def resnet_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `ResNet`: for every array its name in torchvision and how its axes turn into ours."""
    return module_sources(variables, _resnet_module)


def vgg_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `VGG`: for every array its name in torchvision and how its axes turn into ours."""
    layers = variables["params"]["backbone"]
    normalised = any("_norm" in name for path in traverse_util.flatten_dict(variables) for name in path)
    indices = block_indices(variables, first=0, step=3 if normalised else 2, between_stages=1)
    last = layers[max((layer for layer in layers if "conv" in layer), key=indices.__getitem__)]["kernel"].shape[-1]
    return module_sources(
        variables, partial(_vgg_module, indices=indices), {"dense1": dense_kernel_after_flatten(last, 7, 7)}
    )


def squeezenet_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `SqueezeNet`: for every array its name in torchvision and how its axes turn into ours."""
    indices = block_indices(variables, first=3, between_stages=1)
    return module_sources(variables, partial(_squeezenet_module, indices=indices))


def mobilenet_v2_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `mobilenet_v2`: for every array its name in torchvision and how its axes turn into ours."""
    indices = block_indices(variables, first=1)
    blocks = variables["params"]["backbone"]
    expanding = {name for name in indices if "expand_conv" in blocks[name]}
    return module_sources(variables, partial(_mobilenet_v2_module, indices=indices, expanding=expanding))


def inception_v3_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of an `InceptionV3`: for every array its name in torchvision and how its axes turn into ours."""
    return module_sources(
        variables, lambda ours: "fc" if ours == "head" else ours.replace("norm", "bn").replace("/", ".")
    )


def googlenet_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `GoogLeNet`: for every array its name in torchvision and how its axes turn into ours."""
    flattened = dense_kernel_after_flatten(128, 4, 4)
    return module_sources(variables, _googlenet_module, {"aux1/fc1": flattened, "aux2/fc1": flattened})


def convnext_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `ConvNeXt`: for every array its name in torchvision and how its axes turn into ours."""
    flat: dict[Path, Any] = {**traverse_util.flatten_dict(variables)}
    scales = {
        path: Source(_convnext_module("/".join(path[1:])), channel_scale) for path in flat if path[-1] == "layer_scale"
    }
    modules = traverse_util.unflatten_dict({path: array for path, array in flat.items() if path not in scales})
    return {**scales, **module_sources(modules, _convnext_module)}


def _googlenet_module(ours: str) -> str:
    """`inception3a/branch2_1/norm` is `inception3a.branch2.0.bn`."""
    if ours == "head":
        return "fc"
    theirs = re.sub(r"_(\d)/", lambda found: f".{int(found[1]) - 1}/", ours.replace("branch4/", "branch4_2/"))
    return theirs.replace("norm", "bn").replace("/", ".")


def _convnext_module(ours: str) -> str:
    """`backbone/stage2_block1/dense1` is `features.3.0.block.3`, `backbone/stage2_conv` is `features.2.1`."""
    outside = {
        "backbone/stem_conv": "features.0.0",
        "backbone/stem_norm": "features.0.1",
        "norm": "classifier.0",
        "head": "classifier.2",
    }
    if ours in outside:
        return outside[ours]
    inside = re.fullmatch(r"backbone/stage(\d+)_block(\d+)/(\w+)", ours)
    between = re.fullmatch(r"backbone/stage(\d+)_(norm|conv)", ours)
    if between is not None:
        return f"features.{2 * int(between[1]) - 2}.{('norm', 'conv').index(between[2])}"
    if inside is None:
        raise ValueError(f"torchvision's ConvNeXt has no counterpart of {ours!r}")
    places = {"conv": "block.0", "norm": "block.2", "dense1": "block.3", "dense2": "block.5"}
    return f"features.{2 * int(inside[1]) - 1}.{int(inside[2]) - 1}.{places.get(inside[3], inside[3])}"


def _resnet_module(ours: str) -> str:
    """`stage1_block2/norm1` is `layer1.1.bn1`."""
    ours = ours.removeprefix("backbone/")
    outside = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"}
    if ours in outside:
        return outside[ours]
    inside = re.fullmatch(r"stage(\d+)_block(\d+)/(\w+)", ours)
    if inside is None:
        raise ValueError(f"torchvision's ResNet has no counterpart of {ours!r}")
    stage, block, layer = inside.groups()
    shortcut = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
    return f"layer{stage}.{int(block) - 1}.{shortcut.get(layer, layer.replace('norm', 'bn'))}"


def _vgg_module(ours: str, indices: Mapping[str, int]) -> str:
    """`backbone/stage1_norm2` is `features.4`."""
    outside = {"dense1": "classifier.0", "dense2": "classifier.3", "head": "classifier.6"}
    if ours in outside:
        return outside[ours]
    layer = ours.removeprefix("backbone/")
    if layer not in indices:
        raise ValueError(f"torchvision's VGG has no counterpart of {ours!r}")
    return f"features.{indices[layer] + ('_norm' in layer)}"


def _squeezenet_module(ours: str, indices: Mapping[str, int]) -> str:
    """`stage1_fire2/squeeze` is `features.4.squeeze`."""
    outside = {"stem_conv": "features.0", "head_conv": "classifier.1"}
    if ours in outside:
        return outside[ours]
    fire, _, layer = ours.partition("/")
    if fire not in indices:
        raise ValueError(f"torchvision's SqueezeNet has no counterpart of {ours!r}")
    return f"features.{indices[fire]}.{layer}"


def _mobilenet_v2_module(ours: str, indices: Mapping[str, int], expanding: set[str]) -> str:
    """`backbone/stage2_block1/project_norm` is `features.2.conv.3`."""
    last = max(indices.values()) + 1
    outside = {
        "backbone/stem_conv": "features.0.0",
        "backbone/stem_norm": "features.0.1",
        "last_conv": f"features.{last}.0",
        "last_norm": f"features.{last}.1",
        "head": "classifier.1",
    }
    if ours in outside:
        return outside[ours]
    block, _, layer = ours.removeprefix("backbone/").partition("/")
    if block not in indices:
        raise ValueError(f"torchvision's MobileNetV2 has no counterpart of {ours!r}")
    first = ["expand_conv", "expand_norm"] if block in expanding else []
    pairs = [*first, "depthwise_conv", "depthwise_norm"]
    places = {name: f"{i // 2}.{i % 2}" for i, name in enumerate(pairs)}
    places |= {"project_conv": f"{len(pairs) // 2}", "project_norm": f"{len(pairs) // 2 + 1}"}
    return f"features.{indices[block]}.conv.{places[layer]}"

"""TensorFlow's SSD-MobileNetV2 for our `tasks.ssd.ssd300_mobilenet_v2`: arrays by the names of its frozen graph.

arrays = frozen_graph.read_constants(Path("frozen_inference_graph.pb"))
loaded = strict.load(sources(variables), arrays, variables, unused=UNUSED)
"""

import re
from typing import Any

import numpy as np
from flax import traverse_util

from jaxvision.pretrained.strict import Path, Source, Turn
from jaxvision.pretrained.torch_layout import unchanged
from jaxvision.types import Variables

UNUSED = (
    r"MultipleGridAnchorGenerator/.*",
    r"Postprocessor/.*",
    r"Preprocessor/.*",
    r".*/batchnorm/add/y",
    r"Const.*",
    r"add/y",
)
"""Constants of the graph that are no weights: of its anchors, its input and its NMS."""
BEHIND_BACKBONE = (r"FeatureExtractor/MobilenetV2/(Conv_1|layer_19)[/_].*", r"BoxPredictor_.*")
"""Arrays of the graph that are left aside too where the backbone alone is loaded."""
LEAVES = {
    "kernel": "weights",
    "bias": "biases",
    "scale": "BatchNorm/gamma",
    "var": "BatchNorm/moving_variance",
    "mean": "BatchNorm/moving_mean",
}
DEPTHWISE = Turn(lambda array: array.transpose(0, 1, 3, 2), lambda array: array.transpose(0, 1, 3, 2))
"""Depthwise kernel, `h w i 1` to `h w 1 i`."""


def _swapped(array: np.ndarray) -> np.ndarray:
    return array.reshape(*array.shape[:-1], -1, 4)[..., [1, 0, 3, 2]].reshape(array.shape)


SWAPPED = Turn(_swapped, _swapped)
"""Offsets `ty tx th tw` of every box to `tx ty tw th`."""


def sources(variables: Variables) -> dict[Path, Source]:
    """The name map of the network: for every array its name in the graph and how its axes turn into ours."""
    flat: dict[Path, Any] = {**traverse_util.flatten_dict(variables)}
    blocks = sorted({path[3] for path in flat if path[2] == "backbone" and path[3].startswith("stage")}, key=_in_order)
    extras = {
        path[2].removesuffix("_conv"): flat[path].shape[-1]
        for path in flat
        if path[1] == "features" and re.fullmatch(r"extra\d+(_squeeze|_depthwise)?_conv", path[2])
    }
    return {path: _source(path, blocks, extras) for path in flat}


def backbone_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of the MobileNetV2 at `features/backbone` of any detector alone; nothing for the rest."""
    inside = {
        collection: {"features": {"backbone": tree["features"]["backbone"]}}
        for collection, tree in variables.items()
        if "backbone" in tree.get("features", {})
    }
    return sources(inside)


def _source(path: Path, blocks: list[str], extras: dict[str, int]) -> Source:
    module, leaf = path[-2], path[-1]
    if path[1] != "features":
        kind, number = re.fullmatch(r"(classes|boxes)(\d+)", module).groups()  # type: ignore[union-attr]
        name = f"BoxPredictor_{int(number) - 1}/{'ClassPredictor' if kind == 'classes' else 'BoxEncodingPredictor'}"
        return Source(f"{name}/{LEAVES[leaf]}", SWAPPED if kind == "boxes" else unchanged)
    layer = _layer(path, blocks, extras)
    if leaf == "kernel" and "depthwise" in module:
        return Source(f"{layer}/depthwise_weights", DEPTHWISE)
    leaves = LEAVES | {"bias": "BatchNorm/beta"}
    return Source(f"{layer}/{leaves[leaf]}", unchanged)


def _layer(path: Path, blocks: list[str], extras: dict[str, int]) -> str:
    """The layer of the graph that a convolution of the features, or its normalisation, is in."""
    root, name = "FeatureExtractor/MobilenetV2", re.sub(r"_(conv|norm)$", "", path[-2])
    if path[2] == "backbone":
        if name == "stem":
            return f"{root}/Conv"
        number = blocks.index(path[3])
        return f"{root}/expanded_conv{f'_{number}' if number else ''}/{name}"
    if name == "last":
        return f"{root}/Conv_1"
    number = int(re.findall(r"\d+", name)[0])
    if name.endswith("_squeeze"):
        return f"{root}/layer_19_1_Conv2d_{number + 1}_1x1_{extras[name]}"
    channels = extras[f"extra{number}"]
    return f"{root}/layer_19_2_Conv2d_{number + 1}_3x3_s2_{channels}{'_depthwise' if 'depthwise' in name else ''}"


def _in_order(block: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", block)))

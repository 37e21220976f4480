"""The published weights of DETR for ours, from NumPy arrays: neither torch nor transformers is needed.

`detr_sources` knows the names of transformers' files (`DetrForObjectDetection`, `facebook/detr-resnet-50`);
`from_facebook` turns the authors' own (`detr-r50-e632da11.pth`) into those:

    arrays = from_facebook(files.read("detr-r50-e632da11.pth", inside="model"))
    variables = strict.load(detr_sources(variables), arrays, variables).variables

Their classes are COCO's ids, 0 to 90 (`CLASSES`); `coco_sources` keeps the 80 that exist. `segmentation_sources` and
`panoptic_sources` are for `DetrForSegmentation`, `facebook/detr-resnet-50-panoptic`, whose classes are ids 0 to 249.
"""

import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from jaxvision.pretrained import coco, torchvision
from jaxvision.pretrained.strict import Path, Source, inside
from jaxvision.pretrained.torch_layout import module_sources, unchanged
from jaxvision.types import Variables

CLASSES = ("(id 0)", *coco.BY_ID)
"""What label 0, 1, ... of the published weights stands for."""
BACKBONE = "model.backbone.conv_encoder.model."
OUTSIDE = {
    "projection": "model.input_projection",
    "norm": "model.decoder.layernorm",
    "classes": "class_labels_classifier",
    **{f"boxes{number + 1}": f"bbox_predictor.layers.{number}" for number in range(3)},
}
PANOPTIC = 250
"""Classes of the published network for COCO panoptic, whose ids go to 200."""
MASKS = {"conv": "lay", "norm": "gn", "adapter": "adapter"}
"""Layers of the mask head, which are numbered on both sides."""
INSIDE = {
    "attention": "self_attn",
    "cross_attention": "encoder_attn",
    **{"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"},
    **{"dense1": "fc1", "dense2": "fc2"},
}
NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
FACEBOOK = (
    (r"backbone\.0\.body\.", BACKBONE),
    (r"transformer\.decoder\.norm\.", "model.decoder.layernorm."),
    (r"transformer\.", "model."),
    (r"input_proj\.", "model.input_projection."),
    (r"query_embed\.", "model.query_position_embeddings."),
    (r"class_embed\.", "class_labels_classifier."),
    (r"bbox_embed\.", "bbox_predictor."),
    (r"(.*\.)multihead_attn\.", r"\1encoder_attn."),
    (r"(.*\.)linear(\d)\.", r"\1fc\2."),
)
"""Beginnings of the authors' names, and transformers'; their norms and packed matrices aside."""


def detr_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.detr.DETR` on a ResNet: for every array its name in transformers and how its axes turn."""
    backbone = {name: {"backbone": tree["backbone"]} for name, tree in variables.items() if "backbone" in tree}
    found = {
        path: Source(f"{BACKBONE}{source.name}", source.convert)
        for path, source in torchvision.resnet_sources(backbone).items()
    }
    if "queries" in variables["params"]:
        found["params", "queries"] = Source("model.query_position_embeddings.weight", unchanged)
    rest = {name: tree for name, tree in variables["params"].items() if name not in ("backbone", "queries")}
    return {**found, **module_sources({"params": rest}, _module)}


def coco_sources(variables: Variables) -> dict[Path, Source]:
    """`detr_sources` for a network of COCO's 80 classes: those of the 91, and no object."""
    return _of_classes(detr_sources(variables), ("classes",), np.array([*coco.IDS, len(CLASSES)]))


def segmentation_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.detr_segmentation.DETRSegmentation` on a ResNet."""
    boxes = inside("detr", detr_sources)(variables)
    found = {path: Source(f"detr.{source.name}", source.convert) for path, source in boxes.items()}
    masks = {name: tree for name, tree in variables["params"].items() if name != "detr"}
    return {**found, **module_sources({"params": masks}, _mask_module)}


def panoptic_sources(variables: Variables) -> dict[Path, Source]:
    """`segmentation_sources` for a network of the 133 classes of COCO panoptic: those of the 250, and no object."""
    return _of_classes(segmentation_sources(variables), ("detr", "classes"), np.array([*coco.PANOPTIC_IDS, PANOPTIC]))


def _of_classes(found: dict[Path, Source], head: Path, kept: Int[np.ndarray, "k"]) -> dict[Path, Source]:
    """The name map with these rows alone of the layer that scores the classes."""
    kernel, bias = found["params", *head, "kernel"], found["params", *head, "bias"]
    return {
        **found,
        ("params", *head, "kernel"): Source(kernel.name, lambda array: kernel.convert(array)[:, kept]),
        ("params", *head, "bias"): Source(bias.name, lambda array: bias.convert(array)[kept]),
    }


def from_facebook(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the authors' files under transformers' names; packed queries, keys and values unpacked."""
    renamed = {}
    for name, array in arrays.items():
        theirs = _transformers_name(name)
        if packed := re.fullmatch(r"(.*\.)in_proj_(weight|bias)", theirs):
            for part, rows in zip("qkv", np.split(array, 3), strict=True):
                renamed[f"{packed[1]}{part}_proj.{packed[2]}"] = rows
        else:
            renamed[theirs] = array
    return renamed


def _transformers_name(facebook: str) -> str:
    """`transformer.encoder.layers.0.linear1.weight` is `model.encoder.layers.0.fc1.weight`."""
    name = facebook
    for beginning, other in FACEBOOK:
        name = re.sub(f"^{beginning}", other, name)
    if norm := re.fullmatch(r"(model\.(\w+)\.layers\.\d+\.)norm(\d)(\..*)", name):
        name = f"{norm[1]}{NORMS[norm[2]][int(norm[3]) - 1]}{norm[4]}"
    return name


def _module(ours: str) -> str:
    """`encoder1/attention/query` is `model.encoder.layers.0.self_attn.q_proj`."""
    if ours in OUTSIDE:
        return OUTSIDE[ours]
    inside = re.fullmatch(r"(encoder|decoder)(\d+)/(?:norm(\d)|(.+))", ours)
    if inside is None:
        raise ValueError(f"transformers' DETR has no counterpart of {ours!r}")
    side, number, norm, layer = inside.groups()
    name = NORMS[side][int(norm) - 1] if norm else ".".join(INSIDE[part] for part in layer.split("/"))
    return f"model.{side}.layers.{int(number) - 1}.{name}"


def _mask_module(ours: str) -> str:
    """`mask_head/conv2` is `mask_head.lay2`, and `attention/key` is `bbox_attention.k_linear`."""
    part, _, layer = ours.partition("/")
    if part == "attention":
        return f"bbox_attention.{layer[0]}_linear"
    numbered = re.fullmatch(r"([a-z]+)(\d+)", layer)
    return f"mask_head.{MASKS[numbered[1]]}{numbered[2]}" if numbered else "mask_head.out_lay"

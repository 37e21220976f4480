"""torchvision's detectors for ours, from a `state_dict` of NumPy arrays: torch itself is not needed."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from jaxvision.pretrained import coco
from jaxvision.pretrained.strict import Path, Source, Sources, Turn
from jaxvision.pretrained.torch_layout import (
    dense_kernel_after_flatten,
    module_sources,
    transposed_kernel,
    unchanged,
)
from jaxvision.pretrained.torchvision import resnet_sources, vgg_sources
from jaxvision.types import Variables

VGG16_CONVOLUTIONS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (1, 3, 5)}
"""Places of the convolutions of each stage in torchvision's `features`, and of the last stage in its `extra.0`."""


def ssd_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.ssd.SSD` on VGG16: for every array its name in torchvision and how its axes turn into ours."""
    scale = ("params", "features", "norm4", "scale")
    params = {**variables["params"], "features": {**variables["params"]["features"]}}
    del params["features"]["norm4"]
    found = module_sources({**variables, "params": params}, _ssd_module)
    return {**found, scale: Source("backbone.scale_weight", unchanged)}


def ssd_backbone_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of the VGG16 within such a network from torchvision's VGG16: `features.21`; nothing for the rest."""
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


def faster_rcnn_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.faster_rcnn.faster_rcnn_fpn` from torchvision's `FasterRCNN` on a ResNet.

    The distributed `fasterrcnn_resnet50_fpn` has 90 classes, labels being COCO's ids less 1 (`coco.BY_ID`); its batch
    normalisation has no epsilon, `norm=partial(FrozenBatchNorm, epsilon=0.0)`; its file has older names: `as_distributed`.
    """
    return _on_pyramid(variables, _faster_rcnn_module, _flattened(variables))


def mask_rcnn_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.mask_rcnn.with_mask_head` from torchvision's `MaskRCNN` on a ResNet.

    For the distributed `maskrcnn_resnet50_fpn` holds what `faster_rcnn_sources` says of the other; its masks are those of
    `mask_rcnn(..., geometry="torchvision")`.
    """
    return _on_pyramid(variables, _mask_rcnn_module, {**_flattened(variables), "mask_head/up": transposed_kernel})


def retinanet_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of a `tasks.retinanet.retinanet_fpn` from torchvision's `RetinaNet` on a ResNet.

    The distributed `retinanet_resnet50_fpn` has 91 classes, labels being COCO's ids, of which there is no 0; the rest is as
    for `faster_rcnn_sources`.
    """
    return _on_pyramid(variables, _retinanet_module)


def fpn_backbone_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of the ResNet within such a network from torchvision's ResNet: `layer1.0.conv1`; nothing for the rest."""
    backbone = {
        collection: {"backbone": tree["features"]["backbone"]}
        for collection, tree in variables.items()
        if "features" in tree
    }
    return {(path[0], "features", *path[1:]): source for path, source in resnet_sources(backbone).items()}


def as_distributed(sources: Sources) -> Sources:
    """The name map for the files that torchvision distributes, which are older than the names of its modules.

    `fasterrcnn_resnet50_fpn_coco-258fb6c6.pth`, `maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth` and
    `retinanet_resnet50_fpn_coco-eeacb38b.pth`.
    """
    return lambda variables: {
        path: source._replace(name=_before_modules(source.name)) for path, source in sources(variables).items()
    }


def coco_sources(sources: Sources) -> Sources:
    """The name map for a network of COCO's 80 classes: those of the 91 of the distributed weights.

    `sources` is that of a Faster R-CNN, a Mask R-CNN or a RetinaNet.
    """
    by_region, by_anchor = (0, *coco.IDS), coco.IDS
    each = {
        ("box_head", "logits"): (by_region, 1),
        ("box_head", "offsets"): (by_region, 4),
        ("mask_head", "logits"): (by_region, 1),
        ("class_tower", "predict"): (by_anchor, 1),
    }

    def found(variables: Variables) -> dict[Path, Source]:
        return {
            path: source if path[1:3] not in each else _picked(source, *each[path[1:3]])  # type: ignore[index]
            for path, source in sources(variables).items()
        }

    return found


def _picked(source: Source, rows: tuple[int, ...], numbers: int) -> Source:
    """Source of the classes `rows` of the 91 in the last axis, each with `numbers` numbers."""

    def convert(array: np.ndarray) -> np.ndarray:
        whole = source.convert(array)
        by_class = whole.reshape(*whole.shape[:-1], -1, 91, numbers)
        return by_class[..., list(rows), :].reshape(*whole.shape[:-1], -1)

    return source._replace(convert=convert)


def _before_modules(name: str) -> str:
    """`fpn.inner_blocks.0.0.weight` was `fpn.inner_blocks.0.weight`, and a tower's `conv.1.0.weight` `conv.2.weight`."""
    name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    name = re.sub(r"(mask_head)\.(\d)\.0\.", lambda found: f"{found[1]}.mask_fcn{int(found[2]) + 1}.", name)
    return re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}.", name)


def _on_pyramid(
    variables: Variables, module: Callable[[str], str], kernels: Mapping[str, Turn] = {}
) -> dict[Path, Source]:
    """The names of a detector on a ResNet and a pyramid, given those of the modules but the backbone."""
    params = {**variables["params"], "features": {**variables["params"]["features"]}}
    del params["features"]["backbone"]
    backbone = fpn_backbone_sources(variables).items()
    inside = {path: source._replace(name=f"backbone.body.{source.name}") for path, source in backbone}
    return {**inside, **module_sources({"params": params}, module, kernels)}


def _faster_rcnn_module(ours: str) -> str:
    """`box_head/dense2` is `roi_heads.box_head.fc7`."""
    heads = {
        "region_head/conv": "rpn.head.conv.0.0",
        "region_head/logits": "rpn.head.cls_logits",
        "region_head/offsets": "rpn.head.bbox_pred",
        "box_head/dense1": "roi_heads.box_head.fc6",
        "box_head/dense2": "roi_heads.box_head.fc7",
        "box_head/logits": "roi_heads.box_predictor.cls_score",
        "box_head/offsets": "roi_heads.box_predictor.bbox_pred",
    }
    return heads.get(ours) or _fpn_module(ours)


def _flattened(variables: Variables) -> dict[str, Turn]:
    """Turn of the first dense layer's kernel."""
    head = variables["params"]["box_head"]["dense1"]["kernel"].shape[0]
    channels = variables["params"]["region_head"]["conv"]["kernel"].shape[2]
    side = round((head / channels) ** 0.5)
    return {"box_head/dense1": dense_kernel_after_flatten(channels, side, side)}


def _mask_rcnn_module(ours: str) -> str:
    """`mask_head/conv2` is `roi_heads.mask_head.1.0`."""
    if conv := re.fullmatch(r"mask_head/conv(\d)", ours):
        return f"roi_heads.mask_head.{int(conv[1]) - 1}.0"
    last = {"mask_head/up": "conv5_mask", "mask_head/logits": "mask_fcn_logits"}
    return f"roi_heads.mask_predictor.{last[ours]}" if ours in last else _faster_rcnn_module(ours)


def _retinanet_module(ours: str) -> str:
    """`class_tower/conv2` is `head.classification_head.conv.1.0`."""
    tower = re.fullmatch(r"(class|box)_tower/(?:conv(\d)|predict)", ours)
    if tower is None:
        return _fpn_module(ours)
    head, last = {"class": ("classification", "cls_logits"), "box": ("regression", "bbox_reg")}[tower[1]]
    return f"head.{head}_head.{f'conv.{int(tower[2]) - 1}.0' if tower[2] else last}"


def _fpn_module(ours: str) -> str:
    """`features/lateral1` is `backbone.fpn.inner_blocks.0.0`, `features/top/p6` is `backbone.fpn.extra_blocks.p6`."""
    if layer := re.fullmatch(r"features/(lateral|output)(\d)", ours):
        blocks = {"lateral": "inner_blocks", "output": "layer_blocks"}[layer[1]]
        return f"backbone.fpn.{blocks}.{int(layer[2]) - 1}.0"
    if top := re.fullmatch(r"features/top/(p\d)", ours):
        return f"backbone.fpn.extra_blocks.{top[1]}"
    raise ValueError(f"torchvision's detectors on a pyramid have no counterpart of {ours!r}")

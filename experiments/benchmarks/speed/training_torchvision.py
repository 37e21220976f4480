"""Sides of torchvision's detectors in the benchmarks `training` and `training_gpu`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet, ssd300_vgg16
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from experiments.benchmarks.speed import scenes
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.torch_step import load, on_device, sgd, work

Given = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]


def step(network: str, batch: int, size: Sequence[int], dtype: str = "float32", compiled=False, **options: Any) -> Work:
    """Training steps of a detector; compiled is its backbone, the part without shapes that change."""
    model: Any = load(NETWORKS[network](size, **options))
    images, targets = given(batch, size, network)
    if compiled:
        model.backbone = torch.compile(model.backbone, dynamic=False)
    loss = lambda: torch.stack(list(model(images, targets).values())).sum()
    compared = (lambda: of_both_stages(model, images, targets)) if network in ("faster_rcnn", "mask_rcnn") else None
    return work(model, loss, sgd(model.parameters(), 1e-4), dtype, 0.1, compared)


def given(batch: int, size: Sequence[int], network: str) -> Given:
    """Images, 0 to 1, and their objects; labels count from 1 where 0 is the background."""
    scene = scenes.scene(batch, size)
    images = [on_device(image.transpose(2, 0, 1)).float() / 255 for image in scene.images]
    labels = scene.labels.astype(np.int64) + (network != "retinanet")
    targets = [
        {"boxes": on_device(boxes), "labels": on_device(numbers)}
        for boxes, numbers in zip(scene.boxes, labels, strict=True)
    ]
    if network == "mask_rcnn":
        for target, masks in zip(targets, scene.masks, strict=True):
            target["masks"] = on_device(masks.astype(np.uint8))
    return images, targets


def of_both_stages(
    model: Any, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]
) -> list[torch.Tensor]:
    """What `training_ours.of_both_stages` has."""
    batch, _ = model.transform(images)
    maps, boxes = model.backbone(batch.tensors), [target["boxes"] for target in targets]
    heads = model.roi_heads
    found = [maps["0"], torch.cat([each.flatten() for each in model.rpn.head(list(maps.values()))[0]])]
    found.append(heads.box_predictor(heads.box_head(heads.box_roi_pool(maps, boxes, batch.image_sizes)))[0])
    if heads.has_mask():
        found.append(heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(maps, boxes, batch.image_sizes))))
    return [each.float().abs().mean() for each in found]


def ssd300(size: Sequence[int]) -> Any:
    """SSD300 on VGG16."""
    parts = {"weights": None, "weights_backbone": None, "trainable_backbone_layers": 5}
    return ssd300_vgg16(num_classes=scenes.CLASSES + 1, **parts)


def sides(size: Sequence[int]) -> dict[str, int]:
    """Sizes by which images are left as they are."""
    return {"min_size": min(size), "max_size": max(size)}


def retinanet(size: Sequence[int], backbone: str = "resnet50") -> Any:
    """RetinaNet on a pyramid."""
    top = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    return RetinaNet(pyramid(backbone, **top), scenes.CLASSES, **sides(size))


def faster_rcnn(size: Sequence[int], backbone: str = "resnet50") -> Any:
    """Faster R-CNN on a pyramid."""
    return FasterRCNN(pyramid(backbone), scenes.CLASSES + 1, **sides(size))


def mask_rcnn(size: Sequence[int], backbone: str = "resnet50") -> Any:
    """Mask R-CNN on a pyramid."""
    return MaskRCNN(pyramid(backbone), scenes.CLASSES + 1, **sides(size))


def pyramid(backbone: str, **options: Any) -> torch.nn.Module:
    """A ResNet with frozen normalisation and its pyramid."""
    return resnet_fpn_backbone(backbone_name=backbone, weights=None, trainable_layers=5, **options)


NETWORKS: Mapping[str, Callable[..., Any]] = {
    **{"ssd300": ssd300, "retinanet": retinanet, "faster_rcnn": faster_rcnn, "mask_rcnn": mask_rcnn},
}

"""Every experiment file, with each network that it can have, and how the tests build one."""

from pathlib import Path
from typing import NamedTuple

import pytest

from jaxvision.data import samples
from jaxvision.run import devices
from jaxvision.run.config import as_json, configure, load

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.py")) + sorted((ROOT / "experiments" / "finetune").glob("*.py"))
MASKED = ("detr_segmentation", "yolact")
"""Detectors of `shapes.py` that find masks."""
VARIANTS = {
    "shapes": ("detector", ("ssd", "yolo", "yolox", "retinanet", "faster_rcnn", "fast_rcnn", "rcnn", "detr", *MASKED)),
    "detect": ("detector", ("ssd", "yolo", "yolox", "faster_rcnn", "retinanet", "detr")),
    "torchvision_folder": ("network", ("resnet50", "vgg16", "inception_v3")),
    "efficientnet_lite0": ("data", ("fashion", "trees")),
}
"""Files that hold several experiments: the field that chooses one, and its values."""

SAME = {
    *("cifar100_resnet18", "fashion_mnist_resnet18", "optimizers", "imbalanced_fashion_mnist", "folder", "folder_cnn"),
    "augmix",
    *("torchvision_folder_resnet50", "torchvision_folder_vgg16", "torchvision_folder_inception_v3"),
    *("efficientnet_lite0_fashion", "efficientnet_lite0_trees", "detect_yolo", "detect_yolox", "detect_faster_rcnn"),
    *("detect_retinanet", "detect_detr", "voc_ssd300", "trees_ssd", "trees_yolo", "coco_detr", "coco_yolox"),
    *("coco_retinanet", "coco_faster_rcnn", "voc_fast_rcnn", "voc_rcnn", "coco_yolov3", "imagenet_efficientnet_lite0"),
    *("coco_yolact", "coco_detr_panoptic", "nuclei_yolact", "coco_mask_rcnn", "nuclei_mask_rcnn", "voc_fcn"),
    *("segment", "pets_unet"),
}
"""But for the classes, the canvas or the depth of the backbone, the same step as another file's."""


class Chosen(NamedTuple):
    """An experiment file, and the fields that choose one of its experiments."""

    path: Path
    stem: str
    """The name of the file, with that of the experiment if it holds several."""
    fields: dict[str, str]


def chosen_in(path):
    field, values = VARIANTS.get(path.stem, ("", ()))
    return [Chosen(path, f"{path.stem}_{value}", {field: value}) for value in values] or [Chosen(path, path.stem, {})]


EXPERIMENTS = [each for path in FILES for each in chosen_in(path)]


def files(slow=()):
    return [pytest.param(each, id=each.stem, marks=[pytest.mark.slow] * (each.stem in slow)) for each in EXPERIMENTS]


def configured(chosen, overrides, folder):
    """The module of an experiment and its config; `folder` holds a folder of images for each class."""
    module = load(chosen.path)
    config = module.get_config()
    overrides = {**chosen.fields, **overrides}
    if "train_dir" in config:
        overrides["train_dir"] = str(folder)
    if "train" in config:
        bundled = samples.nuclei_dir() if chosen.stem == "segment" else samples.trees_dir()
        overrides["train"] = str(bundled / "train.json")
    config = configure(config, overrides)
    devices.resolve_precision(config)
    assert as_json(config)
    return module, config


def build(chosen, overrides, folder):
    """The experiment; arguments are those of `configured`.

    Pretrained weights are downloaded by its `start`, which no test of every file calls.
    """
    module, config = configured(chosen, overrides, folder)
    return module.build(config)

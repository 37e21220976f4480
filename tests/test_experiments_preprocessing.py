"""An experiment that starts from trained weights shows images as they were shown to those."""

import inspect

import numpy as np
import pytest
from data_encoding import smooth
from experiment_files import EXPERIMENTS, build, configured

from jaxvision.data.decode import decode
from jaxvision.pretrained import preprocessing

PREPARED = {
    "coco_yolov3": preprocessing.DARKNET,
    "coco_yolox": preprocessing.YOLOX,
    "coco_ssd300": preprocessing.TENSORFLOW_SSD,
    "voc_ssd300": preprocessing.TENSORFLOW_SSD,
    "detect_ssd": preprocessing.TENSORFLOW_SSD,
    "detect_yolo": preprocessing.DARKNET,
    "detect_faster_rcnn": preprocessing.TENSORFLOW_SSD,
    "trees_ssd": preprocessing.TENSORFLOW_SSD,
    "trees_yolo": preprocessing.DARKNET,
    "trees_faster_rcnn": preprocessing.TENSORFLOW_SSD,
    "torchvision_folder_resnet50": preprocessing.TORCHVISION,
    "torchvision_folder_vgg16": preprocessing.TORCHVISION,
    "torchvision_folder_inception_v3": preprocessing.INCEPTION,
}
PIXELS = smooth(300, 420)


@pytest.mark.parametrize("stem", PREPARED)
def test_evaluation_shows_images_as_the_weights_saw_them(stem, folder_of_classes):
    (chosen,) = (each for each in EXPERIMENTS if each.stem == stem)
    experiment = build(chosen, {}, folder_of_classes)
    (evaluation,) = experiment.evaluations.values()
    side = evaluation.stream.spec.image.shape[1]
    expected = decode(PIXELS, PREPARED[stem].placer(side)).canvas
    streams = [evaluation.stream] if experiment.train.decode is None else [evaluation.stream, experiment.train]
    for stream in streams:
        found = stream.decode(PIXELS)
        np.testing.assert_array_equal(found.image, expected.image)
        assert (found.size, found.window) == (expected.size, expected.window)


def test_efficientnet_lite0_is_shown_bicubic_images(folder_of_classes):
    (chosen,) = (each for each in EXPERIMENTS if each.stem == "efficientnet_lite0_fashion")
    (evaluation,) = build(chosen, {}, folder_of_classes).evaluations.values()
    stretched = preprocessing.EFFICIENTNET_LITE._replace(fit=preprocessing.TENSORFLOW_SSD.fit).placer(64)
    np.testing.assert_array_equal(evaluation.stream.decode(PIXELS).image, decode(PIXELS, stretched).image)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation, of pixels from 0 to 1, of torchvision's classifiers."""
CAFFE = ((123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3)
"""Those of torchvision's `VGG16_Weights.IMAGENET1K_FEATURES`, which has no finite dense layers."""
SCALES = {
    "voc_fast_rcnn": ("fast_rcnn", "vgg16-397923af.pth", IMAGENET),
    "voc_rcnn": ("rcnn", "voc_fast_rcnn.py", IMAGENET),
    "coco_ssd300": ("ssd", "VGG16_Weights.IMAGENET1K_FEATURES", CAFFE),
    "voc_ssd300": ("ssd", "coco_ssd300.py", CAFFE),
    "coco_retinanet": ("retinanet", "ResNet-50's ImageNet weights in torchvision's form", IMAGENET),
    "coco_faster_rcnn": ("faster_rcnn", "ResNet-50's ImageNet weights in torchvision's form", IMAGENET),
    "coco_detr": ("detr", "ResNet-50's ImageNet weights in torchvision's form", IMAGENET),
    "coco_detr_panoptic": ("detr_segmentation", "ResNet-50's ImageNet weights in torchvision's form", IMAGENET),
}
"""The task of a recipe, the file of weights that its docstring names or where it is named, and their scale."""


@pytest.mark.parametrize("stem", SCALES)
def test_pixels_are_scaled_as_for_the_weights_that_a_recipe_names(stem, folder_of_classes, monkeypatch):
    (chosen,) = (each for each in EXPERIMENTS if each.stem == stem)
    name, weights, (mean, std) = SCALES[stem]
    module, config = configured(chosen, {}, folder_of_classes)
    signature, given = inspect.signature(getattr(module, name)), {}

    def recorded(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        given.update(bound.arguments)

    monkeypatch.setattr(module, name, recorded)
    module.build(config)
    assert weights in " ".join(module.__doc__.split())
    np.testing.assert_allclose(np.broadcast_to(given["mean"], 3), 255 * np.array(mean), rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(given["std"], 3), 255 * np.array(std), rtol=1e-6)

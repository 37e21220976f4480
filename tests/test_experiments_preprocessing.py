"""An experiment that starts from trained weights shows images as they were shown to those."""

import numpy as np
import pytest
from data_encoding import smooth
from experiment_files import EXPERIMENTS, build

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

"""Preprocessing: what becomes of an image before a network sees it, as one value that goes with its weights.

    prepared = EFFICIENTNET_LITE0.preprocessing
    stream = streams.evaluation(open, placer=prepared.placer(), batch_size=32)
    task = classification(network, mean=prepared.mean, std=prepared.std)

What a network was trained with is what it is shown, in training that goes on from its weights, in evaluation and in
prediction. Networks are given RGB always: for weights that were trained on BGR the loader turns the first kernel.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxvision.data import placement
from jaxvision.data.interpolation import OPENCV_BILINEAR, PIL_BICUBIC, PIL_BILINEAR, Resampling
from jaxvision.data.placement import Placer
from jaxvision.ops.pixels import IMAGENET_MEAN, IMAGENET_STD

Channels = tuple[float, float, float]


class Preprocessing(NamedTuple):
    """Preprocessing from an image file to what a network was trained on, `(pixels - mean) / std`."""

    mean: Channels
    """Mean of red, green and blue, on the scale 0-255."""
    std: Channels
    size: int
    """Side of the square canvas, in pixels."""
    interpolation: Resampling
    fit: Callable[..., Placer]
    """`(size, interpolation=...) -> Placer`: how an image comes to a square canvas of this side, with which padding."""

    def placer(self, size: int | None = None) -> Placer:
        """The placer of evaluation and prediction, on a canvas of this side; None for that of the weights."""
        return self.fit(size or self.size, interpolation=self.interpolation)


def centre_crop(resize: int, size: int) -> Callable[..., Placer]:
    """The square of side `size` from the centre, after the short side was resized to `resize`; others in proportion."""

    def fit(side: int, interpolation: Resampling = PIL_BILINEAR) -> Placer:
        return placement.resize_and_centre_crop(side * resize // size, side, interpolation=interpolation)

    return fit


HALF, ZERO, ONE = (127.5, 127.5, 127.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

TORCHVISION = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, 224, PIL_BILINEAR, centre_crop(256, 224))
"""torchvision's first weights of VGG, ResNet, SqueezeNet, MobileNetV2, GoogLeNet, ResNeXt and Wide ResNet."""
TORCHVISION_V2 = TORCHVISION._replace(fit=centre_crop(232, 224))
"""torchvision's second weights ("IMAGENET1K_V2") of the same networks."""
INCEPTION = Preprocessing(HALF, HALF, 299, PIL_BILINEAR, centre_crop(342, 299))
"""Inception v3, both torchvision's (which takes the ImageNet mean and turns it into this one) and Keras'."""
EFFICIENTNET_LITE = Preprocessing((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 224, PIL_BICUBIC, centre_crop(256, 224))
"""EfficientNet-Lite0 of the original code, and what was converted from it."""
TIMM_VIT = Preprocessing(HALF, HALF, 224, PIL_BICUBIC, centre_crop(248, 224))
"""timm's ViT ("augreg") at 224 pixels."""
CAFFE = Preprocessing((123.68, 116.779, 103.939), ONE, 224, PIL_BILINEAR, centre_crop(256, 224))
"""Keras' VGG and ResNet, which were trained on BGR, as Caffe's were."""
CAFFE_227 = CAFFE._replace(size=227, fit=centre_crop(256, 227))
"""Caffe's own networks at 227 pixels, such as SqueezeNet."""
DARKNET = Preprocessing(
    ZERO, (255.0, 255.0, 255.0), 416, OPENCV_BILINEAR, partial(placement.letterbox, fill=127, centred=True)
)
"""Darknet's YOLO: the image in the middle, grey above and below it, or beside it."""
TENSORFLOW_SSD = Preprocessing(HALF, HALF, 300, OPENCV_BILINEAR, placement.stretch)
"""SSDs of TensorFlow's model zoo, which resizes without antialias."""
U2NET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, 320, PIL_BILINEAR, placement.stretch)
"""U^2-Net. That an image is divided by its largest value first is the task's part."""
YOLOX = Preprocessing(ZERO, ONE, 640, OPENCV_BILINEAR, partial(placement.letterbox, truncated=True))
"""YOLOX: the image in the top-left corner. The grey below it, or beside it, is the task's, which mosaics so leave out."""

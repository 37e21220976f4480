"""Preprocessing of the images that published networks were trained on.

`mean` and `std` are the arguments of a task, `size` and `resize` those of `placement.resize_and_centre_crop`. Networks are
given RGB always: for weights that were trained on BGR the loader turns the first kernel.
"""

from typing import Literal, NamedTuple

Channels = tuple[float, float, float]


class Preprocessing(NamedTuple):
    """Preprocessing from an image file to what a network was trained on, `(pixels - mean) / std`."""

    mean: Channels
    """Mean of red, green and blue, on the scale 0-255."""
    std: Channels
    size: int
    """Side of the square that is cut from the centre."""
    resize: int
    """The short side of the image before that."""
    interpolation: Literal["bilinear", "bicubic"]


TORCHVISION = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 224, 256, "bilinear")
"""torchvision's first weights of VGG, ResNet, SqueezeNet, MobileNetV2, GoogLeNet, ResNeXt and Wide ResNet."""
TORCHVISION_V2 = TORCHVISION._replace(resize=232)
"""torchvision's second weights ("IMAGENET1K_V2") of the same networks."""
INCEPTION = Preprocessing((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), 299, 342, "bilinear")
"""Inception v3, both torchvision's (which takes the ImageNet mean and turns it into this one) and Keras'."""
EFFICIENTNET_LITE = Preprocessing((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 224, 256, "bicubic")
"""EfficientNet-Lite0 of the original code, and what was converted from it."""
TIMM_VIT = Preprocessing((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), 224, 248, "bicubic")
"""timm's ViT ("augreg") at 224 pixels."""
CAFFE = Preprocessing((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), 224, 256, "bilinear")
"""Keras' VGG and ResNet, which were trained on BGR, as Caffe's were."""

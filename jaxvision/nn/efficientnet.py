"""EfficientNet-Lite0: EfficientNet-B0 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6.

It is a `MobileNet` with another table of stages, and takes its names.
"""

from typing import Any

from jaxvision.nn.mobilenet import Backbone, MobileNet, Stage, tensorflow_norm
from jaxvision.nn.norm import Norm

EFFICIENTNET_LITE0 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


def efficientnet_lite0(classes: int | None = 1000, **options: Any) -> MobileNet:
    """EfficientNet-Lite0 as timm's `efficientnet_lite0`: symmetric padding, epsilon 1e-5.

    `options` are those of `mobilenet.Backbone`: stages (by default the published ones), padding, dtype, norm,
    stochastic_depth.
    """
    return MobileNet(Backbone(options.pop("stages", EFFICIENTNET_LITE0), **options), classes)


def tf_efficientnet_lite0(classes: int | None = 1000, *, norm: Norm = tensorflow_norm, **options: Any) -> MobileNet:
    """EfficientNet-Lite0 as TensorFlow's, timm's `tf_efficientnet_lite0`: "same" padding, epsilon 1e-3.

    Its weights were trained on pixels (x - 127) / 128. `options` as for `efficientnet_lite0`, but padding.
    """
    return efficientnet_lite0(classes, padding="same", norm=norm, **options)

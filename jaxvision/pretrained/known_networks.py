"""Which network arrays are those of, told from the kernels of its convolutions; for messages only."""

import math
from collections.abc import Iterable
from typing import Any

KNOWN = {
    (20, 11_166_912): "ResNet-18",
    (36, 21_267_648): "ResNet-34",
    (53, 23_454_912): "ResNet-50",
    (104, 42_394_816): "ResNet-101",
    (155, 57_992_384): "ResNet-152",
    (53, 22_911_680): "ResNeXt-50 32x4d",
    (104, 86_539_456): "ResNeXt-101 32x8d",
    (104, 81_203_392): "ResNeXt-101 64x4d",
    (53, 66_766_016): "Wide ResNet-50-2",
    (104, 124_699_840): "Wide ResNet-101-2",
    (8, 9_217_728): "VGG11",
    (10, 9_402_048): "VGG13",
    (13, 14_710_464): "VGG16",
    (16, 20_018_880): "VGG19",
    (52, 2_189_760): "MobileNetV2",
    (22, 1_877_472): "ConvNeXt-T",
    (40, 2_216_160): "ConvNeXt-S",
    (40, 3_643_008): "ConvNeXt-B",
    (1, 147_456): "ViT-Ti/16",
    (1, 294_912): "ViT-S/16",
    (1, 589_824): "ViT-B/16",
    (1, 786_432): "ViT-L/16",
}
"""Networks by the count of their convolutions and the count of numbers in all their kernels, the same in any library.

Those alone whose heads are dense layers, which other classes change.
"""


def known(arrays: Iterable[Any]) -> str | None:
    """The name of the network that these arrays, or shapes, could be those of."""
    kernels = [math.prod(array.shape) for array in arrays if len(array.shape) == 4]
    return KNOWN.get((len(kernels), sum(kernels)))

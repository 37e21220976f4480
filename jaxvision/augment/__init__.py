"""Augmentation on the device: pure (key, step, batch) -> batch.

What the room shares: `key` is already that of the training step, `step` is there only for what changes as training goes
on. An example draws from (key, its row in the batch), so that its neighbours do not change what happens to it. Pixels
stay 0-255 and of the type they came in, unless an augmentation says otherwise. What lies outside `batch.size` is nobody's
content: it stays what it is. Everything that shows the image (boxes, masks, maps) moves with it.
"""

from jaxvision.augment.colour import (
    autocontrast,
    blur,
    brightness,
    contrast,
    equalize,
    gamma,
    greyscale,
    hue,
    jpeg,
    noise,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from jaxvision.augment.compose import chain, choose, identity, sometimes
from jaxvision.augment.geometry import flip, pad_and_crop, vertical_flip
from jaxvision.augment.mix import cutmix, mixup, random_erasing
from jaxvision.augment.policy import augmix, randaugment, trivialaugment
from jaxvision.augment.warp import affine, perspective, resized_crop

__all__ = [
    "affine",
    "augmix",
    "autocontrast",
    "blur",
    "brightness",
    "chain",
    "choose",
    "contrast",
    "cutmix",
    "equalize",
    "flip",
    "gamma",
    "greyscale",
    "hue",
    "identity",
    "jpeg",
    "mixup",
    "noise",
    "pad_and_crop",
    "perspective",
    "posterize",
    "randaugment",
    "random_erasing",
    "resized_crop",
    "saturation",
    "sharpness",
    "solarize",
    "sometimes",
    "trivialaugment",
    "vertical_flip",
]

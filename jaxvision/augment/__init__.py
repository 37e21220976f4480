"""Augmentation on the device: pure (key, step, batch) -> batch.

Conventions of the room: `key` is already that of the training step; `step` serves only what changes in the course of
training. The random numbers of an example come from (key, its row in the batch), so that its neighbours do not change what
happens to it. Pixels stay 0-255 and keep their dtype, unless an augmentation says otherwise. The canvas outside
`batch.size` is padding and stays as it is. Everything that shows the image (boxes, masks, maps) moves with it: masks in any
form of `types.Masks`, but that those cut out at their boxes can't be turned, sheared or bent.

For detection: `iou_crop`, `expand`, `scale_jitter`, `mosaic` and `mixup_objects`. The last two put images together and need
Objects; `mixup`, `cutmix` and `augmix` mix image-level targets and need Labels. SSD's augmentation is
`chain(sometimes(0.5, expand()), iou_crop(), flip())`; `chain(scale_jitter((0.5, 1.5)), mosaic(close=step))` is a mosaic with
closing epochs. Give `Objects` rows for all images that are put together: of more objects the largest stay. One's own:

def darker(key, step, batch):
    factor = jax.random.uniform(key, (batch.image.shape[0], 1, 1, 1), minval=0.5)
    return batch.replace(image=batch.image * factor)
"""

from jaxvision.augment.autoaugment import autoaugment
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
    offset,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from jaxvision.augment.compose import chain, choose, identity, sometimes
from jaxvision.augment.crop import iou_crop
from jaxvision.augment.geometry import flip, pad_and_crop, vertical_flip
from jaxvision.augment.mix import cutmix, mixup, random_erasing
from jaxvision.augment.mix_objects import mixup_objects
from jaxvision.augment.mosaic import mosaic
from jaxvision.augment.policy import augmix, randaugment, randaugment_timm, trivialaugment
from jaxvision.augment.rescale import expand, scale_jitter
from jaxvision.augment.warp import affine, perspective, resized_crop

__all__ = [
    "affine",
    "augmix",
    "autoaugment",
    "autocontrast",
    "blur",
    "brightness",
    "chain",
    "choose",
    "contrast",
    "cutmix",
    "equalize",
    "expand",
    "flip",
    "gamma",
    "greyscale",
    "hue",
    "identity",
    "iou_crop",
    "jpeg",
    "mixup",
    "mixup_objects",
    "mosaic",
    "noise",
    "offset",
    "pad_and_crop",
    "perspective",
    "posterize",
    "randaugment",
    "randaugment_timm",
    "random_erasing",
    "resized_crop",
    "saturation",
    "scale_jitter",
    "sharpness",
    "solarize",
    "sometimes",
    "trivialaugment",
    "vertical_flip",
]

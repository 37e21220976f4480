"""Corruptions of ImageNet-C and CIFAR-10-C (arXiv:1903.12261): 15 common ones, and 4 held out.

Equal to imagecorruptions-imaug 1.1.5, which is for detection too, and to the published code of CIFAR-10-C (make_cifar_c.py
with ImageMagick 6.9.11), within 1 grey level where the random numbers are the same.
So no corruption moves what it shows, but for the waves of CIFAR-10-C (`elastic_transform`), which begin with a tilt of some
pixels: targets stay where they were. What moves them along is `elastic`, of `DEFORMATIONS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxvision.data.randomness import Purpose, philox
from jaxvision.errors import ConfigError, DataError, nearest
from jaxvision.trust import (
    corruption_blur,
    corruption_digital,
    corruption_noise,
    corruption_occlusion,
    corruption_weather,
)
from jaxvision.trust.corruption import Constants, Corruption, Pixels
from jaxvision.trust.frost import frost

FROST = "frost"
COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", FROST, "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
HELD_OUT = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
NAMES = (*COMMON, *HELD_OUT)
OBJECTS, ELASTIC = "object_occlusion", "elastic"
PLAIN_OCCLUSIONS, MATRICES = ("square_occlusion", "stripe_occlusion"), ("rotation", "scale", "shear", "perspective")
OCCLUSIONS = (*PLAIN_OCCLUSIONS, OBJECTS)
"""Occlusions; that by objects, which `occluded` makes, takes those of other images."""
DEFORMATIONS = (*MATRICES, ELASTIC)
"""Deformations, which `deformed` makes, since targets move along."""
EVERY = (*NAMES, *PLAIN_OCCLUSIONS, *MATRICES, OBJECTS, ELASTIC)
"""All names; the place of each is part of the key of its random numbers, so that new ones come last."""
SEVERITIES = (1, 2, 3, 4, 5)

_ROOMS = (corruption_noise, corruption_blur, corruption_weather, corruption_digital, corruption_occlusion)
_MADE: Mapping[str, Corruption] = {
    name: getattr(room, name) for room in _ROOMS for name in EVERY if hasattr(room, name)
}

Family = Literal["imagenet", "cifar"]
SMALLEST: Mapping[Family, int] = {"imagenet": 32, "cifar": 16}
"""Least side of an image, in pixels, for the constants of each."""
LARGEST_CIFAR = 63
"""Most pixels of a side for which the constants of CIFAR-10-C are taken unless others are asked for."""


class Chosen(NamedTuple):
    """One corruption at one severity."""

    name: str
    severity: int
    family: Family
    corruption: Corruption

    @property
    def constants(self) -> Constants:
        """Constants of this severity."""
        return getattr(self.corruption, self.family)[self.severity - 1]


def choose(name: str, severity: int, family: Family = "imagenet", photographs: Path | None = None) -> Chosen:
    """The corruption of this name at a severity.

    Args:
      name: one of `NAMES` or `PLAIN_OCCLUSIONS`.
      severity: 1 to 5.
      family: whose constants: `"imagenet"` of ImageNet-C, `"cifar"` of CIFAR-10-C.
      photographs: the folder with those of frost.

    Raises:
      ConfigError: for another name, severity or family, and frost without photographs.
      DataError: if the photographs of frost are not those.
    """
    check(name, severity)
    if family not in SMALLEST:
        raise ConfigError(f"the constants are those of {family!r}{nearest(family, tuple(SMALLEST))}")
    if name == FROST and photographs is None:
        raise ConfigError("frost needs a folder with its photographs (frost1.png to frost6.jpg of ImageNet-C)")
    made = frost(photographs) if name == FROST and photographs is not None else _MADE[name]
    return Chosen(name, int(severity), family, made)


def check(name: str, severity: object) -> None:
    """Raises ConfigError for a name or a severity that is none."""
    if name not in EVERY:
        raise ConfigError(f"there is no corruption {name!r}{nearest(name, EVERY, shown=len(EVERY))}")
    if severity not in SEVERITIES or isinstance(severity, bool):
        raise ConfigError(f"severity is {severity!r}; allowed are the whole numbers 1 to 5")


def family_of(height: int, width: int) -> Family:
    """The constants for images on a canvas of this size: those of CIFAR-10-C below 64 pixels."""
    return "cifar" if max(height, width) <= LARGEST_CIFAR else "imagenet"


def generator(seed: int, index: int, name: str, severity: int) -> np.random.Generator:
    """The random numbers of the example with this index."""
    return np.random.Generator(philox(seed, Purpose.CORRUPT, index, part=8 * EVERY.index(name) + severity))


def corrupt(image: Pixels, chosen: Chosen, rng: np.random.Generator) -> Pixels:
    """The image corrupted, `h w c`, uint8, of 1 or 3 channels; values are cut to whole numbers, as the published code does.

    Raises:
      DataError: for an image that is too small; one side is below `SMALLEST`.
    """
    _check_size(image, chosen)
    draws = chosen.corruption.draw(rng, image, chosen.constants)
    return applied(image, chosen, draws)


def applied(image: Pixels, chosen: Chosen, draws: object) -> Pixels:
    """The image corrupted with these random numbers, which `Corruption.draw` or another program has drawn."""
    return np.clip(chosen.corruption.apply(image, chosen.constants, draws), 0, 255).astype(np.uint8)


def _check_size(image: Pixels, chosen: Chosen) -> None:
    least = SMALLEST[chosen.family]
    height, width = image.shape[:2]
    if min(height, width) < least:
        names = {"imagenet": "ImageNet-C", "cifar": "CIFAR-10-C"}
        other = f" ({SMALLEST['cifar']} with those of CIFAR-10-C)" if chosen.family == "imagenet" else ""
        raise DataError(
            f"{chosen.name} can't corrupt an image of {height}x{width} pixels: with the constants of {names[chosen.family]} "
            f"each side must have at least {least}{other}"
        )

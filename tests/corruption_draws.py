"""Random numbers of NumPy's old generator, and pictures that tests and golden arrays of corruptions share. Not a test itself.

Imported without the package, too: by `golden/make_corruptions.py`, in the environment of the reference.
"""

from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = Path(__file__).parent.parent / "jaxvision/data/samples/photos"
NAMES = ("astronaut", "chelsea", "coffee", "grace_hopper", "rocket")
CROP = (slice(120, 200), slice(150, 246))
"""Rows and columns of the small pictures."""


class LegacyDraws:
    """What a reference draws after `numpy.random.seed(seed)`, with the methods of a `numpy.random.Generator`."""

    def __init__(self, seed: int):
        state = np.random.RandomState(seed)
        self.normal, self.uniform, self.poisson, self.integers = (
            state.normal,
            state.uniform,
            state.poisson,
            state.randint,
        )


def photo(name: str) -> np.ndarray:
    """A photograph, `h w 3`."""
    with Image.open(PHOTOS / f"{name}.jpg") as image:
        return np.asarray(image.convert("RGB"))


def shown(name: str, size: str) -> np.ndarray:
    """A photograph whole, cut, or as a picture of 32 pixels."""
    pixels = photo(name)
    if size == "whole":
        return pixels
    if size == "crop":
        return pixels[CROP]
    return np.asarray(Image.fromarray(pixels[:300, :300]).resize((32, 32), Image.Resampling.BOX))


def seed_of(name: str, severity: int) -> int:
    """A seed for each corruption and severity."""
    return sum(map(ord, name)) * 10 + severity


def places(size: str, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels that golden arrays hold, by their number."""
    return np.random.RandomState(len(size)).randint(0, shape[0] * shape[1], count)


def ice(number: int) -> np.ndarray:
    """A made photograph of ice, `h w 3`: 1 to 6; those of ImageNet-C are not ours to keep."""
    noise = np.random.RandomState(number).randint(0, 256, (12, 10 + number, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((300 + 40 * number, 280), Image.Resampling.BICUBIC))

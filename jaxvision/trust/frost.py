"""Corruption by frost: one of six photographs of ice, added to a part of the image's size.

The photographs are not ours to hand on. They are those of `ImageNet-C/create_c` in github.com/hendrycks/robustness, and also
come in the package imagecorruptions-imaug; a folder with them is given by the user, and each file is known by its checksum.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from jaxvision.errors import DataError
from jaxvision.trust.corruption import Corruption, Pixels, in_colours_of

SHA256 = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
    "frost6.jpg": "1f92b2f48408748085b68dd81d816ef239f42cef3029c25d041fcb6760fb4f25",
}


class Frost(NamedTuple):
    """Frost: the weights of image and ice, how many of the photographs take part, how they are resized."""

    image: float
    ice: float
    photographs: int
    scale: float
    """Least factor of size."""
    margin: float
    """Factor of size beyond what covers the image."""
    cubic: bool
    """Whether they are resized by cubic or by linear interpolation."""


def frost(folder: Path) -> Corruption:
    """The corruption with the photographs of a folder, which are read at once.

    Raises:
      DataError: for a photograph that is not there, or is another.
    """
    photographs = _photographs(folder.resolve())

    def size(photograph: Pixels, image: Pixels, constants: Frost) -> tuple[int, int]:
        sides = photograph.shape[:2], image.shape[:2]
        covers = max(least / side for side, least in zip(*sides, strict=True))
        factor = max(constants.scale, covers) * constants.margin
        height, width = (max(int(np.ceil(side * factor)), least + 1) for side, least in zip(*sides, strict=True))
        return height, width

    def draw(rng: np.random.Generator, image: Pixels, constants: Frost) -> tuple[int, int, int]:
        which = int(rng.integers(constants.photographs))
        height, width = size(photographs[which], image, constants)
        return which, int(rng.integers(0, height - image.shape[0])), int(rng.integers(0, width - image.shape[1]))

    def apply(image: Pixels, constants: Frost, draws: tuple[int, int, int]) -> np.ndarray:
        which, top, left = draws
        photograph = photographs[which]
        (height, width), (rows, columns) = size(photograph, image, constants), image.shape[:2]
        part = _resized(photograph, height, np.arange(top, top + rows), constants.cubic)
        part = _resized(part.swapaxes(0, 1), width, np.arange(left, left + columns), constants.cubic).swapaxes(0, 1)
        ice = np.clip(np.round(part), 0, 255)
        return np.clip(constants.image * image + constants.ice * in_colours_of(image, ice), 0, 255)

    imagenet = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    cifar = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    return Corruption(
        draw,
        apply,
        tuple(Frost(*weights, photographs=6, scale=1, margin=1.1, cubic=True) for weights in imagenet),
        tuple(Frost(*weights, photographs=5, scale=0.2, margin=1, cubic=False) for weights in cifar),
    )


@functools.cache
def _photographs(folder: Path) -> Sequence[Pixels]:
    return [_photograph(folder / name, digest) for name, digest in SHA256.items()]


def _photograph(path: Path, digest: str) -> Pixels:
    if not path.is_file():
        raise DataError(
            f"frost needs {path}; the six photographs are in ImageNet-C/create_c of github.com/hendrycks/robustness"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} is not the photograph of ImageNet-C: its SHA-256 begins with {found[:8]}, not {digest[:8]}"
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _resized(image: np.ndarray, size: int, places: Int[np.ndarray, "n"], cubic: bool) -> Float[np.ndarray, "n w c"]:
    """These rows of the image resized to a height, as OpenCV has it: without smoothing, borders repeated."""
    at = (places + 0.5) * len(image) / size - 0.5
    first = np.floor(at).astype(int)
    taps = np.arange(-1, 3) if cubic else np.arange(2)
    weights = (_cubic if cubic else _linear)((at - first)[:, None] - taps)
    rows = image[np.clip(first[:, None] + taps, 0, len(image) - 1)].astype(np.float64)
    return np.einsum("nt,nt...->n...", weights, rows)


def _linear(distance: np.ndarray) -> np.ndarray:
    return 1 - np.abs(distance)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with -0.75, as OpenCV has it."""
    a, d = -0.75, np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)

"""Photographs by a formula: JPEG files of the size of ImageNet's, in an image folder, and the crops that are cut from them.

Noise whose amplitude falls with the frequency, as that of photographs does; 500 x 375 pixels take 120 kB on average.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 375, 500
QUALITY = 90
CONTRAST, TINT = 55, 15
"""Deviation of the brightness, and of the colours around it, in grey levels."""
BLOCK = 16
"""Side of the blocks that crops are compared by, in pixels."""
CLASSES = ("first", "second")


class Crops(NamedTuple):
    """What the position of each example holds."""

    paths: list[str]
    boxes: np.ndarray
    """int64 `n 4`: x0 y0 x1 y1."""


def photograph(seed: int) -> Image.Image:
    """A photograph."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    amplitude = 1 / np.where(frequency > 0, frequency, np.inf)

    def noise() -> np.ndarray:
        field = np.fft.irfft2(amplitude * np.exp(2j * np.pi * random.random(amplitude.shape)), (HEIGHT, WIDTH))
        return (field / field.std())[..., None]

    colour = CONTRAST * noise() + TINT * (noise() * [1, -0.5, -0.5] + noise() * [-0.3, -0.3, 0.6])
    return Image.fromarray((random.uniform(80, 170, 3) + colour).clip(0, 255).astype(np.uint8))


def folder(count: int) -> Path:
    """The image folder of so many photographs, made where there is none yet."""
    root = Path(tempfile.gettempdir()) / f"jaxvision-photographs-{count}"
    if not root.is_dir():
        made = Path(tempfile.mkdtemp(dir=root.parent))
        for number in range(count):
            path = made / CLASSES[number % 2] / f"{number:05}.jpg"
            path.parent.mkdir(exist_ok=True)
            photograph(number).save(path, "JPEG", quality=QUALITY)
        os.replace(made, root)
    return root


def files(count: int) -> list[str]:
    """The files of that folder, sorted."""
    return sorted(map(str, folder(count).glob("*/*.jpg")))


def write_crops(count: int, crops: Crops) -> None:
    """Keeps the crops for the other sides."""
    np.savez(_crops(count), paths=crops.paths, boxes=crops.boxes)


def read_crops(count: int) -> Crops:
    """The crops that the first side chose."""
    with np.load(_crops(count)) as found:
        return Crops(found["paths"].tolist(), found["boxes"])


def _crops(count: int) -> Path:
    return folder(count) / "crops.npz"


def crop(path: str, box: Sequence[int], side: int) -> np.ndarray:
    """A crop, resized to a square, uint8 `side side 3`: as PIL does it."""
    left, top, right, bottom = box
    with Image.open(path) as file:
        image = file.convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def means(images: np.ndarray) -> list[float]:
    """Shape of a batch `b h w c`, and the mean of each block of each channel: what two ways to cut the same crops share.

    At the border of a crop one may read what lies beyond, another not.
    """
    count, height, width, channels = images.shape
    blocks = images[:, : height // BLOCK * BLOCK, : width // BLOCK * BLOCK].astype(float)
    blocks = blocks.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels).mean((2, 4))
    return [*map(float, images.shape), *(1 + blocks).ravel().tolist()]

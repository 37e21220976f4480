"""Scenes: images and what is in them, as NumPy arrays, the same for every side of a benchmark."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CLASSES = 80
"""Classes of detectors, as many as COCO has."""
OBJECTS = 8
"""Objects in an image."""


class Classified(NamedTuple):
    """Images with a class each."""

    images: np.ndarray
    """`b h w 3`, uint8."""
    labels: np.ndarray
    """`b`, from 0 on."""


class Mapped(NamedTuple):
    """Images with a class for each pixel."""

    images: np.ndarray
    labels: np.ndarray
    """`b h w`, from 0 on."""


class Scene(NamedTuple):
    """Images with objects."""

    images: np.ndarray
    boxes: np.ndarray
    """`b n 4`: x0 y0 x1 y1 in pixels."""
    labels: np.ndarray
    """`b n`, from 0 on."""
    masks: np.ndarray
    """`b n h w`: an ellipse in each box."""


def photographs(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Noise in squares of 8 px, so that neighbours are alike: `b h w 3`, uint8."""
    noise = random.integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), np.uint8)
    return np.repeat(np.repeat(noise, 8, 1), 8, 2)[:, :height, :width]


def classified(batch: int, size: Sequence[int], classes: int) -> Classified:
    """Images of one class each."""
    random = np.random.default_rng(0)
    return Classified(photographs(random, batch, *size), random.integers(0, classes, batch, np.int32))


def mapped(batch: int, size: Sequence[int], classes: int) -> Mapped:
    """Images with maps of classes."""
    random = np.random.default_rng(0)
    return Mapped(photographs(random, batch, *size), random.integers(0, classes, (batch, *size), np.int32))


def scene(batch: int, size: Sequence[int]) -> Scene:
    """Images with objects that are a twentieth of the sides long at least, whole pixels."""
    random, (height, width) = np.random.default_rng(0), size
    images = photographs(random, batch, height, width)
    corner = random.uniform(0, 0.55, (batch, OBJECTS, 2)) * (width, height)
    side = random.uniform(0.05, 0.4, (batch, OBJECTS, 2)) * (width, height)
    boxes = np.round(np.concatenate([corner, corner + side + 1], -1)).astype(np.float32)
    labels = random.integers(0, CLASSES, (batch, OBJECTS), np.int32)
    return Scene(images, boxes, labels, ellipses(boxes, height, width))


def ellipses(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The ellipse in each box, `b n h w`."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)[..., None, None]
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    across, along = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)
    return across**2 + along**2 <= 1

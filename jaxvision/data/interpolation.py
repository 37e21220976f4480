"""Interpolation: how images are resized, each with the meaning that it has in the library named.

A network is best shown images as it was trained on, so a placer says which. Coordinates are those of PIL, OpenCV,
and TensorFlow's `half_pixel_centers`: the centre of the first pixel is at 0.5.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxvision.formats.image_file import Size

Box = tuple[float, float, float, float]
"""`x0 y0 x1 y1` in pixels of an image, `x1 y1` exclusive."""


class Resampling(NamedTuple):
    """A way to resize a box of an image."""

    resize: Callable[[Image.Image, Size, Box], np.ndarray]
    """`(image, (height, width), box) -> pixels`, uint8 `h w` or `h w c`; reads beyond the box where the image goes on."""
    radius: int
    """Pixels of the image that count on either side of a point."""
    antialias: bool
    """Whether the radius grows with the scale when an image shrinks, so that all pixels count."""

    def reach(self, length: float, size: int) -> int:
        """Pixels read at most on either side of a box of this length that becomes `size` pixels."""
        return math.ceil(self.radius * max(1.0, length / size if self.antialias else 1.0)) + 1


def _by_pil(resample: Image.Resampling, image: Image.Image, size: Size, box: Box) -> np.ndarray:
    height, width = size
    return np.asarray(image.resize((width, height), resample, box=box))


def _by_neighbours(image: Image.Image, size: Size, box: Box) -> np.ndarray:
    """Each pixel from the four nearest to its centre, as far as they are in the image; rounded as OpenCV does."""
    pixels = np.asarray(image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    rows, down = _neighbours(box[1], box[3], size[0], pixels.shape[0])
    columns, across = _neighbours(box[0], box[2], size[1], pixels.shape[1])
    resized = np.full((*size, pixels.shape[2]), 2, np.int32)
    for row, below in zip(rows, down, strict=True):
        near = (_taken(pixels, row, column) * right[:, None] for column, right in zip(columns, across, strict=True))
        resized += (sum(near) >> 4) * below[:, None, None] >> 16
    return (resized >> 2).astype(np.uint8)


def _taken(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels where these rows and columns meet, by way of the smaller array between."""
    if len(rows) * pixels.shape[1] <= len(columns) * pixels.shape[0]:
        return pixels.take(rows, 0).take(columns, 1)
    return pixels.take(columns, 1).take(rows, 0)


def _neighbours(low: float, high: float, count: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels before and after each of `count` centres in `low..high`, and their weights in 2048ths, `2 count` each."""
    centres = (low + (np.arange(count) + 0.5) * ((high - low) / count) - 0.5).astype(np.float32).clip(0, limit - 1)
    before = centres.astype(np.int64)
    after = centres - before.astype(np.float32)
    weights = np.rint(np.stack([1 - after, after]) * 2048).astype(np.int32)
    return np.stack([before, np.minimum(before + 1, limit - 1)]), weights


PIL_BILINEAR = Resampling(partial(_by_pil, Image.Resampling.BILINEAR), radius=1, antialias=True)
"""PIL's "bilinear", which averages when it shrinks: torchvision's, too, and `tf.image.resize` with `antialias=True`."""
PIL_BICUBIC = Resampling(partial(_by_pil, Image.Resampling.BICUBIC), radius=2, antialias=True)
"""PIL's "bicubic" (a = -0.5), which averages when it shrinks."""
OPENCV_BILINEAR = Resampling(_by_neighbours, radius=1, antialias=False)
"""OpenCV's `INTER_LINEAR`, and to a grey level `tf.image.resize` with "bilinear": four pixels, however much it shrinks."""

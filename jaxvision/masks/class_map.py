"""The class of every pixel of an image file, from scores on the canvas; some rows and one class at a time."""

import numpy as np
from jaxtyping import Float, Int

from jaxvision.masks.taps import Taps, taps
from jaxvision.types import Canvas

ROWS = 64
"""Rows of the file that are made at a time: beside the map itself, memory grows with them alone."""


def class_map(logits: Float[np.ndarray, "h w k"], canvas: Canvas) -> Int[np.ndarray, "y x"]:
    """The class with the largest logit at the centre of each pixel of the image file; of equal ones the smaller number.

    Logits are resized bilinearly: their map covers the whole canvas, and beyond its outermost centres they stay the same.

    Returns:
      uint8, or uint16 for more than 256 classes, of the size of the image file.
    """
    scale, shift = canvas.to_file()
    rows, columns = (
        _taps(
            logits.shape[axis], canvas.image.shape[axis], canvas.original_size[axis], scale[1 - axis], shift[1 - axis]
        )
        for axis in (0, 1)
    )
    found = np.zeros(canvas.original_size, np.uint8 if logits.shape[-1] <= 256 else np.uint16)
    for start in range(0, len(found), ROWS):
        found[start : start + ROWS] = _best(logits, rows.of(slice(start, start + ROWS)), columns)
    return found


def _taps(cells: int, canvas: int, pixels: int, scale: float, shift: float) -> Taps:
    """The taps of the pixels of one side of the file."""
    place = ((np.arange(pixels) + 0.5 - shift) / scale) * (cells / canvas) - 0.5
    return taps(place, cells)


def _best(logits: Float[np.ndarray, "h w k"], rows: Taps, columns: Taps) -> Int[np.ndarray, "y x"]:
    """The class of each pixel of these rows."""
    kind = np.float64 if logits.dtype == np.float64 else np.float32
    down, across = rows.weight.astype(kind)[:, None], columns.weight.astype(kind)[None]
    low, high = int(rows.first.min()), int(rows.second.max()) + 1
    best, found = np.empty((0, 0), kind), np.zeros((len(rows.first), len(columns.first)), np.int32)
    for label in range(logits.shape[-1]):
        cells = logits[low:high, :, label].astype(kind)
        wide = cells[:, columns.first] * (1 - across) + cells[:, columns.second] * across
        value = wide[rows.first - low] * (1 - down) + wide[rows.second - low] * down
        if not label:
            best = value
            continue
        larger = value > best
        best[larger], found[larger] = value[larger], label
    return found

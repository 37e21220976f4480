"""Predicted masks as run lengths at the size of the image file, one object at a time, in the window of its box.

What a network gives is a small grid of values in a box, or on the canvas. Each pixel of the file is looked up at its centre,
bilinearly; it is on where the probability is above 0.5. torchvision's geometry equals torchvision's masks bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxvision.masks.runs import Runs, of_window
from jaxvision.masks.taps import Taps, taps
from jaxvision.types import BoxMasks, Canvas, MapMasks, PrototypeMasks

VALUES_AT_ONCE = 2**17
"""Pixels whose values are held at a time, as many whole columns as they make up, or one."""


FAR = 2.0**30
"""Pixels beyond which a box ends."""


Values = Callable[[Float[np.ndarray, "y x"], Taps, Taps], Float[np.ndarray, "h w"]]
"""`(grid, columns, rows) -> values` of the grid at these columns and rows, in its precision."""


def _bilinear(grid: Float[np.ndarray, "y x"], columns: Taps, rows: Taps) -> Float[np.ndarray, "h w"]:
    (left, right, along), (above, below, down) = columns, rows
    down, across = down[:, None], grid[:, left] * (1 - along) + grid[:, right] * along
    return across[above] * (1 - down) + across[below] * down


class _Window(NamedTuple):
    """Window of the file: its first pixel (x, y), the samples of a grid at its columns and rows, and how they are taken."""

    corner: tuple[int, int]
    columns: Taps
    rows: Taps
    values: Values = _bilinear


def run_lengths(
    masks: BoxMasks | PrototypeMasks | MapMasks | Sequence[Runs], rows: Sequence[int] | np.ndarray, canvas: Canvas
) -> Iterator[Runs]:
    """The masks of these rows of one image as run lengths at the size of its file.

    Args:
      masks: NumPy arrays of one image, without the axis of the batch; or run lengths of the file, which stay as they are.
      rows: which detections.
      canvas: the image as the model was shown it.
    """
    if isinstance(masks, Sequence):
        yield from (masks[int(row)] for row in rows)
        return
    of = {BoxMasks: _in_box, PrototypeMasks: _of_prototypes, MapMasks: _of_map}[type(masks)]
    for row in rows:
        grid, window, threshold = of(masks, int(row), canvas)
        yield _pasted(grid, window, threshold, canvas.original_size)


_Found = tuple[np.ndarray, _Window, float]


def _in_box(masks: BoxMasks, row: int, canvas: Canvas) -> _Found:
    """A grid with a ring of zeros: outside its box nothing is on."""
    grid = np.pad(_floats(masks.probabilities[row]), 1)
    window = {"aligned": _aligned, "torchvision": _by_torchvision}[masks.geometry]
    return grid, window(_box_in_file(masks.boxes[row], canvas), len(grid), canvas.original_size), 0.5


def _of_prototypes(masks: PrototypeMasks, row: int, canvas: Canvas) -> _Found:
    """The sigmoid of a sum of prototypes. As in YOLACT's code cells beyond the box, with a margin of one, are off before it
    is enlarged.
    """
    logits = _floats(masks.prototypes) @ _floats(masks.coefficients[row])
    cells = np.array([side / pixels for side, pixels in zip(logits.shape, masks.extent, strict=True)])[::-1]
    low, high = np.ceil(np.asarray(masks.boxes[row], np.float64).reshape(2, 2) * cells + [[-1], [1]])
    across, down = (
        (np.arange(side) >= low[axis]) & (np.arange(side) < high[axis]) for axis, side in enumerate(logits.shape[::-1])
    )
    values = np.where(down[:, None] & across[None], 0.5 + 0.5 * np.tanh(0.5 * logits), 0)
    rows, columns = canvas.size
    reached = np.clip([*((low - 0.5) / cells), *((high + 0.5) / cells)], 0, [columns, rows] * 2)
    return values, _on_canvas(_box_in_file(reached, canvas), logits.shape, masks.extent, canvas), 0.5


def _of_map(masks: MapMasks, row: int, canvas: Canvas) -> _Found:
    """Nothing is on in the file beyond what the canvas shows of it."""
    logits, (height, width) = _floats(masks.logits[row]), canvas.original_size
    shown = np.array(canvas.window or (0, 0, width, height), np.float64)
    return logits, _on_canvas(shown, logits.shape, masks.extent, canvas), 0.0


def _aligned(box: Float[np.ndarray, "4"], side: int, size: tuple[int, int]) -> _Window:
    """The pixels whose centres lie in the box; its cells have their values at their centres."""
    begin, pixels = _pixels_in(box.astype(np.float64), size)
    at = ((x + 0.5 - box[axis]) / (box[2 + axis] - box[axis]) * (side - 2) + 0.5 for axis, x in enumerate(pixels))
    columns, rows = (taps(x, side) for x in at)
    return _Window(begin, columns, rows)


def _by_torchvision(box: Float[np.ndarray, "4"], side: int, size: tuple[int, int]) -> _Window:
    """The pixels of torchvision's `paste_masks_in_image`: the box with the ring, cut to integers, and a pixel more."""
    scale = side / (side - 2)
    half, centre = (box[2:] - box[:2]) * 0.5 * scale, (box[2:] + box[:2]) * 0.5
    low, high = (x.astype(np.int64) for x in (centre - half, centre + half))
    extent = np.maximum(high - low + 1, 1)
    begin, end = np.maximum(low, 0), np.minimum(high + 1, size[::-1])
    ratio = np.asarray(side, box.dtype) / extent.astype(box.dtype)
    pixels = (np.arange(begin[axis], end[axis]) - low[axis] + 0.5 for axis in (0, 1))
    at = (_fused(x.astype(box.dtype), ratio[axis], -0.5) for axis, x in enumerate(pixels))
    values = _as_torch if extent.sum() > 128 else _as_torch_when_small
    columns, rows = (taps(x, side) for x in at)
    return _Window((int(begin[0]), int(begin[1])), columns, rows, values)


def _fused(a: np.ndarray, b: np.ndarray, c: np.ndarray | float) -> np.ndarray:
    """`a * b + c`, rounded once, as processors do it that torch is compiled for."""
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return (a.astype(wide) * b + c).astype(a.dtype)


def _as_torch(grid: Float[np.ndarray, "y x"], columns: Taps, rows: Taps) -> Float[np.ndarray, "h w"]:
    (left, right, along), (above, below, down) = columns, rows
    down, across = down[:, None], _fused(grid[:, left], 1 - along, grid[:, right] * along)
    return _fused(across[above], 1 - down, across[below] * down)


def _as_torch_when_small(grid: Float[np.ndarray, "y x"], columns: Taps, rows: Taps) -> Float[np.ndarray, "h w"]:
    """Values as torch computes them, which has another order of sums for 128 rows and columns, or less."""
    (left, right, along), (above, below, down) = columns, rows
    above, below, down = above[:, None], below[:, None], down[:, None]
    upper = _fused(grid[above, left], (1 - down) * (1 - along), grid[above, right] * ((1 - down) * along))
    return _fused(grid[below, right], down * along, _fused(grid[below, left], down * (1 - along), upper))


def _on_canvas(box: Float[np.ndarray, "4"], shape: tuple[int, ...], extent: tuple[int, int], canvas: Canvas) -> _Window:
    """The pixels whose centres lie in a box of the file, sampled from a map of the canvas that goes on beyond its border."""
    begin, pixels = _pixels_in(box, canvas.original_size)
    scale, shift = canvas.to_file()
    at = (
        (x + 0.5 - shift[axis]) / scale[axis] * (shape[1 - axis] / extent[1 - axis]) - 0.5
        for axis, x in enumerate(pixels)
    )
    columns, rows = (taps(x, shape[1 - axis]) for axis, x in enumerate(at))
    return _Window(begin, columns, rows)


def _pixels_in(
    box: Float[np.ndarray, "4"], size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """The first column and row whose centres lie in the box and the file, and all of them."""
    limit = np.array([*size[::-1], *size[::-1]], np.float64)
    x0, y0, x1, y1 = np.clip(np.ceil(box - 0.5), 0, limit).astype(np.int64)
    return (int(x0), int(y0)), (np.arange(x0, x1), np.arange(y0, y1))


def _pasted(grid: Float[np.ndarray, "y x"], window: _Window, threshold: float, size: tuple[int, int]) -> Runs:
    """The window, column by column, as run lengths hold it."""
    columns, rows = (Taps(x.first, x.second, x.weight.astype(grid.dtype)) for x in window[1:3])
    on = np.empty((len(columns.first), len(rows.first)), bool)
    step = max(VALUES_AT_ONCE // max(len(rows.first), 1), 1)
    for start in range(0, len(on), step):
        block = columns.of(slice(start, start + step))
        on[start : start + step] = (window.values(grid, block, rows) > threshold).T
    left, top = window.corner
    return of_window(on.T, (top, left), size)


def _box_in_file(box: ArrayLike, canvas: Canvas) -> np.ndarray:
    """A box in pixels of the file and in its own precision, beyond the border, too; outside where it is not finite."""
    scale, shift = (np.asarray([*each, *each]) for each in canvas.to_file())
    box = np.asarray(box)
    known = np.where(np.isfinite(box).all(), box, -FAR)
    return np.clip(known * scale + shift, -FAR, FAR).astype(box.dtype)


def _floats(values: ArrayLike) -> np.ndarray:
    """float32, or float64 where it is."""
    return np.asarray(values, np.float64 if np.asarray(values).dtype == np.float64 else np.float32)

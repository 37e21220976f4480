"""Masks of objects on their way to a batch: of the whole canvas, of the canvas as bits, or cut out at their boxes.

One object at a time, and of it the smallest rectangle that holds all pixels that are on. As with the image, the centre of the
first pixel is at 0.5, and a pixel of the canvas shows the one of the image that its centre lies in.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxvision.data.placement import Placement
from jaxvision.data.source import Mask
from jaxvision.formats.image_file import Size
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs
from jaxvision.types import CutMasks, PackedMasks

Form = Literal["canvas", "bits"] | int
"""How a batch holds masks; a number for the cells of a side of the grid that each is cut out to."""


class Patch(NamedTuple):
    """The smallest rectangle of a mask that holds all pixels that are on."""

    top: int
    left: int
    pixels: np.ndarray
    """bool `h w`."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """`x0 y0 x1 y1`."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height


class Layout(NamedTuple):
    """How a batch holds masks."""

    empty: Callable[[int, int, Size], Any]
    """`(examples, rows, canvas) -> Masks`: none is on."""
    content: Callable[[Patch, Patch, Placement], Any]
    """`(patch of the image, patch of the canvas, placement)` to what is kept of a mask."""
    write: Callable[[Any, int, int, Any], None]
    """`(masks, example, row, content)`."""


def size_of(mask: Mask) -> Size:
    """Height and width of the mask."""
    return mask.size if isinstance(mask, Runs) else (int(mask.shape[0]), int(mask.shape[1]))


def patch_of(mask: Mask) -> Patch | None:
    """What is on of a mask; None where nothing is."""
    if not isinstance(mask, Runs):
        return _trimmed(Patch(0, 0, np.asarray(mask, bool)))
    x0, y0, x1, y1 = runs.box(mask).astype(int).tolist()
    return _trimmed(Patch(y0, x0, runs.columns(mask, x0, x1)[y0:y1]))


def _trimmed(patch: Patch) -> Patch | None:
    rows, columns = np.flatnonzero(patch.pixels.any(1)), np.flatnonzero(patch.pixels.any(0))
    if not len(rows):
        return None
    pixels = patch.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Patch(patch.top + int(rows[0]), patch.left + int(columns[0]), pixels)


def on_canvas(patch: Patch, placement: Placement) -> Patch | None:
    """What is left of a mask on the canvas; all pixels that it has a centre in, where none shows it; None for nothing."""
    rows, columns = nearest(placement)
    x0, y0, x1, y1 = patch.box
    down, across = (slice(*np.searchsorted(found, ends)) for found, ends in ((rows, (y0, y1)), (columns, (x0, x1))))
    shown = patch.pixels[rows[down] - y0][:, columns[across] - x0]
    left = Patch(int(down.start), int(across.start), shown) if shown.any() else _reached(patch, placement)
    top, start = (each.start for each in placement.spot)
    return _trimmed(left._replace(top=left.top + top, left=left.left + start))


def nearest(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the image that each row and column of `placement.spot` shows."""
    (x0, y0, x1, y1), (height, width) = placement.box, placement.size
    y, x = (
        np.floor(low + (np.arange(count) + 0.5) * ((high - low) / count)).astype(np.int64)
        for low, high, count in ((y0, y1, height), (x0, x1, width))
    )
    down, across = placement.kept
    return y[down], x[across]


def _reached(patch: Patch, placement: Placement) -> Patch:
    """The pixels of `placement.spot` that centres of a mask's pixels lie in."""
    (x0, y0, x1, y1), (height, width), (rows, columns) = placement.box, placement.size, placement.kept
    y, x = np.nonzero(patch.pixels)
    down = np.floor((y + patch.top + 0.5 - y0) * (height / (y1 - y0))).astype(np.int64) - rows.start
    across = np.floor((x + patch.left + 0.5 - x0) * (width / (x1 - x0))).astype(np.int64) - columns.start
    shape = rows.stop - rows.start, columns.stop - columns.start
    inside = (down >= 0) & (down < shape[0]) & (across >= 0) & (across < shape[1])
    pixels = np.zeros(shape, bool)
    pixels[down[inside], across[inside]] = True
    return Patch(0, 0, pixels)


def layout(form: Form) -> Layout:
    """The layout of this name.

    Raises:
      ValueError: for another name, and for a grid whose side is no multiple of 8.
    """
    if form == "canvas":
        return Layout(_no_masks, lambda whole, left, placement: left, _write)
    if form == "bits":
        return Layout(_no_bits, lambda whole, left, placement: left, _write_bits)
    if isinstance(form, str | bool) or form < 8 or form % 8:
        raise ValueError(
            f'masks={form!r}: allowed are "canvas", "bits", the side of a grid, a multiple of 8 such as 112, and None'
        )
    return Layout(
        lambda n, rows, canvas: _no_grids(n, rows, form),
        lambda whole, left, placement: (np.packbits(grid(whole.pixels, form), axis=1), _frame(whole, placement)),
        _write_grid,
    )


def _no_masks(n: int, rows: int, canvas: Size) -> np.ndarray:
    return np.zeros((n, rows, *canvas), bool)


def _write(masks: np.ndarray, example: int, row: int, patch: Patch) -> None:
    x0, y0, x1, y1 = patch.box
    masks[example, row, y0:y1, x0:x1] = patch.pixels


def _no_bits(n: int, rows: int, canvas: Size) -> PackedMasks:
    height, width = canvas
    bits: Any = np.zeros((n, rows, height, -(-width // 8)), np.uint8)
    return PackedMasks(bits, width)


def _write_bits(masks: PackedMasks, example: int, row: int, patch: Patch) -> None:
    x0, y0, _, y1 = patch.box
    packed = np.packbits(np.pad(patch.pixels, ((0, 0), (x0 % 8, 0))), axis=1)
    np.asarray(masks.bits)[example, row, y0:y1, x0 // 8 : x0 // 8 + packed.shape[1]] = packed


def _no_grids(n: int, rows: int, side: int) -> CutMasks:
    bits: Any = np.zeros((n, rows, side, side // 8), np.uint8)
    frames: Any = np.zeros((n, rows, 4), np.float32)
    return CutMasks(bits, frames)


def _write_grid(masks: CutMasks, example: int, row: int, content: tuple[np.ndarray, np.ndarray]) -> None:
    np.asarray(masks.bits)[example, row], np.asarray(masks.frames)[example, row] = content


def grid(pixels: np.ndarray, side: int) -> np.ndarray:
    """The pixels as `side side` cells: on where at least half of a cell is; of a mask too thin for that, those with the most.

    Targets of 28 cells made of these are nearer to those of the whole mask than of the nearest pixels (`synthetic.shapes`).
    """
    height, width = pixels.shape
    covered = _summed(_summed(pixels, side).T, side).T * (side * side / (height * width))
    return covered >= 0.5 * min(covered.max(), 1)


def _summed(pixels: np.ndarray, cells: int) -> np.ndarray:
    """Sums over the rows of each cell; a row on the border of two counts for both, in part."""
    before = np.zeros((len(pixels) + 1, pixels.shape[1]), np.float32 if pixels.dtype == bool else np.float64)
    np.cumsum(pixels, axis=0, out=before[1:])
    borders = np.linspace(0, len(pixels), cells + 1)
    whole = np.minimum(borders.astype(np.int64), len(pixels) - 1)
    return np.diff(before[whole] + (borders - whole)[:, None] * pixels[whole], axis=0)


def _frame(patch: Patch, placement: Placement) -> np.ndarray:
    """The box of a mask on the canvas, wherever that ends."""
    (x0, y0, x1, y1), (height, width) = placement.box, placement.size
    scale = np.asarray([width / (x1 - x0), height / (y1 - y0)] * 2)
    return (np.asarray(patch.box) - [x0, y0, x0, y0]) * scale + placement.padding[:2] * 2

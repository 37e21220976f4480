"""Masks of the objects of one image on the device: as bits, cut out at their boxes, and as targets of mask heads.

A pixel or a cell is a point of a mask: its centre. Rows of objects that are not valid may hold anything.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvision.ops.options import COUNT, allowed
from jaxvision.types import CutMasks, Masks, PackedMasks

Geometry = Literal["aligned", "torchvision"]
"""How a grid lies in its box. `aligned`: the centre of cell (i, j) is at (i + 0.5, j + 0.5), and so is that of a pixel.
`torchvision`: as in its Mask R-CNN, whose targets lie half a pixel up and left."""

AT_ONCE = 8
"""Boxes whose targets are made together: memory grows with the canvas times these."""


def pack(masks: Bool[Array, "*n w"]) -> UInt8[Array, "*n _"]:
    """Eight pixels a byte along x, the first in the highest bit, as `numpy.packbits`; the last byte is filled with zeros."""
    return jnp.packbits(masks, axis=-1)


def unpack(bits: UInt8[Array, "*n _"], width: int) -> Bool[Array, "*n {width}"]:
    """The first `width` pixels of each row of bits."""
    return jnp.unpackbits(bits, axis=-1, count=width).astype(bool)


def packed(masks: Bool[Array, "*b n h w"]) -> PackedMasks:
    """Masks of the canvas as bits."""
    return PackedMasks(pack(masks), masks.shape[-1])


def unpacked(masks: Masks, canvas: tuple[int, ...]) -> Bool[Array, "n h w"]:
    """Masks of the whole canvas; of one that was cut out, a pixel is on where the cell around its centre is."""
    if isinstance(masks, PackedMasks):
        return unpack(masks.bits, masks.width)
    if isinstance(masks, CutMasks):
        return _on_canvas(masks, canvas)
    return masks.astype(bool)


def shrunk(masks: Bool[Array, "n h w"], size: tuple[int, ...], dtype=jnp.float32) -> Bool[Array, "n {size[0]} {size[1]}"]:
    """The cells of a smaller map that masks cover by more than half, by the four pixels around the centre of each.

    PyTorch's bilinear `interpolate`, and a threshold; computed in `dtype`.
    """
    rows, columns = (_taps(*sides) for sides in zip(masks.shape[1:], size, strict=True))
    down, across = jnp.asarray(rows.weight, dtype)[None, :, None], jnp.asarray(columns.weight, dtype)[None, None]
    halves = (masks[:, rows.first], masks[:, rows.second])
    a, b, c, d = (half[:, :, cells].astype(dtype) for half in halves for cells in (columns.first, columns.second))
    return (1 - down) * ((1 - across) * a + across * b) + down * ((1 - across) * c + across * d) > 0.5


def boxes_around(masks: Masks, dtype) -> tuple[Float[Array, "n 4"], Bool[Array, "n"]]:
    """The smallest box around the pixels or cells that are on, and whether there are any; zeros if not."""
    if isinstance(masks, CutMasks):
        boxes, nonempty = _around(*_rows_and_columns(unpack(masks.bits, masks.bits.shape[-2])))
        place = boxes.astype(masks.frames.dtype) / masks.bits.shape[-2]
        low, extent = (jnp.tile(x, (1, 2)) for x in _low_and_extent(masks.frames))
        corners = (low + place * extent).reshape(-1, 2, 2)
        boxes = jnp.concatenate([corners.min(1), corners.max(1)], -1)
        return jnp.where(nonempty[:, None], boxes, 0).astype(dtype), nonempty
    if isinstance(masks, PackedMasks):
        in_any_row = jax.lax.reduce(masks.bits, np.uint8(0), jax.lax.bitwise_or, (1,))
        boxes, nonempty = _around((masks.bits > 0).any(2), unpack(in_any_row, masks.width))
    else:
        boxes, nonempty = _around(*_rows_and_columns(masks.astype(bool)))
    return boxes.astype(dtype), nonempty


def cut_at(masks: CutMasks, windows: Float[Array, "#n 4"]) -> CutMasks:
    """Masks without the cells whose centre lies outside a window `x0 y0 x1 y1`, its own or the same for all."""
    cells = masks.bits.shape[-2]
    centre = (jnp.arange(cells, dtype=masks.frames.dtype) + 0.5) / cells
    low, extent = _low_and_extent(masks.frames)
    at = low[:, None] + centre[None, :, None] * extent[:, None]
    windows = windows.astype(at.dtype)
    shown = (at >= windows[:, None, :2]) & (at < windows[:, None, 2:])
    bits = masks.bits & pack(shown[..., 0])[:, None]
    return masks.replace(bits=jnp.where(shown[..., 1][..., None], bits, 0))


@allowed(size=COUNT)
def targets_in_boxes(
    masks: Masks, match: Int[Array, "r"], boxes: Float[Array, "r 4"], size: int, geometry: Geometry = "aligned"
) -> Float[Array, "r {size} {size}"]:
    """Soft targets of a mask head: how much of each cell of a grid in each box the matched mask covers, 0 to 1.

    Computed by ROIAlign with samples a pixel apart or closer, as in torchvision's `roi_align(..., sampling_ratio=-1)`: the
    mean of bilinear samples. Of bits only the matched masks are unpacked, and a mask that was cut out is sampled where it
    is, on its cells: the canvas is never made, and what lies outside them is off.

    Args:
      masks: those of the objects.
      match: the object of each box; rows below 0 give the target of the first.
      boxes: on the canvas.
      size: cells along each side.
      geometry: how the grid lies in its box.
    """

    def one(given: tuple[Array, Array]) -> Array:
        number, box = given
        plane, low, step, most = _plane(masks, jnp.maximum(number, 0), box, size, geometry)
        columns, rows = (_weights(low[axis], step[axis], size, plane.shape[1 - axis], most[axis]) for axis in (0, 1))
        product = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        return product(product(rows, plane.astype(box.dtype)), columns.T)

    return jax.lax.stop_gradient(jax.lax.map(one, (match, boxes), batch_size=AT_ONCE))


def _plane(
    masks: Masks, number: Int[Array, ""], box: Float[Array, "4"], size: int, geometry: Geometry
) -> tuple[Bool[Array, "y x"], Float[Array, "2"], Float[Array, "2"], tuple[int, int]]:
    """One mask, as pixels or as cells; in these, from the centre of the first, where a box begins and how wide a cell of its
    grid is, and how many samples such a cell has at most, all of them x first.
    """
    low, extent = box[:2], box[2:] - box[:2]
    offset = 0.5 if geometry == "aligned" else 0.0
    extent = extent if geometry == "aligned" else jnp.maximum(extent, 1)
    if not isinstance(masks, CutMasks):
        bits = isinstance(masks, PackedMasks)
        plane = unpack(masks.bits[number], masks.width) if bits else masks[number].astype(bool)
        height, width = plane.shape
        return plane, low - offset, extent / size, (-(-width // size), -(-height // size))
    cells = masks.bits.shape[-2]
    frame = masks.frames[number].astype(box.dtype)
    sides = frame[2:] - frame[:2]
    by_pixel = jnp.where(jnp.abs(sides) > 0, cells / jnp.where(jnp.abs(sides) > 0, sides, 1), jnp.nan)
    plane = jnp.pad(unpack(masks.bits[number], cells), 1)
    begin = (low + (0.5 - offset) - frame[:2]) * by_pixel + 0.5
    most = -(-2 * cells // size)
    return plane, begin, extent * by_pixel / size, (most, most)


def _weights(
    low: Float[Array, ""], step: Float[Array, ""], size: int, limit: int, most: int
) -> Float[Array, "{size} {limit}"]:
    """How much each pixel along an axis counts in each cell of a grid: the mean of the samples of the cell.

    Without a number for the place of the grid, nothing counts.
    """
    known = jnp.isfinite(low) & jnp.isfinite(step)
    low, step = jnp.where(known, low, -2), jnp.where(known, step, 0)
    count = jnp.clip(jnp.ceil(jnp.abs(step)), 1, most)
    cell, sample = (jnp.arange(n, dtype=low.dtype) for n in (size, most))
    at = (low + cell * step)[:, None] + ((sample + 0.5) * step / count)[None]
    counted = (sample < count)[None] & (at >= -1) & (at <= limit)
    at = jnp.clip(at, 0, limit - 1)
    nearness = 1 - jnp.abs(at[..., None] - jnp.arange(limit, dtype=low.dtype)[None, None])
    return jnp.where(counted[..., None], jnp.maximum(nearness, 0), 0).sum(1) / count


def _on_canvas(masks: CutMasks, canvas: tuple[int, ...]) -> Bool[Array, "n h w"]:
    cells, frames = masks.bits.shape[-2], masks.frames
    low, extent = _low_and_extent(frames)

    def cell_of_pixels(axis: int, pixels: int) -> tuple[Int[Array, "n s"], Bool[Array, "n s"]]:
        centre = jnp.arange(pixels, dtype=frames.dtype) + 0.5
        begin, side = low[:, axis, None], extent[:, axis, None]
        wide = jnp.abs(side) > 0
        at = jnp.floor((centre[None] - begin) / jnp.where(wide, side, 1) * cells)
        inside = wide & (at >= 0) & (at < cells)
        return jnp.where(inside, at, 0).astype(jnp.int32), inside

    (rows, in_rows), (columns, in_columns) = cell_of_pixels(1, canvas[0]), cell_of_pixels(0, canvas[1])
    grid, number = unpack(masks.bits, cells), jnp.arange(len(frames))[:, None, None]
    on = grid[number, rows[:, :, None], columns[:, None]]
    return on & in_rows[:, :, None] & in_columns[:, None]


def _low_and_extent(frames: Float[Array, "n 4"]) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    return frames[:, :2], frames[:, 2:] - frames[:, :2]


def _rows_and_columns(on: Bool[Array, "n h w"]) -> tuple[Bool[Array, "n h"], Bool[Array, "n w"]]:
    return on.any(2), on.any(1)


def _around(rows: Bool[Array, "n h"], columns: Bool[Array, "n w"]) -> tuple[Int[Array, "n 4"], Bool[Array, "n"]]:
    def first_and_end(marks: Bool[Array, "n s"]) -> tuple[Array, Array]:
        return marks.argmax(1), marks.shape[1] - marks[:, ::-1].argmax(1)

    (y0, y1), (x0, x1) = first_and_end(rows), first_and_end(columns)
    nonempty = rows.any(1)
    return jnp.where(nonempty[:, None], jnp.stack([x0, y0, x1, y1], -1), 0), nonempty


class _Taps(NamedTuple):
    """The two pixels along one axis between which the centre of each cell lies, and the weight of the second."""

    first: Int[np.ndarray, "o"]
    second: Int[np.ndarray, "o"]
    weight: Float[np.ndarray, "o"]


def _taps(pixels: int, cells: int) -> _Taps:
    place = np.maximum((np.arange(cells) + 0.5) * pixels / cells - 0.5, 0)
    first = np.minimum(place.astype(np.int64), pixels - 1)
    return _Taps(first, np.minimum(first + 1, pixels - 1), place - first)

"""Features of regions at a fixed size from a pyramid of maps of one image (arXiv:1612.03144): ROIAlign on the fitting map.

Equal to torchvision's `MultiScaleRoIAlign`. Boxes are `x0 y0 x1 y1` in pixels of the image.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.ops.boxes import area
from jaxvision.ops.options import COUNT, POSITIVE, allowed
from jaxvision.ops.roi_align import adds_up_in, weighted_sum

CANONICAL = 224
"""A region of this side belongs to the map with stride 16."""

Sampled = list[tuple[Int[Array, "n s"], Float[Array, "n s"]]]
"""Places along one axis: of the pixels beside each, their number and weight."""


@allowed(strides=POSITIVE)
def level_of(boxes: Float[Array, "n 4"], strides: Sequence[int]) -> Int[Array, "n"]:
    """Which of the maps with these strides, each twice the one before, fits each box (equation 1 of the paper)."""
    finest = int(math.log2(strides[0]))
    fitting = jnp.floor(4 + jnp.log2(jnp.sqrt(area(boxes)) / CANONICAL) + 1e-6)
    return jnp.clip(fitting - finest, 0, len(strides) - 1).astype(jnp.int32)


@allowed(strides=POSITIVE, size=COUNT, samples=COUNT)
def roi_align_pyramid(
    maps: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "n 4"],
    *,
    strides: Sequence[int],
    size: int,
    samples: int = 2,
) -> Float[Array, "n {size} {size} c"]:
    """The mean of `samples x samples` bilinear samples in each of `size x size` cells of a box, on the map that fits it.

    One gather serves all maps, which lie behind each other: no region is sampled on any other map than its own. Only the maps
    have a gradient, the boxes have none.

    Args:
      maps: the features of the image, finest first; those without a stride are left aside.
      boxes: the regions.
      strides: pixels of the image a cell of each map.
      size: cells along each side.
      samples: samples along each side of a cell.

    Raises:
      ValueError: if `size` or `samples` is less than 1.
    """
    maps = maps[: len(strides)]
    level = level_of(boxes, strides)
    heights, widths = ([x.shape[axis] for x in maps] for axis in (0, 1))
    starts = [sum(h * w for h, w in zip(heights[:n], widths[:n], strict=True)) for n in range(len(maps))]
    height, width, start = (jnp.asarray(each, jnp.int32)[level] for each in (heights, widths, starts))
    scaled = boxes / jnp.asarray(strides, boxes.dtype)[level][:, None]
    low, extent = scaled[:, :2], jnp.maximum(scaled[:, 2:] - scaled[:, :2], 1)
    columns, rows = (
        _along_axis(low[:, axis], extent[:, axis] / size, limit, size, samples)
        for axis, limit in ((0, width), (1, height))
    )
    flat = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])
    corners = [(row, column) for row in rows for column in columns]
    pixels = [start[:, None, None] + r[:, :, None] * width[:, None, None] + c[:, None] for (r, _), (c, _) in corners]
    weights = [r[:, :, None] * c[:, None] for (_, r), (_, c) in corners]
    weights = jnp.stack(weights).astype(adds_up_in(flat.dtype)) / samples**2
    return weighted_sum(flat, jnp.stack(pixels), jax.lax.stop_gradient(weights))


def _along_axis(
    low: Float[Array, "n"], cell: Float[Array, "n"], limit: Int[Array, "n"], size: int, samples: int
) -> Sampled:
    """The two pixels beside each of the samples of a cell, in every cell; no weight more than a pixel outside."""
    begins = low[:, None] + jnp.arange(size, dtype=low.dtype)[None] * cell[:, None]
    end = limit.astype(low.dtype)[:, None]
    found = []
    for sample in range(samples):
        at = begins + (sample + 0.5) * cell[:, None] / samples
        outside = (at < -1) | (at > end)  # what is not a number is not, and then shows in the result
        at = jnp.clip(at, 0, end - 1)
        first = jnp.floor(at)
        upper = at - first
        for pixel, weight in ((first, 1 - upper), (jnp.minimum(first + 1, end - 1), upper)):
            known = jnp.where(jnp.isnan(pixel), 0, pixel).astype(jnp.int32)
            found.append((known, jnp.where(outside, 0, weight)))
    return found

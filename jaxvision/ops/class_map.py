"""The class of every pixel of one image, from scores on a map that may be smaller than its canvas."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def class_map(logits: Float[Array, "h w k"], canvas: tuple[int, int]) -> Int[Array, "y x"]:
    """The class with the largest logit at each pixel of the canvas; of equal ones that with the smaller number.

    Logits on a smaller map are first resized bilinearly, as PyTorch's `interpolate` does with `align_corners=False`: centres
    are at half pixels, and beyond the outermost ones the values stay the same. One class after the other, so that memory does
    not grow with their number; in float32 at least.
    """
    if logits.shape[:2] == tuple(canvas):
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    rows, columns = (linear_taps(*sides) for sides in zip(logits.shape[:2], canvas, strict=True))
    planes = jnp.moveaxis(logits, -1, 0).astype(jnp.promote_types(logits.dtype, jnp.float32))

    def enlarged(plane: Float[Array, "h w"]) -> Float[Array, "y x"]:
        down, across = (jnp.asarray(taps.weight, plane.dtype) for taps in (rows, columns))
        plane = plane[rows.first] + (plane[rows.second] - plane[rows.first]) * down[:, None]
        return plane[:, columns.first] + (plane[:, columns.second] - plane[:, columns.first]) * across[None, :]

    def step(best: tuple[Array, Array], of: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        value, (number, plane) = enlarged(of[1]), of
        larger = value > best[0]
        return (jnp.where(larger, value, best[0]), jnp.where(larger, number, best[1])), None

    first = (enlarged(planes[0]), jnp.zeros(canvas, jnp.int32))
    (_, found), _ = jax.lax.scan(step, first, (jnp.arange(1, len(planes), dtype=jnp.int32), planes[1:]))
    return found


class Taps(NamedTuple):
    """Linear interpolation along one axis: the two cells that each pixel lies between, and the weight of the second."""

    first: Int[np.ndarray, "p"]
    second: Int[np.ndarray, "p"]
    weight: Float[np.ndarray, "p"]


def linear_taps(cells: int, pixels: int) -> Taps:
    """The taps of `pixels` pixels of a side that this number of cells covers."""
    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    first = np.floor(place).astype(np.int32)
    return Taps(first, np.minimum(first + 1, cells - 1), place - first)

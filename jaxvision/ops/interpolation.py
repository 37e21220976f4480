"""Maps interpolated bilinearly to another size, as PyTorch's `interpolate` does: pixel centres on pixel centres.

No smoothing where a map shrinks: every pixel of the result is a mean of the four cells around its centre.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.options import COUNT, allowed


class Taps(NamedTuple):
    """The two cells along one axis between which each pixel of the result lies, and the weight of the second."""

    first: Int[np.ndarray, "o"]
    second: Int[np.ndarray, "o"]
    weight: Float[np.ndarray, "o"]


@allowed(cells=COUNT, pixels=COUNT)
def taps(cells: int, pixels: int) -> Taps:
    """The taps of `pixels` that cover as much as so many cells; beyond the centre of the border cell it is that cell alone."""
    place = np.maximum((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0)
    first = np.minimum(place.astype(np.int64), cells - 1)
    return Taps(first, np.minimum(first + 1, cells - 1), place - first)


def bilinear(maps: Float[Array, "*b h w c"], size: tuple[int, int]) -> Float[Array, "*b y x c"]:
    """The maps at this height and width; two matrix products, so that the gradient is two as well."""
    rows, columns = (
        jnp.asarray(_matrix(maps.shape[axis], pixels), maps.dtype)
        for axis, pixels in zip((-3, -2), size, strict=True)
    )
    exact = jax.lax.Precision.HIGHEST
    tall = jnp.einsum("yh,...hwc->...ywc", rows, maps, precision=exact)
    return jnp.einsum("xw,...ywc->...yxc", columns, tall, precision=exact)


def shrunk(masks: Bool[Array, "n h w"], size: tuple[int, int], dtype=jnp.float32) -> Bool[Array, "n y x"]:
    """The pixels of the interpolated masks that are more than half on; computed in `dtype`."""
    rows, columns = taps(masks.shape[1], size[0]), taps(masks.shape[2], size[1])
    down, across = (jnp.asarray(each.weight, dtype) for each in (rows, columns))
    down, across = down[None, :, None], across[None, None]
    top, bottom = masks[:, rows.first], masks[:, rows.second]
    corners = (half[:, :, cells] for half in (top, bottom) for cells in (columns.first, columns.second))
    a, b, c, d = (each.astype(dtype) for each in corners)
    return (1 - down) * ((1 - across) * a + across * b) + down * ((1 - across) * c + across * d) > 0.5


def _matrix(cells: int, pixels: int) -> Float[np.ndarray, "o i"]:
    """The weight of every cell in every pixel."""
    found, rows = taps(cells, pixels), np.arange(pixels)
    matrix = np.zeros((pixels, cells))
    np.add.at(matrix, (rows, found.first), 1 - found.weight)
    np.add.at(matrix, (rows, found.second), found.weight)
    return matrix

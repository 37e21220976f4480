"""Filters of one image `h w c`, 0-255, any type; the result has the same type (whole ones rounded, all cut to 0-255).

They see the content only, the top-left `size` (height, width); what they make of the canvas outside is of no meaning.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import NOT_NEGATIVE, allowed
from jaxvision.ops.pixels import inside

Image = Shaped[Array, "h w c"]
Size = Int[Array, "2"]
Amount = Shaped[Array, ""] | float | int


@allowed(deviation=NOT_NEGATIVE)
def gaussian_blur(image: Image, size: Size, deviation: Amount) -> Image:
    """The mean around every pixel with Gaussian weights of this standard deviation in pixels, not cut off.

    At the border the weights inside the content are scaled to sum to 1: nothing beyond it is made up. A deviation below
    0.1 changes nothing.
    """
    levels = as_float(image)
    rows, columns = (_gaussian(image.shape[axis], size[axis], deviation, levels.dtype) for axis in (0, 1))
    content = jnp.where(inside(size, *image.shape[:2])[..., None], levels, 0)
    blurred = jnp.einsum("iy,yxc,jx->ijc", rows, content, columns, precision=jax.lax.Precision.HIGHEST)
    return as_levels(blurred, image.dtype)


@allowed(factor=NOT_NEGATIVE)
def sharpness(image: Image, size: Size, factor: Amount) -> Image:
    """The distance of every level to its smoothed self, times `factor`: 0 smooths, 1 changes nothing, 2 sharpens.

    Smoothed: the mean of the 3x3 pixels around, the pixel itself counting five times. The outermost pixels of the content
    have no such mean and stay, as in PIL's `ImageEnhance.Sharpness`.
    """
    levels = as_float(image)
    padded = jnp.pad(levels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    nine = sum((padded[y : y + height, x : x + width] for y in range(3) for x in range(3)), jnp.zeros_like(levels))
    inner = inside(size - 1, height, width).at[0].set(False).at[:, 0].set(False)
    smooth = jnp.where(inner[..., None], (nine + 4 * levels) / 13, levels)
    return as_levels(smooth + jnp.asarray(factor, levels.dtype) * (levels - smooth), image.dtype)


def _gaussian(length: int, extent: Int[Array, ""], deviation: Amount, dtype) -> Float[Array, "n n"]:
    """Gaussian weights, row i: those around position i, over positions below `extent`, with the sum 1."""
    place = jnp.arange(length, dtype=dtype)
    distance = (place[:, None] - place[None, :]) / jnp.maximum(jnp.asarray(deviation, dtype), 0.05)
    weights = jnp.where(place[None, :] < extent.astype(dtype), jnp.exp(-(distance**2) / 2), 0)
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)

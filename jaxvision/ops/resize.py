"""One image made larger or smaller, without the false patterns that taking single pixels of a larger one gives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.pixels import inside


def resized(
    values: Shaped[Array, "h w c"], size: Int[Array, "2"], zoom: Float[Array, "2"], shift: Float[Array, "2"]
) -> Shaped[Array, "h w c"]:
    """The content zoomed from its top left corner, then shifted, on the same canvas; levels 0-255.

    Each pixel is a mean of the content weighted by a triangle, two pixels wide where the image grows and as much wider as
    it shrinks: what PIL calls BILINEAR. Two matrix products; 4 times as long as `resample.warp` at 416 px on CPU.

    Args:
      values: pixels of the canvas; rounded if of a whole type.
      size: height and width of the content.
      zoom: factors of y and of x, above 0.
      shift: in pixels of the result, down and to the right.

    Returns:
      The canvas. Where no pixel of the content is near enough, 0; beyond the moved content its border fades into that.
    """
    height, width, _ = values.shape
    levels = as_float(jnp.where(inside(size, height, width)[..., None], values, jnp.zeros((), values.dtype)))
    down = _weights(height, size[0], zoom[0], shift[0]).astype(levels.dtype)
    across = _weights(width, size[1], zoom[1], shift[1]).astype(levels.dtype)
    levels = jnp.einsum("oi,iwc->owc", down, levels, precision=jax.lax.Precision.HIGHEST)
    levels = jnp.einsum("oi,hic->hoc", across, levels, precision=jax.lax.Precision.HIGHEST)
    return as_levels(levels, values.dtype)


def _weights(
    places: int, extent: Int[Array, ""], zoom: Float[Array, ""], shift: Float[Array, ""]
) -> Float[Array, "o i"]:
    """Weights with which each place of the result takes from each place of the content; a row sums to 1, or to 0."""
    centres = jnp.arange(places, dtype=jnp.float32) + 0.5
    source = (centres - shift) / zoom
    reach = jnp.minimum(zoom, 1) * jnp.abs(centres[None, :] - source[:, None])
    weights = jnp.maximum(1 - reach, 0) * (jnp.arange(places) < extent)[None, :].astype(jnp.float32)
    total = weights.sum(1, keepdims=True)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 0)

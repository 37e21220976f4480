"""Positions in a map of features, as numbers that a transformer can add to them."""

import math

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

TEMPERATURE = 10_000


def sine(
    extent: Int[Array, "b 2"], shape: tuple[int, int], width: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "b h w d"]:
    """Sines and cosines of the place of every cell, as a fraction of the content (arXiv:2005.12872, appendix A.4).

    The first half of the channels is about the row, the second about the column: sine and cosine in turn, at wavelengths
    that rise from the whole content to 10,000 times as much. Cells outside the content are numbered on.

    Args:
      extent: rows and columns of the map that belong to the content.
      shape: rows and columns of the map, `h w`.
      width: of the result, `d`.
      dtype: of the result, and of the arithmetic.

    Raises:
      ValueError: for a width that is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine positions need a width that is a multiple of 4, got {width}")
    down, across = (_waves(extent[:, axis].astype(dtype), shape[axis], width // 2) for axis in (0, 1))
    full = (extent.shape[0], *shape, width // 2)
    return jnp.concatenate([jnp.broadcast_to(down[:, :, None], full), jnp.broadcast_to(across[:, None], full)], -1)


def _waves(extent: Float[Array, "b"], count: int, width: int) -> Float[Array, "b n d"]:
    """Waves of `count` cells in a line, of which the first `extent` are the content."""
    place = jnp.arange(1, count + 1, dtype=extent.dtype)[None] / (extent[:, None] + 1e-6) * (2 * math.pi)
    frequency = TEMPERATURE ** (-jnp.arange(0, width, 2, dtype=extent.dtype) / width)
    angle = place[:, :, None] * frequency[None, None]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*place.shape, width)

"""Random windows of an image, by fraction of its area and by aspect ratio."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxvision.ops.options import POSITIVE, Bound
from jaxvision.types import Key

TRIES = 10
AREA = Bound(0, 1, above=True, pair=True)
"""Ranges of fractions of an area."""
RATIO = POSITIVE._replace(pair=True)
"""Ranges of width by height."""


class Window(NamedTuple):
    """A window: its top left pixel and size; `fits` is False where none was found, and the window then all of the content."""

    top: Int[Array, ""]
    left: Int[Array, ""]
    height: Int[Array, ""]
    width: Int[Array, ""]
    fits: Bool[Array, ""]


def draw(key: Key, size: Int[Array, "2"], area: tuple[float, float], ratio: tuple[float, float]) -> Window:
    """A window of the content (`size`: height, width), anywhere in it with the same probability.

    Its fraction of the area is sampled uniformly from `area`, its width by its height from `ratio`, on a logarithmic scale;
    the first of ten such draws that fits into the content.
    """
    numbers = jax.random.uniform(key, (2 * TRIES + 2,), jnp.float32)
    for_area, for_ratio, for_place = numbers[:TRIES], numbers[TRIES:-2], numbers[-2:]
    low, high = jnp.log(jnp.asarray(ratio, jnp.float32))
    pixels = (area[0] + (area[1] - area[0]) * for_area) * size.prod().astype(jnp.float32)
    shape = jnp.exp(low + (high - low) * for_ratio)
    sides = jnp.round(jnp.sqrt(jnp.stack([pixels / shape, pixels * shape], axis=-1))).astype(size.dtype)
    fit = ((sides >= 1) & (sides <= size[None, :])).all(-1)
    chosen = jnp.where(fit.any(), sides[fit.argmax()], size)
    free = (size - chosen + 1).astype(jnp.float32)
    place = jnp.floor(for_place * free).astype(size.dtype)
    top, left = jnp.minimum(place, size - chosen)
    return Window(top, left, chosen[0], chosen[1], fit.any())


def holds(window: Window, height: int, width: int) -> Bool[Array, "h w"]:
    """True where a pixel of the canvas lies in the window."""
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    rows = (row >= window.top) & (row < window.top + window.height)
    return rows & (column >= window.left) & (column < window.left + window.width)

"""Content of one image continued beyond its border by its own reflection, as the overlap-tile strategy of U-Net has it."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from jaxvision.ops.options import COUNT, WHOLE, allowed


@allowed(before=WHOLE, extent=COUNT)
def mirrored(
    image: Shaped[Array, "h w c"], size: Int[Array, "2"], before: int, extent: tuple[int, int]
) -> Shaped[Array, "y x c"]:
    """The content, and around it its reflection at the centres of its border pixels, again and again where it is small.

    Args:
      image: the canvas; what lies outside the content is not read.
      size: height and width of the content.
      before: pixels above the content, and to its left.
      extent: height and width of the result.
    """
    size = jnp.asarray(size)
    places = (jnp.arange(count, dtype=size.dtype) - before for count in extent)
    rows, columns = (_reflected(place, size[axis]) for axis, place in enumerate(places))
    return image[rows][:, columns]


def _reflected(place: Int[Array, "n"], size: Int[Array, ""]) -> Int[Array, "n"]:
    """The pixel, from 0 to below `size`, that each place along an axis shows."""
    period = jnp.maximum(2 * (size - 1), 1)
    turn = place % period
    return jnp.minimum(turn, period - turn)

"""What happens to pixels before a network sees them."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxvision.ops.levels import as_float
from jaxvision.ops.options import FINITE, POSITIVE, allowed

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Mean of red, green and blue on ImageNet, on the scale 0-255."""
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Standard deviation of each."""


def inside(size: Int[Array, "2"], height: int, width: int) -> Bool[Array, "h w"]:
    """True where a pixel of the canvas belongs to the content, which is `size` (height, width) large."""
    rows = jnp.arange(height)[:, None] < size[0]
    columns = jnp.arange(width)[None, :] < size[1]
    return jnp.logical_and(rows, columns)


@allowed(mean=FINITE, std=POSITIVE)
def normalise(
    image: Shaped[Array, "h w c"],
    size: Int[Array, "2"],
    mean: float | Sequence[float],
    std: float | Sequence[float],
    dtype=jnp.float32,
) -> Float[Array, "h w c"]:
    """`(image - mean) / std` inside the content, 0 outside it: what lies on the padding can't reach the network.

    Args:
      image: pixels, 0-255, of any dtype.
      size: height and width of the content, in the top-left corner.
      mean: mean of each channel (or of all), on the scale 0-255.
      std: standard deviation of each channel (or of all), on the scale 0-255; not zero.
      dtype: that of the result; the arithmetic itself is at least float32.

    Raises:
      ValueError: if mean or std has neither one value nor as many as the image has channels.
    """
    wide = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
    channels = image.shape[-1]
    scaled = (image.astype(wide) - _per_channel(mean, channels, wide)) / _per_channel(std, channels, wide)
    return jnp.where(inside(size, *image.shape[:2])[..., None], scaled, 0).astype(dtype)


def brightened(image: Shaped[Array, "h w c"], size: Int[Array, "2"]) -> Float[Array, "h w c"]:
    """The image times 255 by the largest value of its content, in float32 at least; as it is where that is 0 or less."""
    values = as_float(image)
    largest = jnp.where(inside(size, *image.shape[:2])[..., None], values, 0).max()
    return values * (255 / jnp.where(largest > 0, largest, 255))


def _per_channel(value: float | Sequence[float], channels: int, dtype) -> Float[Array, "1 1 c"]:
    if np.shape(value) not in ((), (1,), (channels,)):
        raise ValueError(f"mean and std need one value, or one a channel: the image has {channels}, given are {value}")
    return jnp.broadcast_to(jnp.asarray(value, dtype), (channels,))[None, None, :]

"""Augmentations of colours and grey levels: where things are does not change, nor does any target.

The canvas outside the content stays as it is, and what is measured (a mean, a histogram) is measured in the content.
Whole grey levels stay whole. Images have one channel (grey) or three (red, green, blue).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxvision.augment.keys import row_keys
from jaxvision.ops import colour, filters
from jaxvision.ops import jpeg as ops_jpeg
from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import FINITE, NOT_NEGATIVE, Bound, allowed
from jaxvision.ops.pixels import inside
from jaxvision.types import Augment, Batch, Key, Scalar


@allowed(amount=NOT_NEGATIVE)
def offset(amount: float) -> Augment:
    """Levels plus a number sampled uniformly from -amount to amount: brightness as SSD, Inception and TensorFlow have it.

    Raises:
      ValueError: a negative amount.
    """
    return each_content(lambda key, image, size: colour.offset(image, _draw(key, -amount, amount)))


@allowed(amount=NOT_NEGATIVE)
def brightness(amount: float | tuple[float, float]) -> Augment:
    """Levels times a factor sampled uniformly from 1 - amount (at least 0) to 1 + amount, or from a range, (low, high).

    Raises:
      ValueError: a negative amount, or a range that is none of factors.
    """
    low, high = _around_one("brightness", amount)
    return each_content(lambda key, image, size: colour.brightness(image, _draw(key, low, high)))


@allowed(amount=NOT_NEGATIVE)
def contrast(amount: float) -> Augment:
    """Distances to the mean grey level of the content, times a factor from 1 - amount (at least 0) to 1 + amount."""
    low, high = _around_one("contrast", amount)
    return each_content(lambda key, image, size: colour.contrast(image, size, _draw(key, low, high)))


@allowed(amount=NOT_NEGATIVE)
def saturation(amount: float | tuple[float, float]) -> Augment:
    """Distances to the grey level of the pixel, times a factor as that of `brightness`. Raises ValueError as that does."""
    low, high = _around_one("saturation", amount)
    return each_content(lambda key, image, size: colour.saturation(image, _draw(key, low, high)))


@allowed(amount=NOT_NEGATIVE)
def sharpness(amount: float) -> Augment:
    """Distances to the smoothed image, times a factor from 1 - amount (at least 0) to 1 + amount."""
    low, high = _around_one("sharpness", amount)
    return each_content(lambda key, image, size: filters.sharpness(image, size, _draw(key, low, high)))


@allowed(amount=Bound(0, 0.5))
def hue(amount: float) -> Augment:
    """Turns the hue by up to `amount` either way; 0.5 is half way round, the most possible.

    Raises:
      ValueError: an amount outside 0 to 0.5.
    """
    return each_content(lambda key, image, size: colour.hue(image, _draw(key, -amount, amount)))


@allowed(amount=NOT_NEGATIVE)
def gamma(amount: float) -> Augment:
    """`255 (level / 255) ** g`: g from 1 / (1 + amount) to 1 + amount, sampled uniformly on a logarithmic scale."""
    bound = math.log(_around_one("gamma", amount)[1])
    return each_content(lambda key, image, size: colour.gamma(image, jnp.exp(_draw(key, -bound, bound))))


def greyscale() -> Augment:
    """Gives all channels the grey level of the pixel; wrapped in `sometimes(0.2, ...)`, of a fifth of the images."""
    return each_content(lambda key, image, size: colour.greyscale(image))


@allowed(threshold=FINITE)
def solarize(threshold: float = 128) -> Augment:
    """Inverts levels of `threshold` and above."""
    return each_content(lambda key, image, size: colour.solarize(image, threshold))


@allowed(bits=Bound(1, 8))
def posterize(bits: int = 4) -> Augment:
    """Keeps the `bits` highest bits of every level.

    Raises:
      ValueError: bits outside 1 to 8.
    """
    return each_content(lambda key, image, size: colour.posterize(image, bits))


def autocontrast() -> Augment:
    """Stretches each channel to 0-255."""
    return each_content(lambda key, image, size: colour.autocontrast(image, size))


def equalize() -> Augment:
    """Makes the levels of each channel about equally frequent; those of float images are made whole."""
    return each_content(lambda key, image, size: colour.equalize(image, size))


@allowed(low=NOT_NEGATIVE, high=NOT_NEGATIVE)
def blur(low: float = 0.1, high: float = 2.0) -> Augment:
    """Gaussian blur with a standard deviation sampled uniformly from `low` to `high` pixels.

    Raises:
      ValueError: if these are no range of numbers that are 0 or more.
    """
    if not 0 <= low <= high:
        raise ValueError(f"blur(low={low}, high={high}): allowed is 0 <= low <= high")
    return each_content(lambda key, image, size: filters.gaussian_blur(image, size, _draw(key, low, high)))


@allowed(deviation=NOT_NEGATIVE)
def noise(deviation: float) -> Augment:
    """Adds normal noise of this standard deviation in grey levels, sampled for each pixel and channel.

    Raises:
      ValueError: a negative deviation.
    """

    def one(key: Key, image: Array, size: Array) -> Array:
        levels = as_float(image)
        return as_levels(levels + deviation * jax.random.normal(key, image.shape, levels.dtype), image.dtype)

    return each_content(one)


@allowed(low=Bound(1, 100, whole=True), high=Bound(1, 100, whole=True))
def jpeg(low: int = 30, high: int = 95) -> Augment:
    """What JPEG files of a quality from `low` to `high` (whole numbers, uniformly sampled) lose; colour at full resolution.

    Raises:
      ValueError: if these are no range within 1 to 100.
    """
    if not 1 <= low <= high <= 100:
        raise ValueError(f"jpeg(low={low}, high={high}): allowed is 1 <= low <= high <= 100")
    return each_content(
        lambda key, image, size: ops_jpeg.jpeg(image, size, jax.random.randint(key, (), low, high + 1, jnp.int32))
    )


def each_content(change: Callable[[Key, Array, Array], Array]) -> Augment:
    """`change(key, image, size)` of every image `h w c` with a key of its own; only the content is taken from it."""

    def one(key: Key, image: Array, size: Array) -> Array:
        return jnp.where(inside(size, *image.shape[:2])[..., None], change(key, image, size), image)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        image, size = jnp.asarray(batch.image), jnp.asarray(batch.size)
        return dataclasses.replace(batch, image=jax.vmap(one)(row_keys(key, len(image)), image, size))

    return augment


def _around_one(who: str, amount: float | tuple[float, float]) -> tuple[float, float]:
    low, high = amount if isinstance(amount, tuple) else (0, amount)
    if not 0 <= low <= high:
        raise ValueError(f"{who}(amount={amount}): allowed is 0 or more, or a range of factors, 0 <= low <= high")
    if isinstance(amount, tuple):
        return low, high
    return max(0.0, 1 - amount), 1 + amount


def _draw(key: Key, low: float, high: float) -> Array:
    return jax.random.uniform(key, (), jnp.float32, low, high)

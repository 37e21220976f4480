"""Colours and grey levels of one image `h w c`, 0-255, any type; the result has the same type.

Whole types are rounded to the nearest level, floats are not; all are cut to 0-255. One channel is grey, three are red, green,
blue. What an operation takes from the image as a whole (a mean, a histogram) it takes from its content, the top-left `size`
(height, width); what it makes of the canvas outside is of no meaning.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import FINITE, NOT_NEGATIVE, POSITIVE, Bound, allowed
from jaxvision.ops.pixels import inside

Image = Shaped[Array, "h w c"]
Size = Int[Array, "2"]
Amount = Shaped[Array, ""] | float | int

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def luma(image: Image) -> Float[Array, "h w 1"]:
    """The grey level of each pixel; of an image with one channel, that channel.

    Raises:
      ValueError: for another number of channels than 1 or 3.
    """
    levels = as_float(image)
    if image.shape[-1] == 1:
        return levels
    red, green, blue = _rgb(levels)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[..., None]


def greyscale(image: Image) -> Image:
    """All channels set to the grey level."""
    return as_levels(jnp.broadcast_to(luma(image), image.shape), image.dtype)


@allowed(factor=NOT_NEGATIVE)
def brightness(image: Image, factor: Amount) -> Image:
    """Every level times `factor`; 0 is black."""
    return _blend(image, jnp.zeros((1, 1, 1), as_float(image).dtype), factor)


@allowed(factor=NOT_NEGATIVE)
def contrast(image: Image, size: Size, factor: Amount) -> Image:
    """The distance of every level to the mean grey level of the content, times `factor`; 0 is all grey."""
    grey = luma(image)
    content = inside(size, *image.shape[:2])[..., None]
    mean = jnp.where(content, grey, 0).sum() / jnp.maximum(content.sum(), 1).astype(grey.dtype)
    return _blend(image, mean.reshape(1, 1, 1), factor)


@allowed(factor=NOT_NEGATIVE)
def saturation(image: Image, factor: Amount) -> Image:
    """The distance of every level to the grey level of its pixel, times `factor`; 0 is greyscale."""
    return _blend(image, luma(image), factor)


@allowed(turn=FINITE)
def hue(image: Image, turn: Amount) -> Image:
    """The hue (of hue, saturation, value) turned by `turn`, 1 being all the way round: 1/3 makes red green.

    Grey stays as it is, an image with one channel too.

    Raises:
      ValueError: for another number of channels than 1 or 3.
    """
    if image.shape[-1] == 1:
        return image
    levels = as_float(image)
    red, green, blue = _rgb(levels)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        red >= jnp.maximum(green, blue),
        (green - blue) / safe,
        jnp.where(green >= blue, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    place = sixths + 6 * jnp.asarray(turn, levels.dtype)
    turned = [value - chroma * _dip(start + place) for start in (5, 3, 1)]
    return as_levels(jnp.stack(turned, axis=-1), image.dtype)


@allowed(exponent=POSITIVE)
def gamma(image: Image, exponent: Amount) -> Image:
    """`255 * (level / 255) ** exponent`; below 1 is brighter."""
    levels = as_float(image)
    return as_levels(255 * (levels / 255) ** jnp.asarray(exponent, levels.dtype), image.dtype)


@allowed(threshold=FINITE)
def solarize(image: Image, threshold: Amount) -> Image:
    """Levels of `threshold` and above become 255 minus themselves."""
    levels = as_float(image)
    return as_levels(jnp.where(levels >= threshold, 255 - levels, levels), image.dtype)


@allowed(amount=FINITE)
def solarize_add(image: Image, amount: Amount) -> Image:
    """Levels below 128 plus `amount`."""
    levels = as_float(image)
    return as_levels(jnp.where(levels < 128, levels + jnp.asarray(amount, levels.dtype), levels), image.dtype)


@allowed(amount=FINITE)
def offset(image: Image, amount: Amount) -> Image:
    """Every level plus `amount`."""
    levels = as_float(image)
    return as_levels(levels + jnp.asarray(amount, levels.dtype), image.dtype)


@allowed(bits=Bound(0, 8))
def posterize(image: Image, bits: Amount) -> Image:
    """Only the `bits` highest of the eight bits of every level are kept, the others 0."""
    levels = as_float(image)
    step = jnp.exp2(8 - jnp.asarray(bits, levels.dtype))
    return as_levels(jnp.floor(levels / step) * step, image.dtype)


def autocontrast(image: Image, size: Size) -> Image:
    """Each channel stretched so that its lowest level in the content becomes 0 and its highest 255.

    A channel of one level stays as it is.
    """
    levels = as_float(image)
    content = inside(size, *image.shape[:2])[..., None]
    low = jnp.where(content, levels, jnp.inf).min((0, 1), keepdims=True)
    high = jnp.where(content, levels, -jnp.inf).max((0, 1), keepdims=True)
    varied = high > low
    stretched = (levels - jnp.where(varied, low, 0)) * (255 / jnp.where(varied, high - low, 1))
    return as_levels(jnp.where(varied, stretched, levels), image.dtype)


def equalize(image: Image, size: Size) -> Image:
    """Each channel mapped so that its levels in the content are used about equally often.

    The map is that of PIL's `ImageOps.equalize`, computed from whole levels: those of a float image are rounded first.
    """
    level = jnp.round(jnp.clip(as_float(image), 0, 255)).astype(jnp.int32)
    content = inside(size, *image.shape[:2]).astype(jnp.int32)
    equal = jax.vmap(lambda channel: _equal_map(channel, content)[channel], in_axes=-1, out_axes=-1)(level)
    return as_levels(equal.astype(jnp.float32), image.dtype)


def _equal_map(level: Int[Array, "h w"], content: Int[Array, "h w"]) -> Int[Array, "256"]:
    """Map from level to level: how many pixels are darker, in steps of which the 255 hold all but the brightest level."""
    counts = jnp.zeros(256, jnp.int32).at[level].add(content)
    levels = jnp.arange(256, dtype=jnp.int32)
    brightest = counts[jnp.where(counts > 0, levels, 0).max()]
    step = (counts.sum() - brightest) // 255
    darker = jnp.cumsum(counts) - counts
    return jnp.where(step > 0, jnp.minimum((step // 2 + darker) // jnp.maximum(step, 1), 255), levels)


def _blend(image: Image, plain: Float[Array, "..."], factor: Amount) -> Image:
    """Blend of two images: `plain` at factor 0, `image` at 1, beyond it above."""
    levels = as_float(image)
    return as_levels(plain + jnp.asarray(factor, levels.dtype) * (levels - plain), image.dtype)


def _dip(place: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Dip of a channel: 0 where it is at its highest on the way round of six sixths, 1 where at its lowest."""
    place = place - 6 * jnp.floor(place / 6)  # `mod` is several times slower on CPUs
    return jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


def _rgb(levels: Float[Array, "h w c"]) -> tuple[Array, Array, Array]:
    if levels.shape[-1] != 3:
        raise ValueError(f"an image of {levels.shape[-1]} channels has no colours; allowed are 1 (grey) and 3 (RGB)")
    return levels[..., 0], levels[..., 1], levels[..., 2]

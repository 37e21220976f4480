"""Augmentations that cover or mix: a part erased, two images in one.

Images are mixed with the row before them in the batch (the first with the last), as batches come in random order. Where
the contents differ in size, the other one is stretched to that of the image. An image that is not `valid`, or whose other
is not, stays as it is. Targets are Labels, which get `probs`, the fractions of the classes; `label` becomes that of the
larger fraction.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxvision.augment import targets, window
from jaxvision.augment.colour import each_content
from jaxvision.augment.keys import row_keys
from jaxvision.errors import amount
from jaxvision.ops import homography, resample
from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import COUNT, FRACTION, POSITIVE, allowed
from jaxvision.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, inside
from jaxvision.types import Augment, Batch, Key, Labels, Scalar


@allowed(probability=FRACTION, area=window.AREA, ratio=window.RATIO)
def random_erasing(
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    fill: Literal["noise", "normal"] | float = "noise",
) -> Augment:
    """Fills a rectangle of the content, each image with this probability (arXiv:1708.04896).

    Its fraction of the area is sampled from `area`, its aspect ratio (width by height) from `ratio`. It is filled with
    uniform noise, a whole level for each pixel and channel, with "normal" noise of ImageNet's mean and standard deviation
    (cut to 0-255; timm's `pixel`), or with one grey level. Targets do not change.

    Raises:
      ValueError: a probability outside 0 to 1, ranges that are none, a fill that is neither a noise nor 0-255; in use,
        "normal" for images without three channels.
    """
    if fill not in ("noise", "normal") and (isinstance(fill, str) or not 0 <= fill <= 255):
        raise ValueError(f"random_erasing(fill={fill!r}): allowed is 'noise', 'normal' or a grey level, 0 to 255")

    def one(key: Key, image: Array, size: Array) -> Array:
        for_choice, for_window, for_fill = jax.random.split(key, 3)
        hole = window.draw(for_window, size, area, ratio)
        covered = window.holds(hole, *image.shape[:2]) & hole.fits & jax.random.bernoulli(for_choice, probability)
        if fill == "noise":
            return jnp.where(covered[..., None], _even_noise(for_fill, image.shape).astype(image.dtype), image)
        if fill == "normal":
            return jnp.where(covered[..., None], _normal_noise(for_fill, image), image)
        level = as_levels(jnp.full((), fill, as_float(image).dtype), image.dtype)
        return jnp.where(covered[..., None], level, image)

    return each_content(one)


def _even_noise(key: Key, shape: tuple[int, ...]) -> UInt8[Array, "h w c"]:
    """Uniform random levels 0-255; the channels of a pixel are the bytes of the same random words."""
    *place, channels = shape
    words = jax.random.bits(key, (*place, -(-channels // 4)), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*place, -1)[..., :channels]


def _normal_noise(key: Key, image: Array) -> Array:
    """Normal noise that becomes standard normal where pixels are normalised by ImageNet's mean and deviation."""
    if image.shape[-1] != len(IMAGENET_MEAN):
        raise ValueError(f"random_erasing(fill='normal'): the image has {image.shape[-1]} channels; allowed are 3")
    noise = jax.random.normal(key, image.shape, as_float(image).dtype)
    mean, std = (jnp.asarray(each, noise.dtype)[None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    return as_levels(mean + std * noise, image.dtype)


@allowed(alpha=POSITIVE, classes=COUNT)
def mixup(alpha: float, classes: int) -> Augment:
    """`fraction * image + (1 - fraction) * other`, of pixels and of classes (arXiv:1710.09412).

    Args:
      alpha: the fraction is sampled from Beta(alpha, alpha), for each image.
      classes: how many there are; the length of `probs`.

    Raises:
      ValueError: an alpha of 0 or less; `probs` of another number of classes.
      TypeError: a target other than Labels, or extra input in `given`.
    """

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        paired = _paired(batch)
        fraction = jnp.where(paired, _fractions(key, alpha, batch), 1)
        levels = as_float(batch.image)
        parts = fraction[:, None, None, None].astype(levels.dtype)
        mixed = as_levels(parts * levels + (1 - parts) * as_float(_other(batch)), batch.image.dtype)
        image = jnp.where((_contents(batch) & paired[:, None, None])[..., None], mixed, batch.image)
        return dataclasses.replace(batch, image=image, target=_mixed("mixup", batch, fraction, classes))

    return augment


@allowed(alpha=POSITIVE, classes=COUNT)
def cutmix(alpha: float, classes: int) -> Augment:
    """A rectangle of the other image in its place; classes in proportion to the area (arXiv:1905.04899).

    Args:
      alpha: the fraction of the image is sampled from Beta(alpha, alpha), for each image. The rectangle has the proportions
        of the content, its centre lies anywhere in it, and what sticks out of the content is cut off; the fractions are those
        of the pixels that are then shown.
      classes: how many there are; the length of `probs`.

    Raises:
      ValueError: an alpha of 0 or less; `probs` of another number of classes.
      TypeError: a target other than Labels, or extra input in `given`.
    """

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        for_fraction, for_centre = jax.random.split(key)
        side = jnp.sqrt(1 - _fractions(for_fraction, alpha, batch))
        centres = jax.vmap(lambda k: jax.random.uniform(k, (2,), jnp.float32))(row_keys(for_centre, len(batch.image)))
        canvas = batch.image.shape[1:3]
        holes = jax.vmap(lambda *each: window.holds(_rectangle(*each), *canvas))(side, centres, jnp.asarray(batch.size))
        holes = holes & _contents(batch) & _paired(batch)[:, None, None]
        shown = 1 - holes.sum((1, 2)) / jnp.maximum(_contents(batch).sum((1, 2)), 1)
        image = jnp.where(holes[..., None], _other(batch), batch.image)
        return dataclasses.replace(batch, image=image, target=_mixed("cutmix", batch, shown, classes))

    return augment


def _fractions(key: Key, alpha: float, batch: Batch) -> Float[Array, "b"]:
    draw = lambda k: jax.random.beta(k, alpha, alpha, dtype=jnp.float32)
    return jax.vmap(draw)(row_keys(key, len(batch.image)))


def _paired(batch: Batch) -> Array:
    valid = jnp.asarray(batch.valid)
    return valid & jnp.roll(valid, 1)


def _contents(batch: Batch) -> Array:
    return jax.vmap(inside, (0, None, None))(jnp.asarray(batch.size), *batch.image.shape[1:3])


def _other(batch: Batch) -> Array:
    """The image of the row before, its content stretched to that of this row; exactly itself if they are of one size."""
    image, size = jnp.asarray(batch.image), jnp.asarray(batch.size)

    def stretched(image: Array, size: Array, wanted: Array) -> Array:
        scale = size.astype(jnp.float32) / jnp.maximum(wanted, 1).astype(jnp.float32)
        return resample.stretch(image, size, homography.zoom(scale[1], scale[0]))

    return jax.vmap(stretched)(jnp.roll(image, 1, 0), jnp.roll(size, 1, 0), size)


def _rectangle(side: Array, centre: Array, size: Array) -> window.Window:
    """`side` times the content's height and width, about a centre in fractions of it, cut to the content."""
    extent = size.astype(jnp.float32)
    low = jnp.round((centre - side / 2) * extent).astype(jnp.int32)
    high = low + jnp.round(side * extent).astype(jnp.int32)
    height, width = high - low
    return window.Window(low[0], low[1], height, width, jnp.asarray(True))


def _mixed(who: str, batch: Batch, fraction: Float[Array, "b"], classes: int) -> Labels:
    """The labels mixed by these fractions; with weights, that of an image is the mean of both, and classes count by theirs.

    Then the cross-entropy is the mixture of what the two labels, each with its weight, would have. A label that is no
    class makes `probs` NaN, so that the loss can tell; one of weight 0 is none, nor is
    that of an image that is not valid.
    """
    targets.check_image_level(batch, who, "mix")
    if batch.target is None:
        raise TypeError(f"{who} needs batch.target to be Labels, got None")
    label, probs, weight = batch.target.label, batch.target.probs, batch.target.weight
    label = jnp.asarray(label)
    if probs is None:
        probs = jax.nn.one_hot(label, classes, dtype=jnp.float32)
        probs = jnp.where(((label >= 0) & (label < classes))[:, None], probs, jnp.nan)
    if probs.shape[-1] != classes:
        raise ValueError(f"{who}(classes={classes}): batch.target.probs has {amount(probs.shape[-1], 'class')}")
    fraction = fraction.astype(probs.dtype)
    given = jnp.ones_like(fraction) if weight is None else jnp.asarray(weight).astype(probs.dtype)
    given = jnp.where(jnp.asarray(batch.valid), given, 0)
    weights, other_weights = fraction * given, (1 - fraction) * jnp.roll(given, 1)
    total = weights + other_weights
    part = lambda amount, of: jnp.where((amount > 0)[:, None], amount[:, None] * of, 0)
    mixed = part(weights, probs) + part(other_weights, jnp.roll(probs, 1, 0))
    mixed = mixed / jnp.where(total > 0, total, 1)[:, None]
    larger = jnp.where(weights >= other_weights, label, jnp.roll(label, 1))
    return dataclasses.replace(batch.target, label=larger, probs=mixed, weight=None if weight is None else total)

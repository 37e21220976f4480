"""Augmentations that sample operations from a fixed list of fourteen, for each image on its own.

Identity, rotation, shear and shift along x and y, brightness, saturation, contrast, sharpness, posterize, solarize,
autocontrast, equalize; timm's RandAugment has inversion and a solarize that brightens beside them. A strength from 0 to 1
says how far the first ten go towards the ends of a `Space`; motions and the four that have a factor go either way with the
same probability. Motions are about the centre of the content.
"""

import dataclasses
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.augment import targets
from jaxvision.augment.keys import row_keys
from jaxvision.augment.rows import each_row
from jaxvision.augment.warp import accompanied
from jaxvision.ops import colour, filters, homography, resample
from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, WHOLE, Bound, allowed
from jaxvision.ops.pixels import inside
from jaxvision.ops.resample import Fill
from jaxvision.types import Augment, Batch, Key, Scalar

OPERATIONS = (
    *("identity", "rotation", "shear_x", "shear_y", "shift_x", "shift_y"),
    *("autocontrast", "equalize", "posterize", "solarize", "brightness", "saturation", "contrast", "sharpness"),
)
EVERY_OPERATION = (*OPERATIONS, "invert", "solarize_add")
"""The fourteen, and the two that timm has beside them."""
STEPS = 30
"""Steps into which strengths are divided."""
TIMM_STEPS = 10
"""Steps into which timm divides them, as the code of EfficientNet does."""


class Space(NamedTuple):
    """Operations at strength 1."""

    rotation: float
    """Rotation in degrees."""
    shear: float
    """Shear in pixels per pixel."""
    shift: float
    """Shift as a fraction of the width or height if below 1, else in pixels."""
    factor: float
    """Factors are 1 - factor or 1 + factor."""
    bits: Callable[[Array], Array]
    """Bits that posterize keeps, of 8, by the strength."""


USUAL = Space(30, 0.3, 150 / 331, 0.9, bits=lambda strength: 8 - jnp.round(4 * strength))
"""Space of AutoAugment (arXiv:1805.09501, table 6), and so of RandAugment."""
WIDE = Space(135, 0.99, 32, 0.99, bits=lambda strength: 8 - jnp.round(6 * strength))
"""Space of TrivialAugment (arXiv:2103.10158, table 2)."""
TIMM = Space(30, 0.3, 0.45, 0.9, bits=lambda strength: 4 - jnp.floor(4 * strength))
"""Space of timm's RandAugment whose operations grow with the strength (`inc1`)."""


@allowed(number=WHOLE, magnitude=Bound(0, STEPS))
def randaugment(number: int = 2, magnitude: float = 9, fill: Fill = "constant") -> Augment:
    """`number` operations one after the other, each sampled uniformly from the fourteen (arXiv:1909.13719).

    Args:
      number: how many operations.
      magnitude: strength, 0 to 30, where 30 reaches `USUAL`; torchvision's scale. 9 of timm or EfficientNet is 27 here.
      fill: what comes in from outside the image; see `warp.affine`.

    Raises:
      ValueError: fewer than 0 operations, a magnitude outside 0 to 30, an unknown fill; in use, masks that were cut out
        at their boxes.
      TypeError: in use, a target that cannot be moved.
    """
    resample.check(fill, "nearest")

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        for each in jax.random.split(key, number):
            kind, sign = _sampled(each, len(batch.image), len(OPERATIONS))
            batch = applied(batch, kind, sign * (magnitude / STEPS), USUAL, fill, "randaugment")
        return batch

    return augment


@allowed(number=WHOLE, magnitude=Bound(0, TIMM_STEPS), deviation=NOT_NEGATIVE, probability=FRACTION)
def randaugment_timm(
    number: int = 2, magnitude: float = 9, deviation: float = 0.5, probability: float = 0.5, fill: Fill = 116
) -> Augment:
    """RandAugment as timm and DeiT have it, `rand-m9-mstd0.5-inc1` (arXiv:2012.12877, table 9).

    `number` operations one after the other, each applied with this probability, and sampled uniformly from fifteen: the
    thirteen that change something, inversion, and `ops.colour.solarize_add`. What moves is bilinear, where timm's is bicubic,
    and a shear keeps the centre, where timm's keeps the corner.

    Args:
      number: how many operations.
      magnitude: mean of the strength, 0 to 10, where 10 reaches `TIMM`.
      deviation: standard deviation of the strength, which is normal, cut to 0 to 10, and sampled for each operation.
      probability: that of each operation.
      fill: what comes in from outside the image, see `warp.affine`; timm has ImageNet's mean colour, here a grey.

    Raises:
      ValueError: fewer than 0 operations, a magnitude outside 0 to 10, a negative deviation, a probability outside 0 to 1,
        an unknown fill; in use, masks that were cut out at their boxes.
      TypeError: in use, a target that cannot be moved.
    """
    resample.check(fill, "nearest")

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        rows = len(batch.image)
        for each in jax.random.split(key, number):
            for_kind, for_strength, for_choice = jax.random.split(each, 3)
            kind, sign = _sampled(for_kind, rows, len(EVERY_OPERATION) - 1)
            chosen = jax.vmap(lambda k: jax.random.bernoulli(k, probability))(row_keys(for_choice, rows))
            noise = jax.vmap(lambda k: jax.random.normal(k, (), jnp.float32))(row_keys(for_strength, rows))
            strength = jnp.clip(magnitude + deviation * noise, 0, TIMM_STEPS) / TIMM_STEPS
            kind = jnp.where(chosen, kind + 1, OPERATIONS.index("identity"))
            batch = applied(batch, kind, sign * strength, TIMM, fill, "randaugment_timm")
        return batch

    return augment


def trivialaugment(fill: Fill = "constant") -> Augment:
    """One operation, sampled uniformly from the fourteen, its strength uniformly from 0/30 to 30/30 (arXiv:2103.10158).

    The space of strengths is that paper's wide one, `WIDE`. `fill` is what comes in from outside the image; see
    `warp.affine`.

    Raises:
      ValueError: an unknown fill; in use, masks that were cut out at their boxes.
      TypeError: in use, a target that cannot be moved.
    """
    resample.check(fill, "nearest")

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        for_kind, for_strength = jax.random.split(key)
        kind, sign = _sampled(for_kind, len(batch.image), len(OPERATIONS))
        keys = row_keys(for_strength, len(batch.image))
        steps = jax.vmap(lambda k: jax.random.randint(k, (), 0, STEPS + 1, jnp.int32))(keys)
        return applied(batch, kind, sign * steps.astype(jnp.float32) / STEPS, WIDE, fill, "trivialaugment")

    return augment


@allowed(severity=Bound(0.1, 10), width=COUNT, depth=COUNT, alpha=POSITIVE)
def augmix(severity: float = 3, width: int = 3, depth: int = 3, alpha: float = 1.0, fill: Fill = "constant") -> Augment:
    """The image mixed with a mixture of `width` chains of operations (arXiv:1912.02781).

    A chain has 1 to `depth` operations, sampled from the nine that neither do nothing nor have a factor (those are among the
    corruptions that the paper tests on), each of a strength sampled uniformly from 0.01 to severity / 10. The chains have
    weights sampled from Dirichlet(alpha), the image itself one from Beta(alpha, alpha). For image-level targets only: things
    are in several places at once. The consistency loss of the paper is not part of it.

    Raises:
      ValueError: a severity outside 0.1 to 10, a width or depth below 1, an alpha of 0 or less, an unknown fill.
      TypeError: in use, a target other than Labels or None, or extra input in `given`.
    """
    resample.check(fill, "nearest")

    def one(key: Key, image: Array, size: Array) -> Array:
        for_chains, for_weights, for_image = jax.random.split(key, 3)
        keys = jax.random.split(for_chains, width)
        chains = each_row(lambda key: _chain(key, image, size, severity, depth, fill), keys)
        levels = as_float(image)
        chain_weights = jax.random.dirichlet(for_weights, jnp.full(width, alpha, jnp.float32), dtype=jnp.float32)
        image_weight = jax.random.beta(for_image, alpha, alpha, dtype=jnp.float32).astype(levels.dtype)
        weighted = zip(chain_weights.astype(levels.dtype), as_float(chains), strict=True)
        mixture = reduce(jnp.add, (weight * chain for weight, chain in weighted))  # XLA on CPU takes longer for `sum`
        mixed = as_levels((1 - image_weight) * levels + image_weight * mixture, image.dtype)
        return jnp.where(inside(size, *image.shape[:2])[..., None], mixed, image)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        targets.check_image_level(batch, "augmix", "change")
        image, size = jnp.asarray(batch.image), jnp.asarray(batch.size)
        return dataclasses.replace(batch, image=each_row(one, row_keys(key, len(image)), image, size))

    return augment


def _chain(key: Key, image: Array, size: Array, severity: float, depth: int, fill: Fill) -> Array:
    """1 to `depth` operations one after the other."""
    for_length, key = jax.random.split(key)
    length = jax.random.randint(for_length, (), 1, depth + 1, jnp.int32)

    def link(position: Array, image: Array) -> Array:
        for_kind, for_sign, for_strength = jax.random.split(jax.random.fold_in(key, position), 3)
        kind = jax.random.randint(for_kind, (), 1, OPERATIONS.index("solarize") + 1, jnp.int32)
        sign = jax.random.rademacher(for_sign, (), jnp.float32)
        strength = jax.random.uniform(for_strength, (), jnp.float32, 0.01, severity / 10)
        kind = jnp.where(position < length, kind, OPERATIONS.index("identity"))
        return _changed(kind, sign * strength, image, size, USUAL, fill)

    return jax.lax.fori_loop(0, depth, link, image)


def _sampled(key: Key, rows: int, operations: int) -> tuple[Int[Array, "b"], Float[Array, "b"]]:
    """The number of a random operation for each row, and its sign, -1 or 1."""

    def one(key: Key) -> tuple[Array, Array]:
        for_kind, for_sign = jax.random.split(key)
        kind = jax.random.randint(for_kind, (), 0, operations, jnp.int32)
        return kind, jax.random.rademacher(for_sign, (), jnp.float32)

    return jax.vmap(one)(row_keys(key, rows))


def applied(
    batch: Batch, kind: Int[Array, "b"], strength: Float[Array, "b"], space: Space, fill: Fill, who: str
) -> Batch:
    """The batch after one operation for each image, a number of `EVERY_OPERATION`, of a strength from -1 to 1."""
    targets.check_upright(batch, who)
    image, size = jnp.asarray(batch.image), jnp.asarray(batch.size)

    def one(kind: Array, strength: Array, image: Array, size: Array) -> Array:
        changed = _changed(kind, strength, image, size, space, fill)
        return jnp.where(inside(size, *image.shape[:2])[..., None], changed, image)

    image = each_row(one, kind, strength, image, size)
    matrices = jax.vmap(lambda k, s, hw: _matrix(k, s, hw, space))(kind, strength, size)
    return accompanied(batch, image, matrices, who)


def _matrix(kind: Array, strength: Array, size: Array, space: Space) -> Float[Array, "3 3"]:
    """Matrix by which the operation moves the image; not at all if it is not one of the motions."""

    def amount(name: str, full: Array | float) -> Array:
        return jnp.where(kind == OPERATIONS.index(name), strength * full, 0)

    reach = size.astype(jnp.float32) * space.shift if space.shift < 1 else jnp.full(2, space.shift, jnp.float32)
    move = homography.product(
        homography.shift(amount("shift_x", reach[1]), amount("shift_y", reach[0])),
        homography.shear(amount("shear_x", space.shear), amount("shear_y", space.shear)),
        homography.rotation(amount("rotation", space.rotation)),
    )
    return homography.about_centre(move, size)


def _changed(kind: Array, strength: Array, image: Array, size: Array, space: Space, fill: Fill) -> Array:
    """The image after the operation; what it makes of the canvas outside the content is of no meaning."""
    factor = 1 + strength * space.factor
    bits = space.bits(jnp.abs(strength))
    source = homography.inverse(_matrix(kind, strength, size, space))
    branches = [
        lambda image: image,
        lambda image: resample.warp(image, size, source, fill, "bilinear"),
        lambda image: colour.autocontrast(image, size),
        lambda image: colour.equalize(image, size),
        lambda image: colour.posterize(image, bits),
        lambda image: colour.solarize(image, 256 * (1 - jnp.abs(strength))),
        lambda image: colour.brightness(image, factor),
        lambda image: colour.saturation(image, factor),
        lambda image: colour.contrast(image, size, factor),
        lambda image: filters.sharpness(image, size, factor),
        lambda image: colour.solarize(image, 0),
        lambda image: colour.solarize_add(image, jnp.floor(110 * jnp.abs(strength))),
    ]
    motions = OPERATIONS.index("shift_y") - OPERATIONS.index("rotation")
    branch = jnp.where(kind > motions, kind - motions, jnp.minimum(kind, 1))
    return jax.lax.switch(branch, branches, image)

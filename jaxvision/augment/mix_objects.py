"""Two images, with the objects of both, in one (arXiv:1902.04103)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxvision.augment import assemble, targets
from jaxvision.augment.keys import row_keys
from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import FRACTION, POSITIVE, WHOLE, allowed
from jaxvision.ops.pixels import inside
from jaxvision.types import Augment, Batch, Key, Labels, Objects, Scalar, SegmentationMap


@allowed(alpha=POSITIVE._replace(infinite=True), probability=FRACTION, close=WHOLE._replace(none=True))
def mixup_objects(alpha: float = 1.5, probability: float = 1.0, close: int | None = None) -> Augment:
    """Mixup for detectors: `fraction * image + (1 - fraction) * other`, with the objects of both, weighted alike.

    For whole images with Labels there is `mixup`. The other image is the row before in the batch. Neither is stretched:
    both lie in the top-left corner, `size` is that of the larger in each direction, and where only one of them is, it is
    mixed with black. An image that is not `valid`, or whose other is not, stays as it is, and so does a batch of one.

    `Objects.weight` becomes the weight that an object had (1 if none) times the fraction of its image. There are as many rows
    as before: **of more objects the largest stay**, those to ignore go first, and nothing can tell that on the device, so
    let there be rows for two images. Valid rows come first, largest first. `sometimes` can't be used where there were no
    weights before: hence `probability`.

    Args:
      alpha: the fraction is sampled from Beta(alpha, alpha), for each image; `math.inf`: half of each.
      probability: that of each image to be mixed.
      close: from this step on no image is mixed any more (closing epochs); None: never.

    Raises:
      ValueError: an alpha of 0 or less, a probability outside 0 to 1, a step below 0; masks of another size than the canvas.
      TypeError: a target other than None, Objects or a dict of Objects.
    """

    def draw(key: Key) -> tuple[Array, Array]:
        for_choice, for_fraction = jax.random.split(key)
        fraction = 0.5 if math.isinf(alpha) else jax.random.beta(for_fraction, alpha, alpha, dtype=jnp.float32)
        return jax.random.bernoulli(for_choice, probability), jnp.asarray(fraction, jnp.float32)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        assemble.check_no_labels(batch, "mixup_objects", (Labels, SegmentationMap))
        batch = jax.tree.map(jnp.asarray, batch)
        chosen, fraction = jax.vmap(draw)(row_keys(key, len(batch.image)))
        chosen = chosen & batch.valid & jnp.roll(batch.valid, 1) & (len(batch.valid) > 1)
        if close is not None:
            chosen = chosen & (step < close)
        weighted = targets.Motion(_with_weights, lambda map: map)
        batch = targets.move(batch, batch.image, weighted, "mixup_objects")
        return assemble.selected(chosen, _mixed(batch, fraction), batch)

    return augment


def _mixed(batch: Batch, fraction: Float[Array, "b"]) -> Batch:
    size = jnp.maximum(batch.size, jnp.roll(batch.size, 1, 0))
    rows = jnp.arange(len(fraction))
    parts = jax.vmap(_parts)(rows, jnp.roll(rows, 1), batch.size, jnp.roll(batch.size, 1, 0))
    motion = targets.Motion(lambda objects: _weighted(objects, parts, fraction), lambda map: map)
    mixed = targets.move(batch, _pixels(batch, size, fraction), motion, "mixup_objects")
    return dataclasses.replace(mixed, size=size)


def _parts(row: Array, other: Array, size: Array, of_other: Array) -> assemble.Parts:
    """Parts that show the whole contents of two rows."""
    high = jnp.stack([size, of_other])[:, ::-1].astype(jnp.int32)
    nothing = jnp.zeros((2, 2), jnp.int32)
    return assemble.Parts(jnp.stack([row, other]), nothing, jnp.concatenate([nothing, high], 1))


def _pixels(batch: Batch, size: Array, fraction: Float[Array, "b"]) -> Shaped[Array, "b h w c"]:
    contents = jax.vmap(inside, (0, None, None))
    levels = as_float(batch.image)
    content = jnp.where(contents(batch.size, *levels.shape[1:3])[..., None], levels, 0)
    part = fraction[:, None, None, None].astype(levels.dtype)
    mixed = as_levels(part * content + (1 - part) * jnp.roll(content, 1, 0), batch.image.dtype)
    return jnp.where(contents(size, *levels.shape[1:3])[..., None], mixed, batch.image)


def _weighted(objects: Objects, parts: assemble.Parts, fraction: Float[Array, "b"]) -> Objects:
    kept, part = jax.vmap(lambda parts: assemble.objects_of(objects, parts))(parts)
    fractions = jnp.where(part == 0, fraction[:, None], 1 - fraction[:, None])
    weight = jax.tree.map(lambda each: each * fractions.astype(each.dtype), kept.weight)
    return dataclasses.replace(kept, weight=weight)


def _with_weights(objects: Objects) -> Objects:
    if objects.weight is not None:
        return objects
    return dataclasses.replace(objects, weight=jnp.ones_like(objects.boxes[..., 0]))

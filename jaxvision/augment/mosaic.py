"""Four images in one (arXiv:2004.10934)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxvision.augment import assemble, targets
from jaxvision.augment.keys import row_keys
from jaxvision.ops.levels import as_levels
from jaxvision.ops.options import LEVEL, WHOLE, allowed
from jaxvision.types import Augment, Batch, Key, Scalar

MARGIN = 0.2
"""Least distance of the point where the four meet from the sides, as a fraction of the canvas, as in YOLOv4."""


@allowed(close=WHOLE._replace(none=True), fill=LEVEL)
def mosaic(close: int | None = None, fill: float = 114) -> Augment:
    """Each image around a random point with three others of the batch, which meet there with a corner of each.

    The point lies anywhere in the middle of the canvas, 0.2 to 0.8 of its height and width. Of each image as much is shown
    as there is place in its corner, at its own scale: `chain(scale_jitter((0.5, 1.5)), mosaic())` gives each its
    own. The whole canvas is content then. The others come in a random order; in a batch of fewer than four valid images some
    are shown more than once. An image that is not `valid` is shown in none and stays as it is.

    Objects are cut where their image is. What is left of a cut one is no longer `valid` if below 2 pixels in height or
    width, or a tenth of its area. There are as many rows as before: **of more objects the largest stay**, those to ignore
    go first, and nothing can tell that on the device, so let there be rows for four images. Valid rows come first, largest
    first. Maps are not `valid` between the images.

    Args:
      close: from this step on nothing is changed any more (closing epochs); None: never.
      fill: grey level where there is no image, 0-255.

    Raises:
      ValueError: a step below 0, a fill that is no level; masks or maps of another size than the canvas.
      TypeError: a target that has Labels, or cannot be moved.
    """

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        assemble.check_no_labels(batch, "mosaic")
        batch = jax.tree.map(jnp.asarray, batch)
        if close is None:
            return _assembled(key, batch, fill)
        return jax.lax.cond(step < close, lambda batch: _assembled(key, batch, fill), lambda batch: batch, batch)

    return augment


def _assembled(key: Key, batch: Batch, fill: float) -> Batch:
    for_others, for_points = jax.random.split(key)
    rows = four(for_others, batch.valid)
    canvas = batch.image.shape[1:3]
    points = jax.vmap(lambda key: _point(key, canvas))(row_keys(for_points, len(rows)))
    parts = jax.vmap(lambda rows, point: _parts(rows, point, batch.size[rows], canvas))(rows, points)
    level = as_levels(jnp.full(batch.image.shape[3:], fill, jnp.float32), batch.image.dtype)
    image = jax.vmap(lambda parts: assemble.pixels(batch.image, parts, level))(parts)
    motion = targets.Motion(
        lambda objects: jax.vmap(lambda parts: assemble.objects_of(objects, parts)[0])(parts),
        lambda map: jax.vmap(lambda parts: assemble.map_of(map, parts))(parts),
    )
    size = jnp.tile(jnp.asarray(canvas, batch.size.dtype)[None], (len(rows), 1))
    made = dataclasses.replace(targets.move(batch, image, motion, "mosaic"), size=size)
    return assemble.selected(batch.valid, made, batch)


def four(key: Key, valid: Array) -> Int[Array, "b 4"]:
    """Rows of the four images of each mosaic: itself and the three valid rows that follow it in a random cyclic order."""
    lots = jax.random.uniform(key, valid.shape, jnp.float32)
    order = jnp.argsort(jnp.where(valid, lots, 2))
    position = jnp.argsort(order)
    after = position[:, None] + jnp.arange(4)[None, :]
    return order[after % jnp.maximum(valid.sum(), 1)]


def _point(key: Key, canvas: tuple[int, ...]) -> Int[Array, "2"]:
    """The point where the four meet, y and x."""
    place = jax.random.uniform(key, (2,), jnp.float32, MARGIN, 1 - MARGIN)
    return jnp.round(place * jnp.asarray(canvas, jnp.float32)).astype(jnp.int32)


def _parts(rows: Int[Array, "4"], point: Int[Array, "2"], size: Int[Array, "4 2"], canvas: tuple[int, ...]):
    """Parts at the top left, top right, bottom left and bottom right of the point."""
    before = jnp.asarray([[True, True], [True, False], [False, True], [False, False]])
    extent, point = size.astype(jnp.int32), point[None, :]
    start = jnp.where(before, point - extent, point)
    low = jnp.maximum(start, 0)
    high = jnp.minimum(start + extent, jnp.asarray(canvas, jnp.int32)[None, :])
    return assemble.Parts(rows, start, jnp.concatenate([low[:, ::-1], high[:, ::-1]], 1))

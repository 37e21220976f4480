"""Crops that look at the objects in the image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.augment import targets
from jaxvision.augment.keys import row_keys
from jaxvision.augment.warp import warped
from jaxvision.ops import homography, resample
from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.options import COUNT, FRACTION, allowed
from jaxvision.types import Augment, Batch, Key, Objects, Scalar

MIN_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Least IoUs of SSD; 0 asks for the centre of an object only."""
SIDES = (0.3, 1.0)
RATIO = (0.5, 2.0)


@allowed(min_ious=FRACTION, trials=COUNT)
def iou_crop(min_ious: Sequence[float] = MIN_IOUS, trials: int = 40) -> Augment:
    """SSD's crop: a random window that shows enough of an object, stretched to the content (arXiv:1512.02325, 2.2).

    Either the whole image, or a window whose IoU with some object is at least one of `min_ious`: all of these choices with
    the same probability, among those for which one of `trials` random windows will do; of these it is the first. The sides
    of a window are each 0.3 to 1 times those of the content, uniformly sampled, its width by height 1/2 to 2, and it holds
    the centre of the object. Objects whose centre lies in the window stay, cut at its border; the others are no longer
    `valid`, but for those to ignore, of which any part counts. An image without objects, those to ignore aside, stays whole.

    Args:
      min_ious: the IoUs to choose from beside the whole image.
      trials: random windows for each.

    Raises:
      ValueError: IoUs that are none, fewer than one trial; masks or maps of another size than the canvas.
      TypeError: a target that has no Objects (None, for images without any, is one that has), or cannot be moved.
    """

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        boxes, real = _leading(batch)
        least, keys = jnp.asarray(min_ious, jnp.float32), row_keys(key, len(batch.image))
        draw = jax.vmap(lambda key, size, boxes, real: _chosen(key, size, boxes, real, least, trials))
        corners = draw(keys, jnp.asarray(batch.size), boxes, real)
        kept = targets.Motion(lambda objects: _centred(objects, corners), lambda map: map)
        batch = targets.move(batch, batch.image, kept, "iou_crop")
        matrices = jax.vmap(_onto_content)(corners, jnp.asarray(batch.size))
        return warped(batch, matrices, "iou_crop", "nearest", "bilinear", resample.stretch)

    return augment


def _leading(batch: Batch) -> tuple[Float[Array, "b n 4"], Bool[Array, "b n"]]:
    """The boxes of the target that a crop is chosen by, and which of them are valid."""
    if batch.target is None:
        return jnp.zeros((len(batch.image), 1, 4), jnp.float32), jnp.zeros((len(batch.image), 1), bool)
    found = _objects_in(batch.target)
    if not found:
        raise TypeError(f"iou_crop needs Objects in batch.target, got {type(batch.target).__name__}")
    boxes = jnp.concatenate([jnp.asarray(each.boxes, jnp.float32) for each in found], 1)
    return boxes, jnp.concatenate([jnp.asarray(each.valid) & ~jnp.asarray(each.ignore) for each in found], 1)


def _objects_in(target: Any) -> list[Objects]:
    if isinstance(target, Mapping):
        return [objects for each in target.values() for objects in _objects_in(each)]
    return [target] if isinstance(target, Objects) else []


def _chosen(
    key: Key, size: Int[Array, "2"], boxes: Array, real: Bool[Array, "n"], least: Float[Array, "k"], trials: int
) -> Float[Array, "4"]:
    """The window, x0 y0 x1 y1 in whole pixels."""
    for_windows, for_choice = jax.random.split(key)
    windows = _windows(for_windows, size, len(least) * trials)
    whole = jnp.concatenate([jnp.zeros(2, jnp.float32), size[::-1].astype(jnp.float32)])
    shows = _holds_centre(windows[:, None], boxes[None]) & real[None]
    best = jnp.where(shows, pairwise(iou, windows, boxes), -1).max(1)
    wide, high = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    shaped = (wide >= RATIO[0] * high) & (wide <= RATIO[1] * high) & (wide > 0)
    good = (shaped & (best >= jnp.repeat(least, trials))).reshape(-1, trials)
    first = windows.reshape(-1, trials, 4)[jnp.arange(len(least)), good.argmax(1)]
    options = jnp.concatenate([whole[None], first])
    found = jnp.concatenate([jnp.ones(1, bool), good.any(1)])
    lots = jax.random.uniform(for_choice, found.shape, jnp.float32)
    return options[jnp.where(found, lots, -1).argmax()]


def _windows(key: Key, size: Int[Array, "2"], count: int) -> Float[Array, "m 4"]:
    """Windows of whole pixels, anywhere in the content with the same probability."""
    sides, places = jax.random.uniform(key, (2, count, 2), jnp.float32)
    full = size[::-1].astype(jnp.float32)[None, :]
    extent = jnp.floor(full * (SIDES[0] + (SIDES[1] - SIDES[0]) * sides))
    start = jnp.floor((full - extent + 1) * places)
    start = jnp.minimum(start, full - extent)
    return jnp.concatenate([start, start + extent], 1)


def _holds_centre(windows: Float[Array, "*#b 4"], boxes: Float[Array, "*#b 4"]) -> Bool[Array, "*#b"]:
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    return ((windows[..., :2] < centre) & (centre < windows[..., 2:])).all(-1)


def _centred(objects: Objects, windows: Float[Array, "b 4"]) -> Objects:
    inside = _holds_centre(windows[:, None].astype(objects.boxes.dtype), jnp.asarray(objects.boxes))
    return dataclasses.replace(objects, valid=jnp.asarray(objects.valid) & (inside | jnp.asarray(objects.ignore)))


def _onto_content(corners: Float[Array, "4"], size: Int[Array, "2"]) -> Float[Array, "3 3"]:
    x0, y0, x1, y1 = corners
    full = size.astype(jnp.float32)
    grow = homography.zoom(full[1] / jnp.maximum(x1 - x0, 1), full[0] / jnp.maximum(y1 - y0, 1))
    return homography.product(grow, homography.shift(-x0, -y0))

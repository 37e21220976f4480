"""Augmentations that move pixels by whole steps: exact gathers, so that uint8 stays uint8.

The content of an image is its top-left `batch.size` (height, width); it is moved within itself, and the canvas around it
stays untouched.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

from jaxvision.augment import cut_masks, targets
from jaxvision.augment.keys import row_keys
from jaxvision.ops.options import FRACTION, WHOLE, Bound, allowed
from jaxvision.types import Augment, Batch, CutMasks, Key, Objects, Scalar, SegmentationMap


@allowed(probability=FRACTION)
def flip(probability: float = 0.5) -> Augment:
    """Mirrors left and right, each image with this probability.

    `target` and `given` move along: the boxes and masks of Objects and the pixels of a SegmentationMap are mirrored
    within the width w of the content (x0 becomes w - x1), Labels and None stay, a dict is entered. Class labels and
    attributes keep their value: where left and right differ in meaning, do not flip.

    Raises:
      ValueError: a probability outside 0 to 1; masks or maps of another size than the canvas.
      TypeError: a target of another type, which could not be moved with its image.
    """
    return _flip(probability, axis=1, who="flip")


@allowed(probability=FRACTION)
def vertical_flip(probability: float = 0.5) -> Augment:
    """Mirrors top and bottom, each image with this probability; in all else as `flip`."""
    return _flip(probability, axis=0, who="vertical_flip")


@allowed(padding=WHOLE, fill=Bound(0, 255, whole=True))
def pad_and_crop(padding: int, fill: int = 0) -> Augment:
    """Shifts the content by up to `padding` pixels, uniformly sampled for each image and direction; what comes in is `fill`.

    Equal to padding the content with `padding` pixels of `fill` on all sides and cutting a random window of its own
    size out of it, the usual recipe for CIFAR (arXiv:1512.03385, section 4.2). For classification only.

    Raises:
      ValueError: negative padding, or a fill that is no pixel value.
      TypeError: a target other than Labels or None, or extra input in `given`, neither of which would be moved.
    """

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        targets.check_image_level(batch, "pad_and_crop")
        shifts = jax.vmap(lambda k: jax.random.randint(k, (2,), -padding, padding + 1, dtype=jnp.int32))
        return dataclasses.replace(batch, image=_shift(batch.image, batch.size, shifts(_keys(key, batch)), fill))

    return augment


def _flip(probability: float, axis: int, who: str) -> Augment:

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        mirror = _mirror(_chosen(key, probability, batch), jnp.asarray(batch.size), batch.image.shape[1:3], axis)
        motion = targets.Motion(
            lambda objects: _mirrored_objects(objects, mirror), lambda map: _mirrored_map(map, mirror)
        )
        return targets.move(batch, _mirrored_pixels(batch.image, mirror, rows_at=1), motion, who)

    return augment


class _Mirror(NamedTuple):
    """Which images are mirrored along `axis` of the canvas; which lines take part, and where each place comes from."""

    axis: int
    chosen: Bool[Array, "b"]
    extent: Int[Array, "b"]
    lines: Bool[Array, "b t"]
    source: Int[Array, "b s"]


def _keys(key: Key, batch: Batch) -> Array:
    return row_keys(key, batch.image.shape[0])


def _chosen(key: Key, probability: float, batch: Batch) -> Bool[Array, "b"]:
    return jax.vmap(lambda k: jax.random.bernoulli(k, probability))(_keys(key, batch))


def _mirror(chosen: Bool[Array, "b"], size: Int[Array, "b 2"], canvas: tuple[int, ...], axis: int) -> _Mirror:
    extent, across = size[:, axis, None], size[:, 1 - axis, None]
    place, line = (jnp.arange(canvas[a], dtype=size.dtype)[None, :] for a in (axis, 1 - axis))
    source = jnp.where(place < extent, extent - 1 - place, place)
    return _Mirror(axis, chosen, extent[:, 0], chosen[:, None] & (line < across), source)


def _take(values: Num[Array, "b ..."], source: Int[Array, "b s"], axis: int) -> Num[Array, "b ..."]:
    """Values whose position i along `axis` is taken, row by row, from position `source[i]`."""
    return jnp.take_along_axis(values, _along(source, axis, values.ndim), axis=axis, mode="promise_in_bounds")


def _along(values: Array, axis: int, dimensions: int) -> Array:
    """`values` [b s] as an array of `dimensions` dimensions, s along `axis`."""
    return jnp.expand_dims(values, [a for a in range(1, dimensions) if a != axis])


def _mirrored_pixels(values: Num[Array, "b ..."], mirror: _Mirror, rows_at: int) -> Num[Array, "b ..."]:
    """The rows of the canvas are along the axis `rows_at`, its columns along the next."""
    lines = _along(mirror.lines, rows_at + 1 - mirror.axis, values.ndim)
    return jnp.where(lines, _take(values, mirror.source, rows_at + mirror.axis), values)


def _mirrored_objects(objects: Objects, mirror: _Mirror) -> Objects:
    match objects.masks:
        case None:
            masks = None
        case CutMasks():
            masks = _mirrored_frames(objects.masks, mirror)
        case _:
            masks = _mirrored_pixels(objects.masks, mirror, rows_at=2)
    return dataclasses.replace(objects, boxes=_mirrored_boxes(objects.boxes, mirror), masks=masks)


def _mirrored_frames(masks: CutMasks, mirror: _Mirror) -> CutMasks:
    """Masks whose first and last edge changed sides: so their cells are mirrored."""
    along = jnp.arange(2)[None, :] == 1 - mirror.axis  # of x and y
    turned = (mirror.chosen[:, None] & along)[:, None]
    scale = jnp.where(turned, -1.0, 1.0)
    return cut_masks.moved(masks, scale, jnp.where(turned, mirror.extent[:, None, None], 0))


def _mirrored_boxes(boxes: Num[Array, "b n 4"], mirror: _Mirror) -> Num[Array, "b n 4"]:
    x0, y0, x1, y1 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    extent = mirror.extent.astype(x0.dtype)[:, None]
    mirrored = [extent - x1, y0, extent - x0, y1] if mirror.axis == 1 else [x0, extent - y1, x1, extent - y0]
    return jnp.where(mirror.chosen[:, None, None], jnp.stack(mirrored, axis=-1), boxes)


def _mirrored_map(map: SegmentationMap, mirror: _Mirror) -> SegmentationMap:
    return jax.tree.map(lambda values: _mirrored_pixels(values, mirror, rows_at=1), map)


def _shift(
    image: Num[Array, "b h w c"], size: Int[Array, "b 2"], shift: Int[Array, "b 2"], fill: int
) -> Num[Array, "b h w c"]:
    """The content moved up and left by `shift` pixels, `fill` where nothing comes in, all else as it was."""
    rows, columns = (_window(jnp.asarray(size)[:, a], shift[:, a], image.shape[1 + a]) for a in (0, 1))
    moved = _take(_take(image, rows.source, axis=1), columns.source, axis=2)
    holds = _along(rows.holds, 1, 4) & _along(columns.holds, 2, 4)
    empty = _along(rows.empty, 1, 4) | _along(columns.empty, 2, 4)
    shifted = jnp.where(empty, jnp.asarray(fill, image.dtype), moved)
    return jnp.where(holds, shifted, image)


class _Window(NamedTuple):
    """One axis of the canvas: what lies in the content, where it comes from, and where nothing does."""

    holds: Bool[Array, "b s"]
    source: Int[Array, "b s"]
    empty: Bool[Array, "b s"]


def _window(extent: Int[Array, "b"], shift: Int[Array, "b"], canvas: int) -> _Window:
    position = jnp.arange(canvas, dtype=extent.dtype)[None, :]
    source = position + shift.astype(extent.dtype)[:, None]
    empty = (source < 0) | (source >= extent[:, None])
    return _Window(position < extent[:, None], jnp.clip(source, 0, canvas - 1), empty)

"""Augmentations that move pixels by whole steps: exact gathers, so that uint8 stays uint8.

The content of an image is its top-left `batch.size` (height, width); it is moved within itself, and the canvas around it
stays untouched.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

from jaxvision.augment.keys import row_keys
from jaxvision.types import Augment, Batch, Key, Labels, Objects, Scalar, SegmentationMap


def flip(probability: float = 0.5) -> Augment:
    """Mirrors left and right, each image with this probability.

    `target` and `given` move along: the boxes and masks of Objects and the pixels of a SegmentationMap are mirrored
    within the width w of the content (x0 becomes w - x1), Labels and None stay, a dict is entered. Class labels and
    attributes keep their value: where left and right differ in meaning, do not flip.

    Raises:
      ValueError: a probability outside 0 to 1; masks or maps of another size than the canvas.
      TypeError: a target of another type, which could not be moved with its image.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"flip(probability={probability}): a probability lies between 0 and 1")

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        mirror = _mirror(_chosen(key, probability, batch), jnp.asarray(batch.size), batch.image.shape[1:3])
        return dataclasses.replace(
            batch,
            image=_mirrored_pixels(batch.image, mirror, axis=2),
            target=_mirrored(batch.target, mirror, "target"),
            given=_mirrored(batch.given, mirror, "given"),
        )

    return augment


def pad_and_crop(padding: int, fill: int = 0) -> Augment:
    """Shifts the content by up to `padding` pixels, evenly drawn for each image and direction; what comes in is `fill`.

    The same as padding the content with `padding` pixels of `fill` on all sides and cutting a random window of its own
    size out of it, the usual recipe for CIFAR (arXiv:1512.03385, section 4.2). For classification only.

    Raises:
      ValueError: negative padding, or a fill that is no pixel value.
      TypeError: a target other than Labels or None, or extra input in `given`, neither of which would be moved.
    """
    if padding < 0:
        raise ValueError(f"pad_and_crop(padding={padding}): allowed are 0 pixels and more")
    if not (0 <= fill <= 255 and int(fill) == fill):
        raise ValueError(f"pad_and_crop(fill={fill}): a fill is a whole pixel value, 0 to 255")

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        _check_image_level(batch)
        shifts = jax.vmap(lambda k: jax.random.randint(k, (2,), -padding, padding + 1, dtype=jnp.int32))
        return dataclasses.replace(batch, image=_shift(batch.image, batch.size, shifts(_keys(key, batch)), fill))

    return augment


class _Mirror(NamedTuple):
    """Which images are mirrored; the rows of the canvas that take part, and where each column comes from."""

    chosen: Bool[Array, "b"]
    width: Int[Array, "b"]
    rows: Bool[Array, "b h"]
    source: Int[Array, "b w"]


def _keys(key: Key, batch: Batch) -> Array:
    return row_keys(key, batch.image.shape[0])


def _chosen(key: Key, probability: float, batch: Batch) -> Bool[Array, "b"]:
    return jax.vmap(lambda k: jax.random.bernoulli(k, probability))(_keys(key, batch))


def _mirror(chosen: Bool[Array, "b"], size: Int[Array, "b 2"], canvas: tuple[int, ...]) -> _Mirror:
    height, width = size[:, :1], size[:, 1:]
    row, column = (jnp.arange(length, dtype=size.dtype)[None, :] for length in canvas)
    source = jnp.where(column < width, width - 1 - column, column)
    return _Mirror(chosen, width[:, 0], chosen[:, None] & (row < height), source)


def _take(values: Num[Array, "b ..."], source: Int[Array, "b s"], axis: int) -> Num[Array, "b ..."]:
    """Row by row, position i of `axis` is taken from position `source[i]`."""
    return jnp.take_along_axis(values, _along(source, axis, values.ndim), axis=axis, mode="promise_in_bounds")


def _along(values: Array, axis: int, dimensions: int) -> Array:
    """`values` [b s] as an array of so many dimensions, s along `axis`."""
    return jnp.expand_dims(values, [a for a in range(1, dimensions) if a != axis])


def _mirrored_pixels(values: Num[Array, "b ..."], mirror: _Mirror, axis: int) -> Num[Array, "b ..."]:
    """Columns along `axis`, rows along the one before."""
    return jnp.where(_along(mirror.rows, axis - 1, values.ndim), _take(values, mirror.source, axis), values)


def _mirrored(target: Any, mirror: _Mirror, name: str) -> Any:
    match target:
        case None | Labels():
            return target
        case dict():
            return {key: _mirrored(value, mirror, f"{name}[{key!r}]") for key, value in target.items()}
        case Objects():
            masks = None if target.masks is None else _mirrored_map(target.masks, mirror, f"{name}.masks")
            return dataclasses.replace(target, boxes=_mirrored_boxes(target.boxes, mirror), masks=masks)
        case SegmentationMap():
            label, valid = (_mirrored_map(getattr(target, f), mirror, f"{name}.{f}") for f in ("label", "valid"))
            return dataclasses.replace(target, label=label, valid=valid)
    allowed = "None, Labels, Objects, SegmentationMap, or a dict of them"
    raise TypeError(f"flip cannot mirror batch.{name}: {_kind(target)}; allowed: {allowed}")


def _mirrored_boxes(boxes: Num[Array, "b n 4"], mirror: _Mirror) -> Num[Array, "b n 4"]:
    x0, y0, x1, y1 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    width = mirror.width.astype(x0.dtype)[:, None]
    return jnp.where(mirror.chosen[:, None, None], jnp.stack([width - x1, y0, width - x0, y1], axis=-1), boxes)


def _mirrored_map(values: Num[Array, "b *n h w"], mirror: _Mirror, name: str) -> Num[Array, "b *n h w"]:
    canvas = (mirror.rows.shape[1], mirror.source.shape[1])
    if values.shape[-2:] != canvas:
        raise ValueError(f"flip needs batch.{name} on the canvas of the image, {canvas}, got {values.shape}")
    return _mirrored_pixels(values, mirror, axis=values.ndim - 1)


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
    """Along one axis of the canvas: what lies in the content, where it comes from, and where nothing does."""

    holds: Bool[Array, "b s"]
    source: Int[Array, "b s"]
    empty: Bool[Array, "b s"]


def _window(extent: Int[Array, "b"], shift: Int[Array, "b"], canvas: int) -> _Window:
    position = jnp.arange(canvas, dtype=extent.dtype)[None, :]
    source = position + shift.astype(extent.dtype)[:, None]
    empty = (source < 0) | (source >= extent[:, None])
    return _Window(position < extent[:, None], jnp.clip(source, 0, canvas - 1), empty)


def _check_image_level(batch: Batch) -> None:
    if not (batch.target is None or isinstance(batch.target, Labels)):
        raise TypeError(f"pad_and_crop cannot move batch.target: {_kind(batch.target)}; allowed: None or Labels")
    if batch.given is not None:
        raise TypeError(f"pad_and_crop cannot move batch.given: {_kind(batch.given)}; allowed: None")


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if hasattr(value, "shape") else f"of type {type(value).__name__}"

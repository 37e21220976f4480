"""Images put together from parts of several: what is shown where, and which objects remain."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from jaxvision.augment import cut_masks
from jaxvision.ops import boxes as of_boxes
from jaxvision.ops.boxes import Boxes
from jaxvision.ops.masks import boxes_around
from jaxvision.types import Batch, CutMasks, Labels, Objects, SegmentationMap

LEAST_PIXELS, LEAST_FRACTION = 2.0, 0.1
"""Least width and height in pixels, and fraction of its area, that an object cut by a border must keep to stay valid."""


class Parts(NamedTuple):
    """Parts of `p` images of the batch that make up one image; nothing is resampled."""

    row: Int[Array, "p"]
    """Row of the batch that each part comes from."""
    shift: Int[Array, "p 2"]
    """Shift of each part down and to the right, in pixels."""
    window: Int[Array, "p 4"]
    """Window x0 y0 x1 y1 of the new canvas in which each part is shown."""


def pixels(values: Shaped[Array, "b h w *c"], parts: Parts, empty: Shaped[Array, "*c"]) -> Shaped[Array, "h w *c"]:
    """The canvas with these parts, whose windows don't overlap; `empty` where there is none."""
    height, width = values.shape[1:3]
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    shown = jax.vmap(_inside, (0, None, None))(parts.window, y, x)
    part = shown.argmax(0)
    from_y, from_x = y - parts.shift[part, 0], x - parts.shift[part, 1]
    known = shown.any(0)
    place = parts.row[part], jnp.clip(from_y, 0, height - 1), jnp.clip(from_x, 0, width - 1)
    found = values.at[place].get(mode="promise_in_bounds")
    return jnp.where(known.reshape(*known.shape, *(1,) * empty.ndim), found, empty.reshape(1, 1, *empty.shape))


def map_of(map: SegmentationMap, parts: Parts) -> SegmentationMap:
    """The map of that canvas, valid where there is a part."""
    return jax.tree.map(lambda each: pixels(each, parts, jnp.zeros((), each.dtype)), map)


def objects_of(objects: Objects, parts: Parts) -> tuple[Objects, Int[Array, "n"]]:
    """The objects shown in these parts, largest first, and the part of each.

    There are as many rows as an image had: of more objects, the largest stay, those to ignore last. Nothing reports how
    many were left out, since this is computed on the device.
    """
    n = objects.boxes.shape[1]
    shift = jnp.tile(parts.shift[:, None, ::-1], (1, 1, 2)).astype(objects.boxes.dtype)
    moved = objects.boxes[parts.row] + shift
    window = parts.window[:, None].astype(moved.dtype)
    cut = _cut(moved, window)
    valid = objects.valid[parts.row] & _enough(moved, cut, window)
    rank = jnp.lexsort((-of_boxes.area(cut).reshape(-1), objects.ignore[parts.row].reshape(-1), ~valid.reshape(-1)))
    part, number = jnp.divmod(rank[:n], n)
    rest = dataclasses.replace(objects, boxes=None, valid=None)
    kept = jax.tree.map(lambda each: each[parts.row[part], number], dataclasses.replace(rest, masks=None))
    kept = dataclasses.replace(kept, boxes=cut[part, number], valid=valid[part, number])
    if objects.masks is None:
        return kept, part
    if isinstance(objects.masks, CutMasks):
        return _with_cut_masks(kept, objects.masks, parts, part, number), part
    return _with_masks(kept, objects.masks, parts, part, number), part


def _cut(boxes: Boxes, window: Boxes) -> Boxes:
    low, high = jnp.tile(window[..., :2], (1, 1, 2)), jnp.tile(window[..., 2:], (1, 1, 2))
    return jnp.minimum(jnp.maximum(boxes, low), high)


def _enough(boxes: Boxes, cut: Boxes, window: Boxes) -> Bool[Array, "p n"]:
    fraction = of_boxes.covered(boxes, window)
    sides = (cut[..., 2:] - cut[..., :2]).min(-1)
    return (fraction > 0.999) | ((fraction >= LEAST_FRACTION) & (sides >= LEAST_PIXELS))


def _with_masks(kept: Objects, masks: Shaped[Array, "b n h w"], parts: Parts, part: Array, number: Array) -> Objects:
    """Objects with their masks moved too; as everywhere, a box is then the smallest around its mask."""

    def one(part: Array, number: Array) -> Array:
        y, x = (jnp.arange(side) - parts.shift[part, axis] for axis, side in enumerate(masks.shape[2:]))
        height, width = masks.shape[2:]
        mask = masks[parts.row[part], number]
        moved = mask[jnp.clip(y, 0, height - 1)][:, jnp.clip(x, 0, width - 1)]
        shown = _inside(parts.window[part], jnp.arange(height)[:, None], jnp.arange(width)[None, :])
        return jnp.where(shown, moved, jnp.zeros((), mask.dtype))

    moved = jax.vmap(one)(part, number)
    boxes, any_left = boxes_around(moved, kept.boxes.dtype)
    return dataclasses.replace(kept, boxes=boxes, valid=kept.valid & any_left, masks=moved)


def _with_cut_masks(kept: Objects, masks: CutMasks, parts: Parts, part: Array, number: Array) -> Objects:
    """Objects with masks that were cut out, cut again where their image is."""
    picked = jax.tree.map(lambda each: each[parts.row[part], number], masks)
    moved = cut_masks.moved(picked, jnp.ones((1, 2)), parts.shift[part, ::-1])
    seen, boxes, left = cut_masks.visible(moved, parts.window[part], kept.boxes.dtype)
    return dataclasses.replace(kept, boxes=boxes, valid=kept.valid & left, masks=seen)


def _inside(window: Int[Array, "4"], y: Int[Array, "h 1"], x: Int[Array, "1 w"]) -> Bool[Array, "h w"]:
    x0, y0, x1, y1 = window
    return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)


def selected(chosen: Bool[Array, "b"], new: Batch, old: Batch) -> Batch:
    """Row by row the new batch or the old one, which have the same arrays."""

    def select(new: Array, old: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(select, new, old)


def check_no_labels(batch: Batch, who: str, unmixed: tuple[type, ...] = (Labels,)) -> None:
    """Checks that no target is image-level, since parts of several images would contradict it.

    Raises:
      TypeError: a target, or extra input in `given`, of one of the types that `who` can't mix.
    """

    def check(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                check(each, f"{name}[{key!r}]")
        elif isinstance(value, unmixed):
            raise TypeError(
                f"{who} cannot mix {name}, of type {type(value).__name__}; allowed: Objects, a dict of them"
            )

    check(batch.target, "batch.target")
    check(batch.given, "batch.given")

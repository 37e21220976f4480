"""Targets in `target` and `given` that show the image, moved with it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Num

from jaxvision.augment import cut_masks
from jaxvision.ops import masks
from jaxvision.types import Batch, CutMasks, Labels, Objects, PackedMasks, SegmentationMap


class Motion(NamedTuple):
    """How boxes, masks and maps move, for all rows of a batch."""

    objects: Callable[[Objects], Objects]
    map: Callable[[SegmentationMap], SegmentationMap]


def move(batch: Batch, image: Num[Array, "b h w c"], motion: Motion, who: str) -> Batch:
    """The batch with this image, its `target` and `given` moved: Labels and None stay, a dict is entered.

    Raises:
      ValueError: masks or maps of another size than the canvas.
      TypeError: something of another type, which could not be moved with its image; `who` wanted to.
    """
    canvas = batch.image.shape[1:3]
    target, given = (_moved(getattr(batch, name), canvas, motion, f"batch.{name}", who) for name in ("target", "given"))
    return dataclasses.replace(batch, image=image, target=target, given=given)


def check_upright(batch: Batch, who: str) -> None:
    """Checks that everything can be turned, sheared or bent with its image.

    Raises:
      ValueError: masks in `target` or `given` that were cut out at their boxes.
    """
    for name in ("target", "given"):
        cut_masks.refuse(getattr(batch, name), f"batch.{name}", who)


def check_image_level(batch: Batch, who: str, verb: str = "move") -> None:
    """Checks that an augmentation need change nothing beside the image.

    Raises:
      TypeError: a target other than Labels or None, or extra input in `given`, neither of which `who` would change.
    """
    if not (batch.target is None or isinstance(batch.target, Labels)):
        raise TypeError(f"{who} cannot {verb} batch.target: {_kind(batch.target)}; allowed: None or Labels")
    if batch.given is not None:
        raise TypeError(f"{who} cannot {verb} batch.given: {_kind(batch.given)}; allowed: None")


def _moved(target: Any, canvas: tuple[int, ...], motion: Motion, name: str, who: str) -> Any:
    match target:
        case None | Labels():
            return target
        case dict():
            return {key: _moved(value, canvas, motion, f"{name}[{key!r}]", who) for key, value in target.items()}
        case Objects():
            return _moved_objects(target, canvas, motion.objects, f"{name}.masks", who)
        case SegmentationMap():
            fields = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
            for field, values in fields.items():
                if values is not None:
                    _check_canvas(values.shape, canvas, f"{name}.{field}", who)
            return motion.map(target)
    allowed = "None, Labels, Objects, SegmentationMap, or a dict of them"
    raise TypeError(f"{who} cannot move {name}: {_kind(target)}; allowed: {allowed}")


def _moved_objects(
    objects: Objects, canvas: tuple[int, ...], move: Callable[[Objects], Objects], name: str, who: str
) -> Objects:
    """Objects moved, whatever the form of their masks: bits are unpacked for it and packed again."""
    match objects.masks:
        case None:
            return move(objects)
        case CutMasks(bits=bits):
            if 8 * bits.shape[-1] != bits.shape[-2]:
                raise ValueError(f"{who} needs {name} of as many cells along x as along y, got bits {bits.shape}")
            return move(objects)
        case PackedMasks(bits=bits, width=width):
            _check_canvas((*bits.shape[:-1], width), canvas, name, who)
            moved = move(dataclasses.replace(objects, masks=masks.unpack(jnp.asarray(bits), width)))
            return dataclasses.replace(moved, masks=masks.packed(moved.masks))
    _check_canvas(objects.masks.shape, canvas, name, who)
    return move(objects)


def _check_canvas(shape: tuple[int, ...], canvas: tuple[int, ...], name: str, who: str) -> None:
    if tuple(shape[-2:]) != tuple(canvas):
        raise ValueError(f"{who} needs {name} on the canvas of the image, {tuple(canvas)}, got {tuple(shape)}")


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if hasattr(value, "shape") else f"of type {type(value).__name__}"

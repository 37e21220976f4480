"""A batch as a sheet of pictures: the images that the network sees, and their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from jaxvision.draw import key as legend
from jaxvision.draw.boxes import colour_of, draw_box
from jaxvision.draw.palette import BLACK, class_colour
from jaxvision.draw.sheet import sheet
from jaxvision.draw.style import SKY
from jaxvision.errors import amount
from jaxvision.ops.masks import unpacked
from jaxvision.types import Batch, CutMasks, Labels, Masks, Objects, PackedMasks, SegmentationMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 40
PADDING = SKY
"""Colour of the veil over the canvas outside the content, which stays visible below it."""
PADDED = ("padding of the canvas", PADDING)
NO_CLASS = ("not painted: no class", "")
"""Entries of the key."""
VEIL, MASK, CLASS = 0.6, 0.45, 0.6
"""Opacity of the veil, of masks and of the pixels of classes."""


def batch_sheet(batch: Batch, classes: Sequence[str], name: Callable[[int], str], *, title: str = "") -> Figure:
    """The first examples of a batch, up to 40; see `examples_sheet`."""
    return examples_sheet(examples_of(batch, SHOWN), classes, name, title=title)


def examples_of(batch: Batch, most: int) -> list[Batch]:
    """The first examples of a batch, at most `most`, each by itself, as NumPy arrays."""
    first = jax.tree.map(lambda x: np.asarray(x)[:most], batch)
    return [jax.tree.map(lambda x: x[i], first) for i in range(len(first.image))]  # noqa: B023


def examples_sheet(
    examples: Sequence[Batch],
    classes: Sequence[str],
    name: Callable[[int], str],
    *,
    columns: int = 8,
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """Examples side by side, whole canvases; what is not content has a blue veil.

    Labels are written below (soft ones: the two largest probabilities); objects are drawn as boxes, and masks and the pixels
    of maps, in a colour for each class. Boxes to ignore are dashed; pixels of a map that are not valid stay as they are. A
    key names the classes of maps, and what has the only class of objects, whose boxes then have no labels.

    Args:
      examples: images `h w c` of 1 or 3 channels, 0-255, of any type; target None, Labels, Objects, SegmentationMap, or a
        dict of them; masks are in any form of `Masks`, of one image, maps `h w`.
      classes: their names, by label.
      name: index of an example to its name.
      columns: examples in a row.
      title: stands above.
      notes: one an example, below its caption; or none.

    Raises:
      ValueError: for masks or maps of another shape.
    """
    images = [
        _with_targets(_picture(np.asarray(example.image), np.asarray(example.size)), example, classes)
        for example in examples
    ]
    captions = [_caption(example, classes, name) for example in examples]
    captions = [f"{caption}\n{note}" for caption, note in zip(captions, notes, strict=True)] if notes else captions
    figure = sheet(images, captions, columns=columns, title=title, key=_key(examples, classes))
    for axes, example in zip(figure.axes, examples, strict=True):
        for objects in _targets(example, Objects):
            _draw_boxes(axes, objects, classes)
    return figure


def _key(examples: Sequence[Batch], classes: Sequence[str]) -> list[legend.Entry]:
    """What the colours of these examples stand for."""
    maps = [(map, np.asarray(example.size)) for example in examples for map in _targets(example, SegmentationMap)]
    labels = sorted({int(label) for map, _ in maps for label in np.unique(map.label[map.valid])})
    entries = legend.named([(_name(label, classes), _map_colour(label, classes)) for label in labels])
    if not all(map.valid[: size[0], : size[1]].all() for map, size in maps):
        entries.append(NO_CLASS)
    only = _only_class(classes)
    if only is not None and any(of.valid.any() for example in examples for of in _targets(example, Objects)):
        entries.append((classes[only], colour_of(only)))
    return [*entries, *([PADDED] if any(map(_is_padded, examples)) else [])]


def _map_colour(label: int, classes: Sequence[str]) -> str:
    return class_colour(label, _name(label, classes))


def _only_class(classes: Sequence[str]) -> int | None:
    """The only class that objects can be of; None where there are several."""
    foreground = [label for label, name in enumerate(classes) if class_colour(label, name) != BLACK]
    return foreground[0] if len(foreground) == 1 else None


def _is_padded(example: Batch) -> bool:
    return bool(example.valid) and tuple(np.asarray(example.size)) != np.asarray(example.image).shape[:2]


def _picture(image: np.ndarray, size: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """The canvas in colour, with a veil over what lies outside the content."""
    pixels = np.nan_to_num(np.broadcast_to(image.astype(np.float64), (*image.shape[:2], 3)))
    outside = np.ones(image.shape[:2], bool)
    outside[: size[0], : size[1]] = False
    return _painted(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), outside, PADDING, VEIL)


def _painted(
    pixels: UInt8[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"], colour: str, opacity: float
) -> UInt8[np.ndarray, "h w 3"]:
    from matplotlib.colors import to_rgb

    mixed = (1 - opacity) * pixels + opacity * 255 * np.asarray(to_rgb(colour))
    return np.where(where[..., None], np.rint(mixed).astype(np.uint8), pixels)


def _targets(example: Batch, kind: type) -> list[Any]:
    """The targets of this kind: the target itself, or those in the dict of a multi-task one."""
    each = example.target.values() if isinstance(example.target, Mapping) else [example.target]
    return [target for target in each if isinstance(target, kind)]


def _caption(example: Batch, classes: Sequence[str], name: Callable[[int], str]) -> str:
    """Caption of an example: its target, and below it its name."""
    if not example.valid:
        return "not valid\n" + (name(int(example.index)) if example.index >= 0 else "padding")
    parts = [_class(label, classes) for label in _targets(example, Labels)]
    parts += [amount(objects.valid.sum(), "object") for objects in _targets(example, Objects)]
    parts += [amount(np.unique(map.label[map.valid]).size, "class") for map in _targets(example, SegmentationMap)]
    told = ", ".join(parts) or "no target"
    return "\n".join(dict.fromkeys([told, name(int(example.index))]))


def _class(label: Labels, classes: Sequence[str]) -> str:
    if label.weight is not None and label.weight <= 0:
        return "unlabelled"
    if label.probs is None:
        return _name(int(label.label), classes)
    probabilities = np.asarray(label.probs)
    top = np.argsort(-probabilities, kind="stable")[:2]
    return ", ".join(f"{_name(int(k), classes)} {probabilities[k]:.0%}" for k in top if probabilities[k] > 0)


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}?"


def _with_targets(
    pixels: UInt8[np.ndarray, "h w 3"], example: Batch, classes: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of masks and maps painted over."""
    for map in _targets(example, SegmentationMap):
        for label in np.unique(map.label[map.valid]):
            where = map.valid & (map.label == label)
            pixels = _marked(pixels, where, _map_colour(int(label), classes), CLASS, "a map")
    for objects in _targets(example, Objects):
        if objects.masks is not None:
            masks = _on_canvas(objects.masks, pixels.shape[:2])
            for row in np.flatnonzero(objects.valid):
                pixels = _marked(pixels, masks[row], colour_of(objects.labels[row]), MASK, "masks")
    return pixels


def _on_canvas(masks: Masks, canvas: tuple[int, ...]) -> Bool[np.ndarray, "n h w"]:
    """Masks in any form as pixels of the canvas."""
    if isinstance(masks, PackedMasks | CutMasks):
        return np.asarray(unpacked(jax.tree.map(jnp.asarray, masks), canvas))
    return np.asarray(masks) > 0


def _marked(
    pixels: UInt8[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"], colour: str, opacity: float, what: str
) -> np.ndarray:
    if where.shape != pixels.shape[:2]:
        raise ValueError(f"{what} of the shape {where.shape} can't be drawn on a canvas {pixels.shape[:2]}")
    return _painted(pixels, where, colour, opacity)


def _draw_boxes(axes: Axes, objects: Objects, classes: Sequence[str]) -> None:
    for row in np.flatnonzero(objects.valid):
        label = objects.labels[row]
        box, name = np.asarray(objects.boxes[row]), _name(int(label), classes)
        name = "" if label == _only_class(classes) else name
        draw_box(axes, box, name, colour_of(label), dashed=bool(objects.ignore[row]))

"""What a row of a batch says of its example beside the image: a class, objects or proposals on the canvas, a class map."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data import object_masks
from jaxvision.data.placement import Placement
from jaxvision.data.source import Annotations, Example, annotations
from jaxvision.errors import amount, nearest
from jaxvision.formats.image_file import Size
from jaxvision.types import Labels, Objects, SegmentationMap

FEWEST_PIXELS = 1.0
"""Least side, in pixels, of what is left of an object that the border cut; with less it is not there."""
Find = Callable[[bytes | np.ndarray], np.ndarray]
"""From an image, encoded or pixels, to boxes `n 4` in its pixels."""


class TargetForm(NamedTuple):
    """How targets are laid out: rows of padding, and how one is filled."""

    empty: Callable[[int, Size], Any]
    """`(rows, canvas) -> target`: a tree of NumPy arrays."""
    fill: Callable[[Any, int, Example, Placement], str | None]
    """`(target, row, example, placement)`: writes the row; says what it had no place for, if anything.

    Raises ValueError for an example without what the target is made of.
    """


def _fill_label(target: Labels, row: int, example: Example, placement: Placement) -> str | None:
    del placement
    np.asarray(target.label)[row] = example.label
    return None


def _no_labels(n: int, canvas: Size) -> Labels:
    del canvas
    label: Any = np.zeros(n, np.int32)
    return Labels(label)


LABELS = TargetForm(_no_labels, _fill_label)
"""The class of the image."""
NOTHING = TargetForm(lambda n, canvas: None, lambda target, row, example, placement: None)
"""No target at all; the default of `Batch.given`."""


def objects(
    rows: int,
    *,
    masks: object_masks.Form | None = None,
    weights: bool = False,
    attributes: Sequence[str] = (),
) -> TargetForm:
    """`Objects` of `rows` rows; the boxes go with the image to the canvas, cut at its border there.

    An object without area is dropped, and one that the border cut, and of which less than a pixel in height or width is
    left. Where an image has more objects than rows, the largest stay, those to ignore last.

    With `masks`, an object that the border cut is dropped if no pixel of its mask is left on the canvas, and its box is the
    smallest around those that are; where none of a small mask is the nearest to a pixel of the canvas, all that it reaches
    are on.

    Args:
      rows: of each image.
      masks: `"canvas"` for bool `n h w`; `"bits"` for the same in an eighth of the memory (`PackedMasks`); a multiple of 8,
        112 say, for masks cut out of the image at the smallest box around them, in a grid of so many cells a side
        (`CutMasks`): a thousandth of the memory of large canvases, and what the canvas cut off is still there. None: none.
      weights: whether there is a weight of each object, 1 where the source has none.
      attributes: names of attributes of objects that are kept, each the number of its value: int32 `n` by name, -1 where it
        is unknown. For metrics by group; augmentation does not move them.

    Raises:
      ValueError: for less than one row, and for masks that are none of these.
    """
    if rows < 1:
        raise ValueError(f"objects(rows={rows}): allowed is 1 or more")
    layout = None if masks is None else object_masks.layout(masks)

    def empty(n: int, canvas: Size) -> Objects:
        area: Any = np.zeros((n, rows), np.float32)
        weight: Any = np.zeros((n, rows), np.float32) if weights else None
        masks = None if layout is None else layout.empty(n, rows, canvas)
        known = {name: np.full((n, rows), -1, np.int32) for name in attributes} or None
        return _no_objects(n, rows).replace(area=area, weight=weight, masks=masks, attributes=known)

    def fill(target: Objects, row: int, example: Example, placement: Placement) -> str | None:
        if example.objects is None:
            raise ValueError("the source has no objects, only labels of whole images")
        contents: dict[int, Any] = {}
        if layout is None:
            found, shown = placed(example.objects, placement)
        else:
            found, contents = _placed_with_masks(example.objects, placement, layout)
            shown = np.fromiter(contents, np.int64)
        kept = _largest(found, shown, rows)
        n = len(kept)
        for name in ("boxes", "labels", "ignore", "area"):
            getattr(target, name)[row, :n] = getattr(found, name)[kept]
        np.asarray(target.valid)[row, :n] = True
        for name in attributes:
            target.attributes[name][row, :n] = _attribute(example.objects, name)[kept]
        if weights:
            np.asarray(target.weight)[row, :n] = 1 if found.weight is None else found.weight[kept]
        if layout is not None:
            for place, number in enumerate(kept.tolist()):
                layout.write(target.masks, row, place, contents[number])
        return _left_out(len(shown), rows)

    return TargetForm(empty, fill)


def _attribute(found: Annotations, name: str) -> np.ndarray:
    known = found.attributes or {}
    if name not in known:
        raise ValueError(f"its objects have no attribute {name!r}{nearest(name, list(known))}")
    return known[name]


def _largest(found: Annotations, shown: np.ndarray, rows: int) -> np.ndarray:
    """The numbers of those objects that have rows, in their order: the largest of those shown, those to ignore last."""
    if len(shown) <= rows:
        return shown
    first = np.lexsort((-found.area[shown], found.ignore[shown]))[:rows]
    return shown[np.sort(first)]


def _left_out(count: int, rows: int) -> str | None:
    """What to say of objects that have no row; None where all have one."""
    if count <= rows:
        return None
    return (
        f"{amount(count, 'object')}, but rows for {rows}: {count - rows} left out; target.objects({count}) holds them"
    )


def class_map() -> TargetForm:
    """`SegmentationMap` of the canvas: the class of each pixel is that of the pixel of the image that its centre lies in.

    Not valid where the image's own pixel has no class, in the padding of the content, and outside the content.
    """

    def empty(n: int, canvas: Size) -> SegmentationMap:
        label: Any = np.zeros((n, *canvas), np.int32)
        valid: Any = np.zeros((n, *canvas), bool)
        return SegmentationMap(label, valid)

    def fill(target: SegmentationMap, row: int, example: Example, placement: Placement) -> str | None:
        if example.map is None:
            raise ValueError("the source has no map of classes, a class for every pixel (data.maps)")
        label, valid = example.map
        _check_size("the map of classes", label.shape, placement)
        rows, columns = object_masks.nearest(placement)
        shown = valid[rows][:, columns]
        np.asarray(target.valid)[row][placement.spot] = shown
        np.asarray(target.label)[row][placement.spot] = np.where(shown, label[rows][:, columns], 0)
        return None

    return TargetForm(empty, fill)


def proposals(rows: int, find: Find | None = None) -> TargetForm:
    """`Objects` of `rows` rows for `Batch.given`: an example's first proposals, moved to the canvas as its objects are.

    Their labels mean nothing. Proposals of which less than a pixel is left make room for later ones. An example that comes
    without has those that `find` finds, `data.proposals.finder()` say; so has an image that `predict` is given.

    Raises:
      ValueError: for less than one row.
    """
    if rows < 1:
        raise ValueError(f"proposals(rows={rows}): allowed is 1 or more")

    def fill(given: Objects, row: int, example: Example, placement: Placement) -> None:
        regions = example.proposals
        if regions is None and find is None:
            raise ValueError("it has no proposals, and nothing finds any: `find=data.proposals.finder()` does")
        if regions is None:
            regions = find(example.image)  # type: ignore[misc]
        found, kept = placed(annotations(regions, np.zeros(len(regions))), placement)
        boxes = found.boxes[kept[:rows]]
        np.asarray(given.boxes)[row, : len(boxes)] = boxes
        np.asarray(given.valid)[row, : len(boxes)] = True

    return TargetForm(lambda n, canvas: _no_objects(n, rows), fill)


def _no_objects(n: int, rows: int) -> Objects:
    arrays: dict[str, Any] = {
        "boxes": np.zeros((n, rows, 4), np.float32),
        "labels": np.zeros((n, rows), np.int32),
        "valid": np.zeros((n, rows), bool),
        "ignore": np.zeros((n, rows), bool),
    }
    return Objects(**arrays)


def placed(found: Annotations, placement: Placement) -> tuple[Annotations, np.ndarray]:
    """The objects in pixels of the canvas, cut at the border of what is shown of the image, and the numbers of those left."""
    positive = (found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
    boxes, cut = _moved(found.boxes, placement)
    left = (boxes[:, 2:] - boxes[:, :2] >= FEWEST_PIXELS).all(1)
    return found._replace(boxes=boxes.astype(np.float32), masks=None), np.flatnonzero(positive & (~cut | left))


def _moved(boxes: np.ndarray, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """The boxes in pixels of the canvas, cut where the image on it ends, and which of them were."""
    x0, y0, x1, y1 = placement.box
    (height, width), (rows, columns) = placement.size, placement.spot
    scale = np.asarray([width / (x1 - x0), height / (y1 - y0)] * 2)
    whole = (boxes.astype(np.float64) - [x0, y0, x0, y0]) * scale + placement.padding[:2] * 2
    left = np.clip(whole, [columns.start, rows.start] * 2, [columns.stop, rows.stop] * 2)
    return left, np.abs(left - whole).max(1, initial=0) >= 1e-3


def _placed_with_masks(
    found: Annotations, placement: Placement, layout: object_masks.Layout
) -> tuple[Annotations, dict[int, Any]]:
    """The objects in pixels of the canvas, and of those left what is kept of their masks; what was cut has the mask's box."""
    if found.masks is None:
        raise ValueError("the source has no masks of its objects, only boxes")
    moved, kept = placed(found, placement)
    cut, contents = _moved(found.boxes, placement)[1], {}
    for number in kept.tolist():
        mask = found.masks[number]
        _check_size("a mask", object_masks.size_of(mask), placement)
        whole = object_masks.patch_of(mask)
        left = None if whole is None else object_masks.on_canvas(whole, placement)
        if whole is None or left is None:
            continue
        contents[number] = layout.content(whole, left, placement)
        if cut[number]:
            moved.boxes[number] = left.box
    return moved, contents


def _check_size(what: str, size: Size, placement: Placement) -> None:
    if np.any(np.asarray(placement.box[2:]) > size[::-1]):
        raise ValueError(f"{what} is {size[0]} x {size[1]} pixels (height x width), less than its image")

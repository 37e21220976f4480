"""What a row of a batch says of its example beside the image: a class, or objects or proposals on the canvas."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxvision.data.placement import Placement
from jaxvision.data.source import Annotations, Example, annotations
from jaxvision.errors import amount
from jaxvision.formats.image_file import Size
from jaxvision.types import Labels, Objects

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


def objects(rows: int, *, masks: bool = False) -> TargetForm:
    """`Objects` of `rows` rows; the boxes go with the image to the canvas, cut at its border there.

    An object without area is dropped, and one that the border cut, and of which less than a pixel in height or width is
    left. Where an image has more objects than rows, the largest stay, those to ignore last.

    With `masks`, masks `n h w` of the canvas come along. An object that the border cut is then dropped if no pixel of its
    mask is left, and its box is the smallest around those that are.

    Raises:
      ValueError: for less than one row.
    """
    if rows < 1:
        raise ValueError(f"objects(rows={rows}): allowed is 1 or more")

    def empty(n: int, canvas: Size) -> Objects:
        area: Any = np.zeros((n, rows), np.float32)
        masked: Any = np.zeros((n, rows, *canvas), bool) if masks else None
        return _no_objects(n, rows).replace(area=area, masks=masked)

    def fill(target: Objects, row: int, example: Example, placement: Placement) -> str | None:
        if example.objects is None:
            raise ValueError("the source has no objects, only labels of whole images")
        if masks and example.objects.masks is None:
            raise ValueError("the source has no masks of its objects, only boxes")
        found, kept = (_placed_with_masks if masks else placed)(example.objects, placement)
        left_out = max(len(kept) - rows, 0)
        if left_out:
            first = np.lexsort((-found.area[kept], found.ignore[kept]))[:rows]
            kept = kept[np.sort(first)]
        n = len(kept)
        for name in ("boxes", "labels", "ignore", "area"):
            getattr(target, name)[row, :n] = getattr(found, name)[kept]
        np.asarray(target.valid)[row, :n] = True
        if found.masks is not None and target.masks is not None:
            height, width = placement.content
            np.asarray(target.masks)[row, :n, :height, :width] = found.masks[kept]
        count = n + left_out
        text = (
            f"{amount(count, 'object')}, but rows for {rows}: {left_out} left out; target.objects({count}) holds them"
        )
        return text if left_out else None

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


def _placed_with_masks(found: Annotations, placement: Placement) -> tuple[Annotations, np.ndarray]:
    """Objects on the canvas with masks `n h w` of the content; what was cut has the box of its mask, if there is any."""
    assert found.masks is not None
    moved, kept = placed(found, placement)
    cut = _moved(found.boxes, placement)[1]
    masks = np.zeros((len(cut), *placement.content), bool)
    for number in kept:
        masks[number][placement.spot] = _placed_mask(found.masks[number], placement)
        if cut[number] and masks[number].any():
            moved.boxes[number] = _around(masks[number])
    return moved._replace(masks=masks), kept[masks[kept].any((1, 2))]


def _placed_mask(mask: np.ndarray, placement: Placement) -> np.ndarray:
    """What is left of the mask on the canvas, each pixel from the nearest; all that it touches, where none is on so."""
    height, width = placement.size
    if np.any(np.asarray(placement.box[2:]) > mask.shape[::-1]):
        raise ValueError(f"a mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x width), less than its image")
    image = Image.fromarray(np.asarray(mask, np.float32))
    nearest, mean = (
        np.asarray(image.resize((width, height), how, box=placement.box))[placement.kept] > 0
        for how in (Image.Resampling.NEAREST, Image.Resampling.BOX)
    )
    return nearest if nearest.any() else mean


def _around(mask: np.ndarray) -> list[int]:
    """The smallest box around what is on."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]

"""Masks of one image in pixels of its file: what the network gave, and the ground truth, as run lengths."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Bool

from jaxvision.masks import runs
from jaxvision.masks.paste import run_lengths
from jaxvision.masks.runs import Runs
from jaxvision.types import BoxMasks, Canvas, CutMasks, MapMasks, PackedMasks, Rows


class Annotated(Protocol):
    """The part of `data.source.Annotations` that is ground truth: `n` objects in pixels of the image file."""

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    area: np.ndarray
    masks: Any
    """A sequence of Runs or bool `h w`, or None."""


class Readable(Protocol):
    """The part of `data.source.Source` that knows ground truth: `read` gives examples with `objects`."""

    @property
    def read(self) -> Any:
        """A function from indices to examples."""
        ...


def canvas_of(rows: Rows, row: int) -> Canvas:
    """How the image of this row lies on its canvas, without the pixels."""
    pair = lambda name: (int(rows[name][row][0]), int(rows[name][row][1]))
    x0, y0, x1, y1 = (0, 0, 0, 0) if rows["window"] is None else map(float, rows["window"][row])
    window = None if rows["window"] is None else (x0, y0, x1, y1)
    return Canvas(np.zeros((0, 0, 3), np.uint8), pair("size"), pair("original_size"), window=window)


def predicted(rows: Rows, row: int) -> Iterator[Runs]:
    """The masks of the valid detections of this row."""
    of_image = jax.tree.map(lambda column: column[row], rows["masks"])
    return run_lengths(of_image, np.flatnonzero(rows["detected"][row]), canvas_of(rows, row))


def true(rows: Rows, row: int) -> Iterator[Runs]:
    """The masks of the annotated objects of this row, put back from the canvas."""
    canvas = canvas_of(rows, row)
    of_image = jax.tree.map(lambda column: column[row], rows["true_masks"])
    for number in np.flatnonzero(rows["annotated"][row]).tolist():
        grid = _frame(of_image, number) if isinstance(of_image, CutMasks) else _plane(of_image, number, canvas.size)
        yield from run_lengths(grid, [0], canvas)


def _plane(masks: Bool[np.ndarray, "n h w"] | PackedMasks, number: int, size: tuple[int, int]) -> MapMasks:
    """One mask of the canvas as a map of its content, on above 0."""
    if isinstance(masks, PackedMasks):
        plane = np.unpackbits(np.asarray(masks.bits[number]), axis=-1, count=masks.width)
    else:
        plane = masks[number]
    content = np.asarray(plane[: size[0], : size[1]], np.float32)
    logits: Any = 2 * content[None] - 1
    return MapMasks(logits, size)


def _frame(masks: CutMasks, number: int) -> BoxMasks:
    """One mask that was cut out, as probabilities in its box."""
    cells = np.unpackbits(np.asarray(masks.bits[number]), axis=-1).astype(np.float32)
    x0, y0, x1, y1 = np.asarray(masks.frames[number]).tolist()
    cells = cells[:: -1 if y1 < y0 else 1, :: -1 if x1 < x0 else 1]
    box: Any = np.array([[min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]], np.float32)
    probabilities: Any = cells[None]
    return BoxMasks(probabilities, box)


def annotated(source: Readable, index: int, size: tuple[int, int]) -> tuple[Annotated, list[Runs]]:
    """The objects of an example of a source, and their masks.

    Raises:
      ValueError: if it has no objects, no masks, or masks of another size than the image.
    """
    (example,) = source.read(np.array([index]))
    objects = example.objects
    if objects is None or objects.masks is None:
        raise ValueError(f"the example with index {index} of the source given as truth has no masks of its objects")
    masks = [each if isinstance(each, Runs) else runs.encode(np.asarray(each, bool)) for each in objects.masks]
    wrong = next((mask.size for mask in masks if mask.size != size), None)
    if wrong is not None:
        raise ValueError(
            f"the example with index {index} has a mask of {wrong[0]} x {wrong[1]} pixels (height x width), its image "
            f"has {size[0]} x {size[1]}: is the source given as truth that of the stream?"
        )
    return objects, masks


def column(values: Sequence[bytes]) -> np.ndarray:
    """A column of bytes objects."""
    found = np.empty(len(values), object)
    found[:] = values
    return found


def original_size(rows: Mapping[str, np.ndarray], row: int) -> tuple[int, int]:
    """Height and width of the image file of this row."""
    height, width = rows["original_size"][row]
    return int(height), int(width)

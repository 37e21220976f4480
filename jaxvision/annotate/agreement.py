"""Agreement of two lists of objects of one image: IoU of boxes or masks, and which object is which."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import LabelledObject, Segmentation
from jaxvision.masks import runs
from jaxvision.masks.polygons import of_polygons
from jaxvision.masks.runs import Runs

SAME_CLASS = 1e-3
"""What a common class adds to an IoU in `pairs`: it decides between places that are equally good."""


def iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """IoU of each box with each; 0 where neither has an area."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(high - low, 0).prod(-1)
    areas = [np.maximum(each[:, 2:] - each[:, :2], 0).prod(-1) for each in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def boxes_of(objects: Sequence[LabelledObject]) -> Float[np.ndarray, "n 4"]:
    """The boxes as an array."""
    return np.asarray([each.box for each in objects], np.float64).reshape(-1, 4)


def overlap(a: Sequence[LabelledObject], b: Sequence[LabelledObject], size: Size) -> Float[np.ndarray, "n m"]:
    """IoU of each object with each: of the masks where both have one, else of the boxes.

    Where one is a crowd (the second list's alone may be), the part of the first that it covers.
    """
    found = iou(boxes_of(a), boxes_of(b))
    for column, each in enumerate(b):
        if each.crowd:
            found[:, column] = _covered(boxes_of(a), np.asarray(each.box, np.float64))
    rows, columns = ([n for n, each in enumerate(objects) if each.segmentation] for objects in (a, b))
    if rows and columns:
        first = [mask_of(a[n].segmentation, size) for n in rows]
        second = [mask_of(b[n].segmentation, size) for n in columns]
        found[np.ix_(rows, columns)] = runs.iou(first, second, [b[n].crowd for n in columns])
    return found


def mask_of(segmentation: Segmentation | None, size: Size) -> Runs:
    """The mask of a segmentation of an image of this size."""
    return segmentation if isinstance(segmentation, Runs) else of_polygons(segmentation or (), size)


def _covered(boxes: Float[np.ndarray, "n 4"], crowd: Float[np.ndarray, "4"]) -> Float[np.ndarray, "n"]:
    common = np.maximum(np.minimum(boxes[:, 2:], crowd[2:]) - np.maximum(boxes[:, :2], crowd[:2]), 0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)


def pairs(a: Sequence[LabelledObject], b: Sequence[LabelledObject], least: float) -> list[tuple[int, int, float]]:
    """Which object of `a` is which of `b`, and their boxes' IoU: the assignment of most IoU together, above `least` each.

    Between places that are equally good the class decides.
    """
    from scipy.optimize import linear_sum_assignment

    found = iou(boxes_of(a), boxes_of(b))
    if not found.size:
        return []
    same = np.asarray([each.label for each in a])[:, None] == np.asarray([each.label for each in b])[None]
    worth = np.where(found > least, found + SAME_CLASS * same, 0)
    chosen = zip(*(each.tolist() for each in linear_sum_assignment(worth, maximize=True)), strict=True)
    return [(row, column, float(found[row, column])) for row, column in chosen if worth[row, column] > 0]

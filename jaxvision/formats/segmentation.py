"""Masks as they are annotated, polygons or run lengths: the box around one, its area, and one made of the other."""

import math
from collections.abc import Sequence

import numpy as np

from jaxvision.errors import DataError
from jaxvision.formats import decimals, rle
from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import LabelledObject, Polygons, Segmentation
from jaxvision.masks import polygons as outlines
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs


def around(segmentation: Segmentation) -> Box:
    """The smallest box around it: around the points of polygons, around the pixels that are on."""
    if isinstance(segmentation, Runs):
        x0, y0, x1, y1 = runs.box(segmentation).tolist()
        return x0, y0, x1, y1
    xs = [x for polygon in segmentation for x in polygon[::2]]
    ys = [y for polygon in segmentation for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def turned(box: Box, degrees: float, about: tuple[float, float]) -> tuple[float, ...]:
    """The corners `x y x y ...` of a box that is turned clockwise about a point, to a billionth of a pixel."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) - about
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    found = corners @ np.array([[cos, sin], [-sin, cos]]) + about
    return tuple((found.round(9) + 0.0).reshape(-1).tolist())


def clamped(points: Sequence[float], size: Size) -> tuple[float, ...]:
    """Points `x y x y ...`, those beyond a border of the image moved to it."""
    height, width = size
    return tuple(min(max(side, 0.0), float(height if place % 2 else width)) for place, side in enumerate(points))


def area(segmentation: Segmentation) -> float:
    """Pixels that are on; of polygons the areas inside them, added up."""
    if isinstance(segmentation, Runs):
        return float(runs.area(segmentation))
    return sum(_inside(np.reshape(polygon, (-1, 2))) for polygon in segmentation)


def measured(each: LabelledObject) -> float:
    """The area of the mask of an object, or of its box where it has none."""
    if each.segmentation:
        return area(each.segmentation)
    x0, y0, x1, y1 = each.box
    return decimals.span(x0, x1).extent * decimals.span(y0, y1).extent


def _inside(points: np.ndarray) -> float:
    """The area inside a polygon that does not cross itself."""
    x, y = (points - points[0]).T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


def as_runs(segmentation: Segmentation, size: Size) -> Runs:
    """The run lengths of it, pixels as COCO's API makes them. Raises ValueError for polygons that are too long to fill."""
    if isinstance(segmentation, Runs):
        return segmentation
    return rle.runs(rle.compact([list(polygon) for polygon in segmentation]), size)


def as_polygons(segmentation: Segmentation) -> Polygons | None:
    """The polygons of it, for run lengths along the edges of the pixels; None for a mask with a hole."""
    if not isinstance(segmentation, Runs):
        return segmentation
    found = outlines.outline(segmentation)
    return None if found is None else tuple(tuple(map(float, each)) for each in found)


def read(segmentation: object, size: Size, where: str) -> Segmentation | None:
    """COCO's segmentation of an image of this size; None for none at all.

    Raises:
      DataError: for a broken one; `where` begins its message.
    """
    if segmentation is None or segmentation == []:
        return None
    try:
        compacted = rle.compact(segmentation)
        if isinstance(compacted, list):
            return tuple(tuple(polygon.tolist()) for polygon in compacted)
        return rle.runs(compacted, size)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None

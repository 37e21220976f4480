"""Regions of an image: the window that an object lies in, and which pixels of it are the object's."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxvision.annotate.records import Annotation
from jaxvision.formats.image_file import Size
from jaxvision.masks import runs
from jaxvision.masks.polygons import of_polygons
from jaxvision.masks.runs import Runs


class Region(NamedTuple):
    """Pixels of an image that an object takes."""

    rows: slice
    columns: slice
    mask: Bool[np.ndarray, "h w"] | None
    """Which pixels of the window are the object's; None: the object has no mask, and all are."""


def region(found: Annotation, size: Size) -> Region | None:
    """The window around an object's mask, or its box where it has none; None where no pixel of the image is in it.

    Args:
      found: the object; the centre of a pixel that belongs to its box lies in the box.
      size: height and width of the upright image.

    Raises:
      ValueError: for run lengths of an image of another size.
    """
    if found.segmentation is None or found.segmentation == ():
        return _of_box(found.box, size)
    given = found.segmentation
    mask = given if isinstance(given, Runs) else of_polygons(given, size)
    if tuple(mask.size) != tuple(size):
        raise ValueError(f"a mask is of {mask.size[0]}x{mask.size[1]} pixels, its image of {size[0]}x{size[1]}")
    x0, y0, x1, y1 = runs.box(mask).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return None
    return Region(slice(y0, y1), slice(x0, x1), runs.columns(mask, x0, x1)[y0:y1])


def _of_box(box: tuple[float, float, float, float], size: Size) -> Region | None:
    (x0, x1), (y0, y1) = (
        [min(max(math.ceil(side - 0.5), 0), limit) for side in sides]
        for sides, limit in ((box[::2], size[1]), (box[1::2], size[0]))
    )
    return Region(slice(y0, y1), slice(x0, x1), None) if x1 > x0 and y1 > y0 else None

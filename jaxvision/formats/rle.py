"""COCO's segmentations of one object: polygons `[[x, y, ...], ...]`, or run lengths `{size, counts}`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvision.formats.image_file import Size

ALLOWED = "polygons [[x, y, ...], ...] of three points or more, or run lengths {size, counts}"


def compact(segmentation: object) -> Any:
    """The segmentation, its polygons as arrays: a tenth of the memory of lists. Raises ValueError for what is none."""
    if isinstance(segmentation, Mapping) and "counts" in segmentation:
        return segmentation
    if isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(each) for each in segmentation]
        if all(each is not None for each in polygons):
            return polygons
    text = repr(segmentation)
    shown = text if len(text) < 80 else f"{text[:77]}..."
    raise ValueError(f"segmentation is {shown}; allowed are {ALLOWED}")


def _polygon(values: object) -> np.ndarray | None:
    """Three points or more, `x y x y ...`; None if it is anything else."""
    if not isinstance(values, list) or len(values) < 6 or len(values) % 2:
        return None
    try:
        points = np.asarray(values)
    except ValueError:  # lists inside, of different lengths
        return None
    fine = points.ndim == 1 and points.dtype.kind in "iuf" and np.isfinite(points).all()
    return points.astype(np.float64) if fine else None


def decoded(compacted: Any, size: Size) -> np.ndarray:
    """The mask of what `compact` gave, bool `h w`. Raises ValueError for run lengths that are none of this size."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    try:
        if isinstance(compacted, list):
            return mask.decode(mask.merge(mask.frPyObjects([each.tolist() for each in compacted], *size))) > 0
        found = mask.decode(compacted)
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise ValueError(f"segmentation: {error}") from None
    if found.shape != size:
        raise ValueError(f"segmentation is of {list(found.shape)} pixels, the image of {list(size)}")
    return found > 0


def fault(segmentation: object, size: Size | None) -> str | None:
    """What is wrong with it, for an image of this size, if that is known; None for a sound one, and for none at all."""
    if segmentation is None or segmentation == []:
        return None
    try:
        compacted = compact(segmentation)
        if size is not None and isinstance(compacted, Mapping):
            decoded(compacted, size)
    except ValueError as error:
        return str(error)
    return None


def repaired(segmentation: object, size: Size) -> object:
    """It without its polygons of less than three points; None if that is not sound either."""
    if isinstance(segmentation, list):
        segmentation = [each for each in segmentation if not isinstance(each, list) or len(each) not in (0, 2, 4)]
    return None if not segmentation or fault(segmentation, size) else segmentation

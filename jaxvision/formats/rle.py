"""COCO's segmentations of one object: polygons `[[x, y, ...], ...]`, or run lengths `{size, counts}`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.errors import shown
from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.masks.polygons import of_polygons
from jaxvision.masks.runs import Runs, box, decode, numbers, of_counts

ALLOWED = "polygons [[x, y, ...], ...] of three points or more, or run lengths {size, counts}"
LONGEST_OUTLINE = 1_000_000
"""Pixels, the larger of across and down of each line added up; a longer outline takes gigabytes to fill."""
MOST_POLYGONS = 10_000
"""Polygons of one object."""
BESIDE = 2.0
"""Pixels that a mask may reach beyond its box: boxes are those of polygons, before they became pixels, or are rounded."""


def compact(segmentation: object) -> Any:
    """The segmentation, its polygons as arrays: a tenth of the memory of lists.

    Raises ValueError for what is none, for too many polygons, and outlines that are too long together.
    """
    if isinstance(segmentation, Mapping) and "counts" in segmentation:
        return segmentation
    if isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(each) for each in segmentation]
        if all(each is not None for each in polygons):
            _check_outline(polygons)
            return polygons
    raise ValueError(f"segmentation is {shown(segmentation, 80)}; allowed are {ALLOWED}")


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


def _check_outline(polygons: list[Any]) -> None:
    lines = (np.diff(np.reshape(each, (-1, 2)), axis=0, append=np.reshape(each, (-1, 2))[:1]) for each in polygons)
    if len(polygons) > MOST_POLYGONS:
        raise ValueError(f"segmentation has {len(polygons):,} polygons; allowed are {MOST_POLYGONS:,}")
    with np.errstate(over="ignore"):
        length = sum(float(np.abs(each).max(1).sum()) for each in lines)
    if length > LONGEST_OUTLINE:
        raise ValueError(f"segmentation: its outlines are {length:.3g} pixels long; allowed are {LONGEST_OUTLINE:,}")


def decoded(compacted: Any, size: Size) -> np.ndarray:
    """The mask of what `compact` gave, bool `h w`. Raises ValueError for run lengths that are none of this size."""
    return decode(runs(compacted, size))


def runs(compacted: Any, size: Size) -> Runs:
    """The run lengths of what `compact` gave. Raises ValueError for run lengths that are none of this size."""
    if not isinstance(compacted, list):
        return _checked(compacted, size)
    try:
        return of_polygons(compacted, size)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"segmentation: {shown(str(error))}") from None


def _checked(given: Mapping[str, Any], size: Size) -> Runs:
    """The run lengths. Raises ValueError for those of another size, or that can't be; native code trusts what they claim."""
    stated, counts, pixels = given.get("size"), given["counts"], size[0] * size[1]
    if stated not in (list(size), tuple(size)):
        turned = ": it is transposed" if stated in (list(size[::-1]), tuple(size[::-1])) else ""
        raise ValueError(f"segmentation is of {shown(stated, 40)} pixels, the image of {list(size)}{turned}")
    if isinstance(counts, list):
        if not all(type(each) is int and 0 <= each <= pixels for each in counts) or sum(counts) != pixels:
            allowed = f"allowed are whole numbers from 0, {pixels:,} together"
            raise ValueError(f"segmentation: counts are {shown(counts, 60)}; {allowed}")
        return of_counts(counts, size)
    lengths = _lengths(counts)
    if lengths is None:
        allowed = "allowed are a list, or COCO's text of run lengths"
        raise ValueError(f"segmentation: counts are {shown(counts, 60)}; {allowed}")
    if lengths.min(initial=0) < 0 or int(lengths.sum()) != pixels:
        value = f"{shown(counts, 60)}, which stand for {int(lengths.sum()):,} pixels"
        raise ValueError(f"segmentation: counts are {value}; allowed are lengths from 0, {pixels:,} together")
    return Runs(size, counts.encode("ascii"))


def _lengths(counts: object) -> np.ndarray | None:
    """The numbers of COCO's text; None for what is no such text."""
    try:
        return numbers(counts.encode("ascii")) if isinstance(counts, str) else None
    except ValueError:
        return None


def is_none(segmentation: object) -> bool:
    """Whether it says that an object has no mask."""
    return segmentation is None or segmentation == []


def look_like_fractions(numbers: np.ndarray) -> bool:
    """Whether numbers that should be pixels lie between 0 and 1, some of them inside."""
    return bool(numbers.min() >= 0 and numbers.max() <= 1 and (numbers % 1).any())


def beyond(compacted: Any, mask: Runs, around: Box) -> str | None:
    """How a mask, and what `compact` gave of it, reaches beyond its box; None where it does not."""
    found = _around(compacted, mask.size) if isinstance(compacted, list) else box(mask)
    outside = np.maximum(np.asarray(around[:2]) - found[:2], 0), np.maximum(found[2:] - np.asarray(around[2:]), 0)
    if max(each.max() for each in outside) <= BESIDE:
        return None
    pixels, stated = (" ".join(f"{side:.6g}" for side in each) for each in (found, around))
    return f"the mask lies in {pixels} (x0 y0 x1 y1), the box is {stated}; allowed are {BESIDE:g} pixels beyond it"


def _around(polygons: Sequence[np.ndarray], size: Size) -> np.ndarray:
    """The smallest box around polygons, cut at the border of the image."""
    points = np.concatenate([np.reshape(each, (-1, 2)) for each in polygons])
    return np.clip(np.concatenate([points.min(0), points.max(0)]), 0, [size[1], size[0]] * 2)


def trimmed(segmentation: object) -> object:
    """It without its polygons of less than three points."""
    if not isinstance(segmentation, list):
        return segmentation
    return [each for each in segmentation if not isinstance(each, list) or len(each) not in (0, 2, 4)]

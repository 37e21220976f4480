"""COCO's segmentations of one object: polygons `[[x, y, ...], ...]`, or run lengths `{size, counts}`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvision.errors import shown
from jaxvision.formats.image_file import Size

ALLOWED = "polygons [[x, y, ...], ...] of three points or more, or run lengths {size, counts}"
LONGEST_OUTLINE = 1_000_000
"""Pixels, the larger of across and down of each line added up; a longer outline takes gigabytes to fill."""
MOST_POLYGONS = 10_000
"""Polygons of one object."""


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
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    if not isinstance(compacted, list):
        _check_runs(compacted, size)
        if isinstance(compacted["counts"], list):
            return _filled(np.asarray(compacted["counts"], np.int64), size)
    try:
        if isinstance(compacted, list):
            return mask.decode(mask.merge(mask.frPyObjects([each.tolist() for each in compacted], *size))) > 0
        found = mask.decode(compacted)
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise ValueError(f"segmentation: {shown(str(error))}") from None
    if found.shape != size:
        raise ValueError(f"segmentation is of {list(found.shape)} pixels, the image of {list(size)}")
    return found > 0


def _check_runs(runs: Mapping[str, Any], size: Size) -> None:
    """Raises ValueError for run lengths of another size, or that can't be; native code allocates what they claim."""
    stated, counts = runs.get("size"), runs["counts"]
    if stated not in (list(size), tuple(size)):
        raise ValueError(f"segmentation is of {shown(stated, 40)} pixels, the image of {list(size)}")
    if isinstance(counts, list):
        pixels = size[0] * size[1]
        if not all(type(each) is int and 0 <= each <= pixels for each in counts) or sum(counts) != pixels:
            allowed = f"allowed are whole numbers from 0, {pixels:,} together"
            raise ValueError(f"segmentation: counts are {shown(counts, 60)}; {allowed}")
    elif not isinstance(counts, str) or not all("0" <= each <= "o" for each in counts):
        raise ValueError(
            f"segmentation: counts are {shown(counts, 60)}; allowed are a list, or COCO's text of run lengths"
        )


def _filled(counts: np.ndarray, size: Size) -> np.ndarray:
    """The mask of uncompressed run lengths, column by column, off first."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T


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

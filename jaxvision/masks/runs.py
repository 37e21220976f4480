"""Run lengths: a mask as COCO stores it, some hundred bytes whatever the size of the image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Runs(NamedTuple):
    """Run lengths of a mask, column by column, off first."""

    size: tuple[int, int]
    """Height and width of the image."""
    counts: bytes
    """COCO's compressed text."""

    def coco(self) -> dict[str, Any]:
        """The mask as COCO's JSON has it: `{"size": [h, w], "counts": text}`."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}


def encode(mask: Bool[np.ndarray, "h w"]) -> Runs:
    """The run lengths of a mask."""
    return of_window(mask, (0, 0), (int(mask.shape[0]), int(mask.shape[1])))


def of_window(mask: Bool[np.ndarray, "h w"], corner: tuple[int, int], size: tuple[int, int]) -> Runs:
    """The run lengths of an image of this size whose only pixels that are on lie in a window; the image itself is never made.

    Args:
      mask: pixels of the window, which lies in the image.
      corner: y and x of its first pixel.
      size: height and width of the image.
    """
    (height, width), (top, left) = size, corner
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = np.asarray(mask, bool).T
    change = np.diff(columns, axis=1)
    starts, ends = ((left + x) * height + top + y for x, y in (np.nonzero(change == step) for step in (1, -1)))
    joined = starts[1:] == ends[:-1]  # a column on to its last pixel, and the next on from its first
    starts, ends = starts[np.append(True, ~joined)[: len(starts)]], ends[np.append(~joined, True)[: len(ends)]]
    borders = np.concatenate([[0], np.stack([starts, ends], 1).reshape(-1), [height * width]])
    counts = np.diff(borders)
    return of_counts(counts[: len(counts) - (counts[-1] == 0 and len(counts) > 1)], size)


def of_counts(counts: Sequence[int] | np.ndarray, size: tuple[int, int]) -> Runs:
    """Run lengths from their numbers, off first, which add up to the pixels of the image."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    listed = [int(each) for each in counts]
    found = mask.frPyObjects({"size": [int(side) for side in size], "counts": listed}, *map(int, size))
    return of_coco(found)


def of_coco(found: Any) -> Runs:
    """Run lengths of COCO's form, `{"size", "counts"}`, compressed."""
    counts = found["counts"]
    height, width = found["size"]
    return Runs((int(height), int(width)), counts.encode("ascii") if isinstance(counts, str) else bytes(counts))


def decode(runs: Runs) -> Bool[np.ndarray, "h w"]:
    """The mask."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    return mask.decode(_coco(runs)) > 0


def area(runs: Runs) -> int:
    """Number of pixels that are on."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    return int(mask.area(_coco(runs)))


def box(runs: Runs) -> Float[np.ndarray, "4"]:
    """The smallest box `x0 y0 x1 y1` around the pixels that are on; zeros where none is."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    x, y, width, height = np.asarray(mask.toBbox(_coco(runs)), np.float64).reshape(-1)
    return np.array([x, y, x + width, y + height])


def iou(detected: Sequence[Runs], annotated: Sequence[Runs], crowd: Sequence[bool]) -> Float[np.ndarray, "d g"]:
    """IoU of each mask of one list with each of the other; where that is a crowd, the part of the first that it covers."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    if not detected or not annotated:
        return np.zeros((len(detected), len(annotated)))
    found = mask.iou([_coco(each) for each in detected], [_coco(each) for each in annotated], list(map(bool, crowd)))
    return np.asarray(found, np.float64).reshape(len(detected), len(annotated))


def union(all: Sequence[Runs]) -> Runs:
    """The pixels that are on in any of these masks, of one size each; one mask or more."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    return of_coco(mask.merge([_coco(each) for each in all]))


def intersection(all: Sequence[Runs]) -> Runs:
    """The pixels that are on in every one of these masks, of one size each; one mask or more."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    return of_coco(mask.merge([_coco(each) for each in all], intersect=True))


def _coco(runs: Runs) -> dict[str, Any]:
    return {"size": list(runs.size), "counts": runs.counts}

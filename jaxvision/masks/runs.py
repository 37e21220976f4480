"""Run lengths: a mask as COCO stores it, some hundred bytes whatever the size of the image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

LONGEST = 8
"""Characters of a number in COCO's text, five bits each; one of more is no length of an image."""


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
    """Run lengths of COCO's form, `{"size", "counts"}`, compressed or as numbers."""
    counts = found["counts"]
    height, width = found["size"]
    if isinstance(counts, list):
        return of_counts(counts, (height, width))
    return Runs((int(height), int(width)), counts.encode("ascii") if isinstance(counts, str) else bytes(counts))


def decode(runs: Runs) -> Bool[np.ndarray, "h w"]:
    """The mask."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    return mask.decode(_coco(runs)) > 0


def columns(runs: Runs, first: int, last: int) -> Bool[np.ndarray, "h _"]:
    """The mask's columns from `first` to before `last`; nothing is made of the others."""
    height = runs.size[0]
    ends = np.cumsum(numbers(runs.counts)).clip(first * height, last * height)
    lengths = np.diff(ends, prepend=first * height)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(last - first, height).T


def numbers(counts: bytes) -> Int[np.ndarray, "_"]:
    """The numbers that COCO's compressed text stands for, off first, whatever they are.

    Raises:
      ValueError: for what is no such text.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    ends = np.flatnonzero(digits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32 or lengths.max() > LONGEST:
        raise ValueError("it is no text of run lengths")
    starts = ends + 1 - lengths
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    found = np.add.reduceat((digits & 31) << 5 * places, starts) - ((digits[ends] >> 4 & 1) << 5 * lengths)
    for first in (1, 2):  # from the fourth on, each is a difference to the one before the last
        found[first::2] = np.cumsum(found[first::2])
    return found


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

"""Polygons and masks: as COCO's API makes pixels of polygons, and back along the edges of the pixels, without loss."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxvision.masks.runs import Runs, decode, encode, of_coco

Polygon = list[int]
"""Corners `x y x y ...` in pixels of the image; the corner of the first pixel is at 0."""


def of_polygons(polygons: Sequence[Sequence[float] | np.ndarray], size: tuple[int, int]) -> Runs:
    """The pixels of an object of these polygons together, as COCO's API has them (`frPyObjects`, then `merge`), bit for bit.

    A polygon that crosses itself is filled where it winds an odd number of times; what lies outside the image is left out.

    Args:
      polygons: corners `x y x y ...` in pixels of the image, three or more of each.
      size: height and width of the image.
    """
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    if not len(polygons):
        return encode(np.zeros(size, bool))
    listed = [np.asarray(each, np.float64).tolist() for each in polygons]
    return of_coco(mask.merge(mask.frPyObjects(listed, *map(int, size))))


def outline(mask: Runs | Bool[np.ndarray, "h w"]) -> list[Polygon] | None:
    """The polygons along the edges of a mask's pixels, of which `of_polygons` makes the same mask; None for one with a hole.

    Pixels that touch at a corner alone are of two polygons, or of one that touches itself there. Where the pixels around
    some that are off touch at their corners alone, that is no hole.
    """
    found = edges(mask)
    return None if any(each.hole for each in found) else [each.polygon for each in found]


class Edge(NamedTuple):
    """A closed line along the edges of pixels."""

    polygon: Polygon
    hole: bool
    """Whether it goes around a hole."""


def edges(mask: Runs | Bool[np.ndarray, "h w"]) -> list[Edge]:
    """All closed lines along the edges of a mask's pixels: outlines, and those around its holes."""
    on = decode(mask) if isinstance(mask, Runs) else np.asarray(mask, bool)
    rows, columns = np.flatnonzero(on.any(1)), np.flatnonzero(on.any(0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    window = np.pad(on[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    corners, across, down = _corners(window)
    found: list[Edge] = []
    for loop in _loops(across, down):
        y, x = corners[loop[0]]  # the upper left one: inside a loop, of the mask but around a hole
        polygon = [int(each) for each in (corners[loop][:, ::-1] + [left, top]).reshape(-1)]
        found.append(Edge(polygon, not window[y + 1, x + 1]))
    return found


def joined(polygons: Sequence[Sequence[float]]) -> list[float]:
    """One polygon of the pixels that an odd number of these cover: each is reached by a line, which is walked back again.

    What is walked there and back cancels out, in COCO's API bit for bit: so holes and parts of an object fit into one
    polygon. The line goes to the first corner of a polygon from the nearest one before it.
    """
    path = np.reshape(np.asarray(polygons[0], np.float64), (-1, 2))
    for each in polygons[1:]:
        points = np.reshape(np.asarray(each, np.float64), (-1, 2))
        near = int(np.argmin(np.sum((path - points[0]) ** 2, 1)))
        path = np.concatenate([path[: near + 1], points, points[:1], path[near:]])
    return path.reshape(-1).tolist()


def _corners(
    window: Bool[np.ndarray, "h w"],
) -> tuple[Int[np.ndarray, "n 2"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Corners y x of the outline of a mask whose border is off, and the other end of the edge across and down from each.

    A corner where two pixels touch is there twice: first as the end of the edge from the left, then of that to the right.
    """
    upper_left, upper_right = window[:-1, :-1], window[:-1, 1:]
    lower_left, lower_right = window[1:, :-1], window[1:, 1:]
    touching = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    y, x = np.nonzero(odd | touching)
    times = 1 + touching[y, x]
    second = np.repeat(np.cumsum(times) - times, times) != np.arange(times.sum())
    y, x = np.repeat(y, times), np.repeat(x, times)
    # Edges meet so that each pixel keeps its own corner: that from the left goes up if the pixel above it is on, else down.
    lower = np.where(touching[y, x] & ~upper_left[y, x], ~second, second)
    across, down = np.arange(len(y)) ^ 1, np.empty(len(y), np.int64)
    by_column = np.lexsort((lower, y, x))
    down[by_column] = by_column[np.arange(len(y)) ^ 1]
    return np.stack([y, x], 1), across, down


def _loops(across: Int[np.ndarray, "n"], down: Int[np.ndarray, "n"]) -> list[list[int]]:
    """Corners of each closed outline, from its upper left one on, in the order in which they follow each other."""
    to, on = across.tolist(), down.tolist()
    found, seen = [], [False] * len(to)
    for start in range(len(to)):
        if seen[start]:
            continue
        loop, corner = [], start
        while not seen[corner]:
            loop += [corner, to[corner]]
            seen[corner] = seen[to[corner]] = True
            corner = on[to[corner]]
        found.append(loop)
    return found

"""Panoptic maps from the masks of queries: every pixel belongs to one thing, to one stuff, or to nothing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvision.masks.taps import Taps, taps
from jaxvision.types import Canvas, MapMasks

VOID = 0
"""The id of pixels without a segment."""
ROWS = 64
"""Rows of the canvas that are looked at together: memory grows with them, not with the queries."""


class Segment(NamedTuple):
    """One thing, or all stuff of one class."""

    id: int
    """Its number in the map, from 1."""
    label: int
    score: float
    """The best of the queries that found it."""
    area: int
    """Number of its pixels in the image file."""


class PanopticMap(NamedTuple):
    """The segments of one image file."""

    ids: Int[np.ndarray, "h w"]
    """The segment of each pixel by its id, int32; VOID where there is none."""
    segments: list[Segment]
    """Those that have pixels, in the order of their ids."""


def merge(
    labels: Int[Array, "n"] | np.ndarray,
    scores: Float[Array, "n"] | np.ndarray,
    masks: MapMasks,
    canvas: Canvas,
    *,
    things: Sequence[bool],
    threshold: float = 0.85,
    smallest: int = 4,
) -> PanopticMap:
    """The segments of one image at the size of its file: DETR's merge (arXiv:2005.12872, section 4.4).

    Every pixel of the canvas goes to the query of the largest logit there, and stuff of one class is one segment. Small
    segments are dropped with all their queries, until none is left; their pixels go to the best of the other queries. The
    file is filled by nearest neighbour. So has it the authors' code but for two slips: ids start at 1 here, and what
    stuff was merged stays merged after a drop (there its other queries count as empty, and their pixels get lost).

    Args:
      labels: of the queries, each without that of no object.
      scores: of the queries, after the softmax over classes.
      masks: of the queries: `logits` is `n h w`.
      canvas: how the image lies on the canvas.
      things: whether each label is a thing; else it is stuff.
      threshold: queries with a score above it take part; below 0.5 also those whose score of no object, which is not known
        here, is higher: the authors' code leaves these out.
      smallest: segments of so many pixels of the file, or fewer, are dropped.

    Returns:
      The map and its segments, ids in the order of the queries; all VOID where none takes part, and outside the window
      that the canvas shows.

    Raises:
      ValueError: if labels, scores and masks are not of as many queries, or `things` doesn't know a label.
    """
    label, score, logits = np.asarray(labels), np.asarray(scores), np.asarray(masks.logits)
    _check(label, score, logits, things)
    taking_part = np.flatnonzero(score > threshold)
    leader = _leaders(label[taking_part], things)
    rows, columns = _file_pixels(canvas)
    best, area = _settled(logits[taking_part], masks.extent, canvas.size, leader, (rows, columns), smallest)

    ids = np.zeros(len(taking_part) + 1, np.int32)  # the last is that of pixels without a query
    found = np.flatnonzero(area > 0)
    ids[:-1][found] = np.arange(1, len(found) + 1)
    segments = []
    for id, query in enumerate(found, 1):
        group = taking_part[leader == query]
        segments.append(Segment(id, int(label[group[0]]), float(score[group].max()), int(area[query])))
    on_canvas = np.pad(ids[np.append(leader, -1)[best]], ((0, 1), (0, 1)))  # a border of VOID for index -1
    return PanopticMap(on_canvas[rows][:, columns], segments)


def _check(labels: np.ndarray, scores: np.ndarray, logits: np.ndarray, things: Sequence[bool]) -> None:
    if logits.ndim != 3 or not len(labels) == len(scores) == len(logits):
        raise ValueError(
            f"labels and scores of n queries go with mask logits `n h w`; got {len(labels)} labels, {len(scores)} scores"
            f" and logits of shape {logits.shape}"
        )
    unknown = labels[(labels < 0) | (labels >= len(things))]
    if len(unknown):
        raise ValueError(
            f"things must say of every label what it is: it has {len(things)}, and label {unknown[0]} is met"
        )


def _leaders(labels: np.ndarray, things: Sequence[bool]) -> Int[np.ndarray, "n"]:
    """The query that stands for each: of a thing itself, of stuff the first of its class."""
    first = {}
    for number, label in enumerate(labels):
        first.setdefault(int(label), number)
    return np.array([n if things[int(label)] else first[int(label)] for n, label in enumerate(labels)], np.int64)


def _file_pixels(canvas: Canvas) -> tuple[Int[np.ndarray, "h"], Int[np.ndarray, "w"]]:
    """The row of the canvas under the middle of each row of the file, and the column under each column; -1 for none."""
    scale, shift = canvas.to_file()
    found = []
    for axis, across in ((0, 1), (1, 0)):
        middle = np.arange(canvas.original_size[axis]) + 0.5
        cell = np.floor((middle - shift[across]) / scale[across]).astype(np.int64)
        found.append(np.where((cell >= 0) & (cell < canvas.size[axis]), cell, -1))
    return found[0], found[1]


def _settled(
    logits: Float[np.ndarray, "n h w"],
    extent: tuple[int, int],
    size: tuple[int, int],
    leader: Int[np.ndarray, "n"],
    pixels: tuple[np.ndarray, np.ndarray],
    smallest: int,
) -> tuple[Int[np.ndarray, "y x"], Int[np.ndarray, "n"]]:
    """The query of each pixel of the content, -1 where all were dropped; the area that each query stands for in the file."""
    along = [_taps_of(logits.shape[1 + axis], extent[axis], size[axis]) for axis in (0, 1)]
    weights = [np.bincount(each[each >= 0], minlength=side) for each, side in zip(pixels, size, strict=True)]
    alive = np.ones(len(logits), bool)
    best = np.full(size, -1, np.int32)
    again = np.arange(size[0])
    while True:
        for start in range(0, len(again), ROWS):
            rows = again[start : start + ROWS]
            best[rows] = _winners(logits, np.flatnonzero(alive), (along[0].of(rows), along[1]))
        area = _areas(best, leader, weights)
        small = alive & (area[leader] <= smallest)
        if not small.any():
            return best, area
        alive &= ~small
        again = np.flatnonzero(np.append(small, False)[best].any(1))


def _taps_of(cells: int, extent: int, pixels: int) -> Taps:
    """The taps of the first `pixels` of a side of `extent` pixels that so many cells cover, as in PyTorch's interpolation."""
    return taps((np.arange(pixels) + 0.5) * cells / extent - 0.5, cells)


def _winners(
    logits: Float[np.ndarray, "n h w"], among: Int[np.ndarray, "m"], sides: tuple[Taps, Taps]
) -> Int[np.ndarray, "r c"]:
    """The query of the largest logit at each pixel, the first of equal ones; -1 where there are none."""
    rows, columns = sides
    along, across = (each.weight.astype(logits.dtype) for each in sides)
    shape = (len(rows.first), len(columns.first))
    best, winner = np.full(shape, -np.inf, logits.dtype), np.full(shape, -1, np.int32)
    for number in among:
        top, bottom = logits[number][rows.first], logits[number][rows.second]
        mixed = top + (bottom - top) * along[:, None]
        left, right = mixed[:, columns.first], mixed[:, columns.second]
        value = left + (right - left) * across[None]
        better = (value > best) | (winner < 0)
        winner[better], best[better] = number, value[better]
    return winner


def _areas(
    best: Int[np.ndarray, "y x"], leader: Int[np.ndarray, "n"], weights: list[np.ndarray]
) -> Int[np.ndarray, "n"]:
    """The pixels of the file whose queries each stands for; of pixels of the canvas, `weights` says how many it fills."""
    filled = weights[0][:, None] * weights[1][None]
    present: Bool[np.ndarray, "y x"] = best >= 0
    found = np.bincount(leader[best[present]], filled[present], minlength=len(leader))
    return found.astype(np.int64)

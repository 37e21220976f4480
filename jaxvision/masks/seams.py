"""Objects of overlapping tiles of one image put together: each once, those that a seam cuts whole again."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxvision.masks.runs import Runs, area, intersection, of_window, union

SAME = 0.5
"""Overlap from which on objects of two tiles are one."""
NEAR = 1 / 64
"""How near to the edge of its tile the box of an object that the edge cuts ends, as a fraction of the side of the tile."""

Windows = Float[np.ndarray, "t 4"]
"""`x0 y0 x1 y1` in pixels of the image: what each tile shows of it."""


class Found(NamedTuple):
    """An object that was found in a tile, in pixels of the whole image."""

    tile: int
    label: int
    score: float
    box: Float[np.ndarray, "4"]
    mask: Runs | None
    """Mask, of the size of the whole image; None for a detector without, whose boxes are then compared."""


def joined(found: Sequence[Found], windows: Windows, size: tuple[int, int]) -> list[Found]:
    """The objects of the image, the best first; of equal scores in the order given.

    Two objects of one class and of two tiles are one where they agree in what both tiles show (IoU), or where the smaller
    one, cut by its tile, lies in the other (intersection over its area), by half. Two of one tile are never one: the best
    agreements come first. Of an object that a tile shows whole its mask there is taken, else the union of all; the score is
    the best.

    Args:
      found: objects of all tiles.
      windows: of the tiles.
      size: height and width of the image.
    """
    cut = [_cut(each, windows[each.tile], size) for each in found]
    groups = [[number] for number in range(len(found))]
    for _, one, other in sorted(_pairs(found, windows, size, cut), key=lambda pair: -pair[0]):
        tiles = [{found[number].tile for number in groups[each]} for each in (one, other)]
        if tiles[0].isdisjoint(tiles[1]):
            merged = groups[one] + groups[other]
            for number in merged:
                groups[number] = merged
    whole = {min(group): _whole(sorted(group), found, cut) for group in groups}
    return sorted((whole[number] for number in sorted(whole)), key=lambda each: -each.score)


def _whole(group: Sequence[int], found: Sequence[Found], cut: Sequence[bool]) -> Found:
    """The object that these are parts or views of."""
    best = max(group, key=lambda number: (not cut[number], found[number].score))
    score = max(found[number].score for number in group)
    if not cut[best] or len(group) == 1:
        return found[best]._replace(score=score)
    boxes = np.stack([found[number].box for number in group])
    masks = [mask for number in group if (mask := found[number].mask) is not None]
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    return found[best]._replace(score=score, box=box, mask=union(masks) if masks else None)


def _cut(each: Found, window: Float[np.ndarray, "4"], size: tuple[int, int]) -> bool:
    """Whether an object ends at an edge of its tile that is none of the image."""
    near = NEAR * (window[2:] - window[:2]).max()
    inner = (window[:2] > 0), (window[2:] < np.asarray(size[::-1]))
    return bool(
        (inner[0] & (each.box[:2] < window[:2] + near)).any() | (inner[1] & (each.box[2:] > window[2:] - near)).any()
    )


def _pairs(
    found: Sequence[Found], windows: Windows, size: tuple[int, int], cut: Sequence[bool]
) -> Iterator[tuple[float, int, int]]:
    """Pairs that are one object: IoU in what both tiles show, and their numbers."""
    by_tile = {tile: [n for n, each in enumerate(found) if each.tile == tile] for tile in {each.tile for each in found}}
    for tiles in combinations(sorted(by_tile), 2):
        zone = _common(windows[tiles[0]], windows[tiles[1]])
        if (zone[2:] <= zone[:2]).any():
            continue
        shown = _rectangle(zone, size)
        for one, other in _candidates([by_tile[tile] for tile in tiles], found, zone):
            agreement, covered = _overlaps(found[one], found[other], zone, shown)
            smaller = min((one, other), key=lambda number: _pixels(found[number]))
            if agreement >= SAME or (covered >= SAME and cut[smaller]):
                yield agreement, one, other


def _candidates(
    numbers: Sequence[Sequence[int]], found: Sequence[Found], zone: Float[np.ndarray, "4"]
) -> Iterator[tuple[int, int]]:
    """Pairs of one class whose boxes meet in what both tiles show."""
    boxes = [np.stack([found[number].box for number in each]) for each in numbers]
    labels = [np.asarray([found[number].label for number in each]) for each in numbers]
    common = _common(_common(boxes[0][:, None], boxes[1][None]), zone[None, None])
    meet: Bool[np.ndarray, "a b"] = (common[..., 2:] > common[..., :2]).all(-1) & (
        labels[0][:, None] == labels[1][None]
    )
    for a, b in zip(*np.nonzero(meet), strict=True):
        yield numbers[0][a], numbers[1][b]


def _overlaps(one: Found, other: Found, zone: Float[np.ndarray, "4"], shown: Runs) -> tuple[float, float]:
    """IoU of two objects in what both tiles show, and the part of the smaller one that lies in the other."""
    if one.mask is None or other.mask is None:
        common = _extent(_common(_common(one.box, other.box), zone))
        parts = [_extent(_common(each.box, zone)) for each in (one, other)]
    else:
        common = area(intersection([one.mask, other.mask, shown]))
        parts = [area(intersection([each, shown])) for each in (one.mask, other.mask)]
    smaller = min(_pixels(one), _pixels(other))
    return common / max(sum(parts) - common, 1e-9), common / max(smaller, 1e-9)


def _pixels(each: Found) -> float:
    """Area of a mask, or of a box."""
    return _extent(each.box) if each.mask is None else area(each.mask)


def _common(one: Float[np.ndarray, "*a 4"], other: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*c 4"]:
    """The box that two boxes share; turned inside out where they share none."""
    return np.concatenate([np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])], -1)


def _extent(box: Float[np.ndarray, "4"]) -> float:
    return float(np.maximum(box[2:] - box[:2], 0).prod())


def _rectangle(box: Float[np.ndarray, "4"], size: tuple[int, int]) -> Runs:
    """The pixels of a box of whole numbers."""
    x0, y0, x1, y1 = box.astype(int).tolist()
    return of_window(np.ones((y1 - y0, x1 - x0), bool), (y0, x0), size)

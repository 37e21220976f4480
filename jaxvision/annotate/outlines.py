"""Shapes of objects from their masks: circle, ellipse, triangle, rectangle, polygon with so many corners, irregular.

The outline runs through the middles of the edges between pixels that are on and pixels that are off. It is cut into 3 to 8
pieces so that a straight line through each lies as near to its points as can be, by dynamic programming; an ellipse of the
mask's second moments is laid beside. What lies nearest, each corner counted against it (by Akaike's criterion), is the
shape, if it lies near enough.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.masks.polygons import outline

FEWEST = 40
"""Pixels of a mask, of a smaller one no shape is told."""
CORNERS = range(3, 9)
"""Corners that a polygon may have."""
BREAKS = 96
"""Points of the outline where a side may begin."""
ROUNDS = 2
"""How often each beginning is moved."""
NOISE = 0.26
"""Root mean square distance, in pixels, between an outline of pixels and the shape that they are of: less is no better."""
FAR = 0.27
"""Greatest such distance of a shape, in pixels, to which `FAR_SIMPLE` or `FAR_POLYGON` is added."""
FAR_SIMPLE, FAR_POLYGON = 0.02, 0.006
"""Fraction of the radius, of the circle of the same area, that a shape may be away, and one of five corners or more."""
ROUND = 1.12
"""Aspect below which an ellipse is a circle."""
SQUARE = 10.0
"""Degrees that the corners of a rectangle may be away from right ones."""
SHARP, FLAT = 15.0, 162.0
"""Degrees that a corner has at least and at most."""
SHORT = 0.4
"""Least side of a polygon of five corners or more, in radii of the circle of the same area: short ones fit any blob."""
SOLID = 0.93
"""Fraction of its convex hull that a mask fills, if it is not irregular, but for a quarter of a pixel along the outline."""
WHOLE = 0.97
"""Fraction of a mask, its holes filled, that its largest piece less the holes has, if it is not irregular."""


class Ellipse(NamedTuple):
    """Ellipse of the same second moments as a mask."""

    centre: Float[np.ndarray, "2"]
    """x y, in pixels."""
    axes: Float[np.ndarray, "2"]
    """Long and short semi-axis, in pixels."""
    along: Float[np.ndarray, "2"]
    """Direction x y of the long axis, of length 1."""


class Outline(NamedTuple):
    """Shape of a mask."""

    shape: str
    corners: int | None
    """Number of corners of a triangle, a rectangle or a polygon; None of others."""
    aspect: float
    """Long over short axis of the ellipse of the same second moments; a rectangle's sides are in the same proportion."""
    orientation: float
    """Degrees of the long axis against the x axis, counterclockwise as one sees it, from 0 to below 180."""
    area: int
    """Pixels."""
    circularity: float
    """Area over that of a circle whose perimeter is that around the mask: 1 for a circle, 0.785 for a square."""


def described(mask: Bool[np.ndarray, "h w"]) -> Outline | None:
    """The shape of a mask; None for one of less than `FEWEST` pixels.

    A mask that the border of the image cuts is taken as it is.
    """
    from scipy.ndimage import binary_fill_holes

    area = int(np.count_nonzero(mask))
    if area < FEWEST:
        return None
    filled = np.asarray(binary_fill_holes(mask))
    pieces, fitted = outlines_of(filled), ellipse(mask)
    holes = np.count_nonzero(filled) - area
    shape, corners = _shape(pieces, bool(_area(pieces[0]) - holes >= WHOLE * (area + holes)), fitted)
    turn = math.degrees(math.atan2(-fitted.along[1], fitted.along[0])) % 180
    circularity = min(4 * math.pi * area / perimeter(pieces) ** 2, 1.0)
    return Outline(shape, corners, float(fitted.axes[0] / fitted.axes[1]), turn, area, circularity)


def ellipse(mask: Bool[np.ndarray, "h w"]) -> Ellipse:
    """The ellipse of the same second moments; pixels are squares, so that one alone has an extent."""
    y, x = np.nonzero(mask)
    points = np.stack([x, y], 1) + 0.5
    centre = points.mean(0)
    spread = (points - centre).T @ (points - centre) / len(points) + np.eye(2) / 12
    values, vectors = np.linalg.eigh(spread)
    return Ellipse(centre, 2 * np.sqrt(values[::-1]), vectors[:, 1])


def perimeter(pieces: Sequence[Float[np.ndarray, "n 2"]]) -> float:
    """The length of outlines that `outlines_of` gives, each point moved to the mean of itself and its neighbours.

    Within 1 % for large circles and rectangles at any turn; 4 % too short for a rectangle whose diagonal is 20 pixels.
    """
    smooth = [(np.roll(each, 1, axis=0) + each + np.roll(each, -1, axis=0)) / 3 for each in pieces]
    return float(sum(np.hypot(*(np.roll(each, -1, axis=0) - each).T).sum() for each in smooth))


def outlines_of(filled: Bool[np.ndarray, "h w"]) -> list[Float[np.ndarray, "n 2"]]:
    """The outline of each piece of a mask without holes, the largest first: the middle x y of each pixel's edge along it."""
    polygons = [np.asarray(each, np.float64).reshape(-1, 2) for each in outline(filled) or ()]
    return [_middles(each) for each in sorted(polygons, key=_area, reverse=True)]


def _shape(pieces: Sequence[Float[np.ndarray, "n 2"]], whole: bool, fitted: Ellipse) -> tuple[str, int | None]:
    """Its name, and its corners if it has straight sides; `whole`: neither holes nor other pieces count."""
    points = pieces[0]
    if not whole or _area(points) + len(points) / 4 < SOLID * _area(_hull(points)):
        return "irregular", None
    radius = math.sqrt(_area(points) / math.pi)
    corners, apart = polygon_of(points, radius)
    sides, off = len(corners), _off_ellipse(points, fitted)
    rounder = _score(off, 5, len(points)) <= _score(apart, 2 * sides, len(points))
    simple = FAR + FAR_SIMPLE * radius
    if (off > simple) if rounder else (apart > (simple if sides <= 4 else FAR + FAR_POLYGON * radius)):
        return "irregular", None
    if rounder:
        return ("circle" if fitted.axes[0] < ROUND * fitted.axes[1] else "ellipse"), None
    right = sides == 4 and np.abs(_angles(corners) - 90).max() <= SQUARE
    return ("triangle" if sides == 3 else "rectangle" if right else "polygon"), sides


def _score(distance: float, parameters: int, points: int) -> float:
    """Akaike's criterion, the smaller the better; neighbours on an outline err together, so a point counts half."""
    return points / 2 * math.log(max(distance, NOISE) ** 2) + 2 * parameters


def _off_ellipse(points: Float[np.ndarray, "n 2"], fitted: Ellipse) -> float:
    """Root mean square distance of points from an ellipse, to first order."""
    across = np.array([-fitted.along[1], fitted.along[0]])
    local = (points - fitted.centre) @ np.stack([fitted.along, across], 1) / fitted.axes
    level = np.hypot(local[:, 0], local[:, 1])
    slope = np.hypot(*(local / fitted.axes).T) / level
    return float(np.sqrt(np.mean(((level - 1) / slope) ** 2)))


def polygon_of(points: Float[np.ndarray, "n 2"], radius: float) -> tuple[Float[np.ndarray, "k 2"], float]:
    """Corners of the polygon of 3 to 8 that fits an outline best, and the root mean square distance of the points from it.

    No corner where no polygon that can be told from a blob fits; the distance is infinite then.
    """
    start = int(np.hypot(*(points - points.mean(0)).T).argmax())  # of a polygon, the farthest point is a corner
    pieces = Pieces(np.roll(points, -start, axis=0))
    best, least = (np.zeros((0, 2)), math.inf), math.inf
    for breaks in map(pieces.moved, pieces.best()):
        distance, corners = pieces.error(breaks), pieces.corners(breaks)
        score = _score(distance, 2 * len(breaks), len(points))
        if score < least and _plausible(corners, radius):
            best, least = (corners, distance), score
    return best


def _plausible(corners: Float[np.ndarray, "k 2"], radius: float) -> bool:
    """Whether corners turn one way, none being too sharp or too flat, and sides are long enough."""
    angles, sides = _angles(corners), np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    closed = abs(angles.sum() - 180 * (len(corners) - 2)) < 1
    return (
        closed
        and angles.min() >= SHARP
        and angles.max() <= FLAT
        and (len(corners) < 5 or sides.min() >= SHORT * radius)
    )


class Pieces:
    """Closed outline `n 2`, and how well straight lines fit pieces of it: `breaks` are the points that these begin at."""

    def __init__(self, points: Float[np.ndarray, "n 2"]):
        self.points, self.count = points, len(points)
        x, y = (np.concatenate([points, points]) - points.mean(0)).T
        sums = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
        self._sums = np.pad(np.cumsum(sums, axis=1), ((0, 0), (1, 0)))

    def costs(self, first: Int[np.ndarray, "*n"], last: Int[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Sum of squared distances of the points from `first` to before `last` from the line that fits them best.

        Infinite for less than two points. Points are numbered on, round and round.
        """
        turns = first // self.count * self.count
        n, x, y, xx, xy, yy = self._sums[:, last - turns] - self._sums[:, first - turns]
        count = np.maximum(n, 1)
        xx, xy, yy = xx - x * x / count, xy - x * y / count, yy - y * y / count
        smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        return np.where(n >= 2, np.maximum(smaller, 0), np.inf)

    def best(self) -> list[tuple[int, ...]]:
        """The best breaks for each number of corners, the first at the first point, among `BREAKS` places at most."""
        at = np.unique(np.linspace(0, self.count, min(BREAKS, self.count) + 1).astype(int))
        cost = np.where(
            at[:, None] < at, self.costs(*np.broadcast_arrays(at[:, None], np.maximum(at, at[:, None]))), np.inf
        )
        total, back = cost[0], {}
        found = []
        for pieces in range(2, CORNERS.stop):
            through = total[:, None] + cost
            back[pieces], total = through.argmin(0), through.min(0)
            if pieces in CORNERS and np.isfinite(total[-1]):
                chain = [len(at) - 1]
                for each in range(pieces, 1, -1):
                    chain.append(int(back[each][chain[-1]]))
                found.append((0, *(int(at[place]) for place in chain[:0:-1])))
        return found

    def moved(self, breaks: tuple[int, ...]) -> tuple[int, ...]:
        """The breaks, each moved in turn, to any point, to where the pieces on both sides of it fit best."""
        places = list(breaks)
        for number in [*range(len(places))] * ROUNDS:
            before, after = places[number - 1], places[(number + 1) % len(places)]
            before -= self.count if number == 0 else 0
            after += self.count if number == len(places) - 1 else 0
            between = np.arange(before + 1, after)
            cost = self.costs(np.full_like(between, before), between) + self.costs(
                between, np.full_like(between, after)
            )
            places[number] = int(between[cost.argmin()])
        return tuple(places)

    def error(self, breaks: tuple[int, ...]) -> float:
        """Root mean square distance of the points from the lines through their pieces."""
        ends = np.asarray([*breaks, breaks[0] + self.count])
        return math.sqrt(float(self.costs(ends[:-1], ends[1:]).sum()) / self.count)

    def corners(self, breaks: tuple[int, ...]) -> Float[np.ndarray, "k 2"]:
        """Where the lines through neighbouring pieces meet; the first corner is that at the first break."""
        ends = [*breaks, breaks[0] + self.count]
        pieces = [self.points[np.arange(first, last) % self.count] for first, last in itertools.pairwise(ends)]
        centres = np.stack([piece.mean(0) for piece in pieces])
        along = [np.linalg.svd(piece - piece.mean(0), full_matrices=False)[2][0] for piece in pieces]
        normals = np.stack([[-y, x] for x, y in along])
        offsets = (normals * centres).sum(1)
        return np.stack([np.linalg.lstsq(normals[[i - 1, i]], offsets[[i - 1, i]])[0] for i in range(len(pieces))])


def _angles(corners: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k"]:
    """Angles between neighbouring sides, in degrees: of a convex polygon they add up to 180 times k - 2."""
    back, on = np.roll(corners, 1, axis=0) - corners, np.roll(corners, -1, axis=0) - corners
    cosine = (back * on).sum(1) / np.maximum(np.hypot(*back.T) * np.hypot(*on.T), 1e-9)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _middles(polygon: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "n 2"]:
    """Middle of each pixel's edge along an outline."""
    following = np.roll(polygon, -1, axis=0)
    steps = np.abs(following - polygon).max(1).astype(int)
    number = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps) + 0.5
    return np.repeat(polygon, steps, axis=0) + np.repeat(np.sign(following - polygon), steps, axis=0) * number[:, None]


def _area(polygon: Float[np.ndarray, "k 2"]) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _hull(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "k 2"]:
    """Corners of the convex hull."""
    from scipy.spatial import ConvexHull

    return points[ConvexHull(points).vertices]

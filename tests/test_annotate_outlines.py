"""Shapes from masks: their names, and their measures against OpenCV's and against geometry."""

import math

import cv2
import numpy as np
import pytest
from outline_cases import NAMES, TOLD, corners_of, draw, drawn, ellipse, grid, inside

from jaxvision.annotate import outlines
from jaxvision.annotate.attributes import finders
from jaxvision.annotate.records import Annotation
from jaxvision.data import synthetic
from jaxvision.masks import runs

SHAPES = {"square": "rectangle", "diamond": "rectangle", "cross": "irregular", "ring": "irregular"}
"""What the shapes of `data.synthetic` are that are called otherwise here."""


def right(count, seed):
    found = [(outlines.described(mask)[:2] == TOLD[name]) for name, mask in drawn(count, seed)]
    return np.mean(found)


def test_shapes_by_name():
    assert right(9 * 4, seed=0) >= 0.9


@pytest.mark.slow
def test_500_shapes_by_name():
    assert right(500, seed=1) >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_large_shape_is_known_at_any_turn(name):
    rng = np.random.default_rng(4)
    assert {outlines.described(draw(name, 40, rng))[:2] for _ in range(2)} == {TOLD[name]}


def test_the_shapes_of_synthetic_images():
    told = []
    for example in synthetic.shapes(8, seed=5, size=200, overlap=0, classes=synthetic.SHAPES).read(np.arange(8)):
        for mask, number in zip(example.objects.masks, example.objects.attributes["shape"], strict=True):
            name = synthetic.SHAPES[number]
            told.append(outlines.described(mask).shape == SHAPES.get(name, name))
    assert len(told) > 15
    assert np.mean(told) >= 0.95


@pytest.mark.parametrize("seed", range(4))
def test_aspect_and_orientation_are_opencvs(seed):
    rng = np.random.default_rng(seed)
    mask = draw("ellipse", 40, rng)
    found = outlines.described(mask)
    points = max(cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    _, sides, angle = cv2.fitEllipse(points)  # through the centres of pixels on the border: half a pixel inside
    assert found.aspect == pytest.approx((max(sides) + 1) / (min(sides) + 1), rel=0.02)
    apart = (found.orientation - (90 - angle)) % 180  # OpenCV's angle is clockwise, from the vertical to the long axis
    assert min(apart, 180 - apart) < 1.5
    assert found.area == mask.sum()


@pytest.mark.parametrize("turn", [0, 30, 70, 90, 135])
def test_orientation_is_counterclockwise_and_a_rectangles_aspect_is_that_of_its_sides(turn):
    along = np.array([math.cos(math.radians(turn)), -math.sin(math.radians(turn))])
    across = np.array([-along[1], along[0]])
    corners = np.stack([i * 50 * along + j * 20 * across for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
    found = outlines.described(inside(corners, *grid(80, (0.2, 0.1))))
    assert found[:2] == ("rectangle", 4)
    assert found.aspect == pytest.approx(2.5, rel=0.02)
    assert min(abs(found.orientation - turn), 180 - abs(found.orientation - turn)) < 1


@pytest.mark.parametrize("turn", [0, 0.1, 0.4, math.pi / 4])
def test_the_perimeter_is_that_of_geometry(turn):
    x, y = grid(60)
    (circle,) = outlines.outlines_of(ellipse(x, y, 50, 50, 0))
    assert outlines.perimeter([circle]) == pytest.approx(100 * math.pi, rel=0.015)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    box = np.array([[-50, -25], [50, -25], [50, 25], [-50, 25]]) @ rotation
    (rectangle,) = outlines.outlines_of(inside(box, x, y))
    assert outlines.perimeter([rectangle]) == pytest.approx(300, rel=0.015)


@pytest.mark.parametrize("name", ["triangle", "rectangle", "pentagon", "octagon"])
def test_corners_lie_where_they_were_put(name):
    rng = np.random.default_rng(3)
    corners = corners_of(name, 50, 0.3, rng)
    mask = inside(corners, *grid(60))
    (points,) = outlines.outlines_of(mask)
    found, distance = outlines.polygon_of(points, 40)
    apart = np.hypot(*(corners[:, None] - (found - np.array(mask.shape[::-1]) / 2)[None]).T)
    assert found.shape == corners.shape
    assert apart.min(0).max() < 1.0
    assert distance < 0.3


def test_the_best_pieces_are_those_of_a_search_through_all():
    rng = np.random.default_rng(1)
    points = np.cumsum(rng.normal(size=(13, 2)), axis=0)
    pieces = outlines.Pieces(points)

    def cost(first, last):
        piece = points[first:last] - points[first:last].mean(0)
        return np.linalg.svd(piece, compute_uv=False)[1] ** 2 if last - first > 1 else np.inf

    least = min(
        (sum(cost(a, b) for a, b in ((0, i), (i, j), (j, k), (k, 13))), (0, i, j, k))
        for i in range(1, 13)
        for j in range(i + 1, 13)
        for k in range(j + 1, 13)
    )
    (four,) = (breaks for breaks in pieces.best() if len(breaks) == 4)
    assert four == least[1]
    assert pieces.error(four) == pytest.approx(math.sqrt(least[0] / 13), abs=1e-9)
    moved = pieces.moved(four)
    assert pieces.error(moved) <= pieces.error(four) + 1e-12


def test_small_pieces_and_small_holes_are_noise_and_large_ones_are_not():
    x, y = grid(60)
    circle = ellipse(x, y, 40, 40, 0)
    speck, hole = circle.copy(), circle.copy()
    speck[2:6, 2:6], hole[70:74, 60:66] = True, False
    assert outlines.described(speck).shape == outlines.described(hole).shape == "circle"
    assert outlines.described(circle & ~ellipse(x, y, 20, 20, 0)).shape == "irregular"
    twice = np.concatenate([circle, circle])
    assert outlines.described(twice).shape == "irregular"


def test_what_the_finder_tells():
    x, y = grid(40)
    masks = inside(np.array([[-30, -10], [30, -10], [30, 10], [-30, 10]]), x, y), ellipse(x, y, 12, 12, 0)
    size = masks[0].shape
    objects = [Annotation(1, "a", (0, 0, 9, 9), runs.encode(mask)) for mask in masks]
    speck = Annotation(3, "a", (0, 0, 9, 9), ((1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0),))
    (finder,) = finders(["shape"])
    found = finder.find(np.zeros((*size, 3), np.uint8), [*objects, speck, Annotation(4, "a", (0, 0, 9, 9))])
    assert found[0] == {
        **{"shape": "rectangle", "corners": 4, "aspect": 3.0, "orientation": 0.0, "area": 1200},
        "circularity": pytest.approx(0.589, abs=0.03),  # 3 pi / 16
    }
    assert {name: found[1][name] for name in ("shape", "aspect")} == {"shape": "circle", "aspect": 1.0}
    assert not {"corners", "orientation"} & set(found[1])
    assert found[2:] == [{}, {}]  # too small; no mask


def test_one_row_of_pixels_has_a_shape_of_some_name():
    for mask in (np.ones((1, 60), bool), np.ones((60, 1), bool), np.eye(60, dtype=bool), np.ones((7, 7), bool)):
        found = outlines.described(mask)
        assert found.shape in {"rectangle", "irregular", "ellipse", "polygon", "triangle"}
        assert all(map(math.isfinite, found[2:]))

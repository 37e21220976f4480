"""Objects that tiles cut, put together: drawn shapes, of which each tile shows what lies in it."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision.masks import runs
from jaxvision.masks.seams import Found, joined

SIZE = (100, 220)
WINDOWS = np.array([[0, 0, 100, 100], [60, 0, 160, 100], [120, 0, 220, 100]], np.float64)


def disc(x, y, radius):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def seen(mask, tile, label=0, score=0.5, with_mask=True):
    """What a tile shows of a mask; None for nothing."""
    x0, y0, x1, y1 = WINDOWS[tile].astype(int)
    part = np.zeros_like(mask)
    part[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    if not part.any():
        return None
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    return Found(tile, label, score, box, runs.encode(part) if with_mask else None)


def everywhere(masks, **options):
    each = [seen(mask, tile, **options) for mask in masks for tile in range(len(WINDOWS))]
    return [found for found in each if found is not None]


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("x", range(12, 210, 7))
def test_an_object_is_found_once_and_whole_wherever_it_lies(x, with_mask):
    mask = disc(x, 50, 12)
    (found,) = joined(everywhere([mask], with_mask=with_mask), WINDOWS, SIZE)
    assert_array_equal(found.box, [max(x - 12, 0), 38, min(x + 12, 220), 62])
    if with_mask:
        assert_array_equal(runs.decode(found.mask), mask)


@pytest.mark.parametrize("with_mask", [True, False])
def test_one_that_no_tile_shows_whole_is_put_together(with_mask):
    mask = np.zeros(SIZE, bool)
    mask[30:60, 20:200] = True
    mask[40:50, 100:120] = False
    (found,) = joined(everywhere([mask], with_mask=with_mask), WINDOWS, SIZE)
    assert_array_equal(found.box, [20, 30, 200, 60])
    if with_mask:
        assert_array_equal(runs.decode(found.mask), mask)


def test_neighbours_in_an_overlap_stay_two():
    masks = [disc(72, 40, 8), disc(89, 40, 8), disc(80, 60, 8)]
    found = joined(everywhere(masks), WINDOWS, SIZE)
    assert sorted(tuple(each.box) for each in found) == [(64, 32, 80, 48), (72, 52, 88, 68), (81, 32, 97, 48)]


def test_of_two_in_one_tile_none_is_lost_though_one_lies_in_the_other():
    """By boxes alone, one within the other."""
    large, small = disc(80, 50, 18), disc(80, 50, 9)
    found = joined(everywhere([large, small], with_mask=False), WINDOWS, SIZE)
    assert sorted(tuple(each.box) for each in found) == [(62, 32, 98, 68), (71, 41, 89, 59)]


def test_a_sliver_at_an_edge_is_part_of_what_the_next_tile_shows():
    whole, sliver = seen(disc(104, 50, 8), 1, score=0.4), seen(disc(104, 50, 8), 0, score=0.9)
    assert sliver.box[2] - sliver.box[0] == 4
    (found,) = joined([sliver, whole], WINDOWS, SIZE)
    assert_array_equal(found.box, whole.box)
    assert (found.tile, found.score) == (1, 0.9)


def test_classes_are_told_apart_and_the_best_come_first():
    mask = disc(80, 50, 8)
    first, second = seen(mask, 0, label=1, score=0.6), seen(mask, 1, label=2, score=0.7)
    found = joined([first, second], WINDOWS, SIZE)
    assert [(each.label, each.score) for each in found] == [(2, 0.7), (1, 0.6)]
    assert joined([], WINDOWS, SIZE) == []


def test_the_four_views_of_a_corner_are_one():
    windows = np.array([[0, 0, 64, 64], [32, 0, 96, 64], [0, 32, 64, 96], [32, 32, 96, 96]], np.float64)
    mask = np.zeros((96, 96), bool)
    mask[20:80, 25:75] = True
    parts = []
    for tile, (x0, y0, x1, y1) in enumerate(windows.astype(int)):
        part = np.zeros_like(mask)
        part[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
        box = np.array([max(x0, 25), max(y0, 20), min(x1, 75), min(y1, 80)], np.float64)
        parts.append(Found(tile, 0, 0.5 + tile / 10, box, runs.encode(part)))
    (found,) = joined(parts, windows, (96, 96))
    assert_array_equal(found.box, [25, 20, 75, 80])
    assert_array_equal(runs.decode(found.mask), mask)
    assert found.score == pytest.approx(0.8)


@pytest.mark.parametrize("with_mask", [True, False])
def test_a_whole_object_inside_another_stays_one_of_its_own(with_mask):
    around = np.zeros(SIZE, bool)
    around[10:90, 20:99] = True
    inner = disc(80, 50, 10)
    outer = seen(around, 0, score=0.9, with_mask=with_mask)
    small = seen(inner, 1, score=0.8, with_mask=with_mask)
    found = joined([outer, small], WINDOWS, SIZE)
    assert [each.score for each in found] == [0.9, 0.8]
    assert_array_equal(found[1].box, [70, 40, 90, 60])

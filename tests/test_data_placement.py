import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxvision.data import placement
from jaxvision.pretrained import preprocessing

sides = st.integers(1, 3000)


def test_keep_leaves_the_pixels_alone_and_refuses_what_is_too_large():
    placer = placement.keep((20, 30))
    assert placer.canvas == (20, 30)
    assert placer.place(None, (20, 7)) == placement.Placement((0, 0, 7, 20), (20, 7))
    for size in ((21, 7), (7, 31)):
        with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} is larger than the canvas 20x30"):
            placer.place(None, size)


def test_stretch_takes_all_to_all():
    assert placement.stretch((8, 9)).place(None, (100, 3)) == placement.Placement((0, 0, 3, 100), (8, 9))


@given(sides, sides)
def test_fit_fills_one_side_and_keeps_the_aspect_to_the_pixel(height, width):
    box, (h, w), padding = placement.letterbox((200, 300)).place(None, (height, width))
    assert padding == (0, 0, 0, 0)
    assert box == (0, 0, width, height)
    assert h == 200 or w == 300
    assert 1 <= h <= 200
    assert 1 <= w <= 300
    scale = min(200 / height, 300 / width)
    assert abs(h - height * scale) <= 0.5 or h == 1
    assert abs(w - width * scale) <= 0.5 or w == 1


@given(sides, sides, st.integers(0, 2**32))
def test_random_boxes_lie_inside_and_are_whole_pixels(height, width, seed):
    placer = placement.random_resized_crop(64)
    (x0, y0, x1, y1), size, _ = placer.place(np.random.default_rng(seed), (height, width))
    assert size == placer.canvas == (64, 64)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert all(side == int(side) for side in (x0, y0, x1, y1))


def boxes(placer, source, count=3000):
    rng = np.random.default_rng(0)
    return np.array([placer.place(rng, source).box for _ in range(count)])


def test_area_and_aspect_of_random_boxes_are_distributed_as_the_paper_says():
    x0, y0, x1, y1 = boxes(placement.random_resized_crop(64, area=(0.1, 0.4)), (5000, 5000)).T
    area, aspect = (x1 - x0) * (y1 - y0) / 5000**2, (x1 - x0) / (y1 - y0)
    assert stats.kstest(area, stats.uniform(0.1, 0.3).cdf).pvalue > 0.01
    low = math.log(3 / 4)
    assert stats.kstest(np.log(aspect), stats.uniform(low, -2 * low).cdf).pvalue > 0.01
    assert stats.kstest(x0 / (5000 - (x1 - x0)), "uniform").pvalue > 0.01
    assert stats.kstest(y0 / (5000 - (y1 - y0)), "uniform").pvalue > 0.01


def test_random_boxes_reach_every_border():
    x0, y0, x1, y1 = boxes(placement.random_resized_crop(8, area=(0.25, 0.25), ratio=(1, 1)), (6, 6), count=400).T
    assert (x0.min(), y0.min(), x1.max(), y1.max()) == (0, 0, 6, 6)


@pytest.mark.parametrize(
    ("source", "box"),
    [
        ((20, 20000), ((20000 - 27) // 2, 0, (20000 - 27) // 2 + 27, 20)),  # 27 = round(20 * 4 / 3)
        ((20000, 20), (0, (20000 - 27) // 2, 20, (20000 - 27) // 2 + 27)),
        ((1, 1), (0, 0, 1, 1)),
        ((1, 5000), (2499, 0, 2500, 1)),
    ],
)
def test_images_that_hold_no_random_box_give_their_centre(source, box):
    assert placement.random_resized_crop(32, area=(0.9, 1)).place(np.random.default_rng(0), source).box == box


@pytest.mark.parametrize(("side", "low"), [(4, 0), (5, 0), (6, 1), (7, 2), (8, 2), (9, 2)])
def test_an_odd_margin_around_the_centre_is_halved_as_in_torchvision(side, low):
    """`int(round((side - crop) / 2.0))` there, so that of two neighbours the even one is taken."""
    placer = placement.resize_and_centre_crop(side, 4)
    assert placer.place(None, (side, side)).window == (low, low, low + 4, low + 4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: placement.random_resized_crop(8, area=(0, 1)), r"area .* got \(0, 1\)"),
        (lambda: placement.random_resized_crop(8, area=(0.5, 1.1)), r"got \(0.5, 1.1\)"),
        (lambda: placement.random_resized_crop(8, ratio=(2, 1)), r"ratio .* got \(2, 1\)"),
        (lambda: placement.resize_and_centre_crop(10, (10, 12)), "resize=10 .* 10x12"),
        (lambda: placement.stretch((0, 3)), r"got \(0, 3\)"),
        (lambda: placement.random_resized_crop(8).place(None, (3, 3)), "needs a random generator"),
    ],
)
def test_what_can_not_be_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_yolox_cuts_off_the_fractions_of_the_sides():
    """YOLOX's preproc resizes to int(width * r), int(height * r), r = min(640 / height, 640 / width)."""
    placer = preprocessing.YOLOX.placer(640)
    for height in range(300, 700, 7):
        for width in range(303, 700, 11):
            r = min(640 / height, 640 / width)
            assert placer.place(None, (height, width)).size == (int(height * r), int(width * r))

import numpy as np
import pytest
from data_encoding import smooth
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxvision.data import placement
from jaxvision.data.decode import decode

sides = st.integers(1, 3000)
seeds = st.integers(0, 2**32)


@given(sides, sides)
def test_the_shortest_side_is_as_long_as_asked_or_the_longest_or_the_canvas(height, width):
    box, (h, w), _ = placement.resize_shortest_edge(200, 333, (333, 300)).place(None, (height, width))
    assert box == (0, 0, width, height)
    assert min(h, w) <= 200
    assert h <= 333
    assert w <= 300
    scale = min(200 / min(height, width), 333 / max(height, width), 300 / width)
    assert abs(h - height * scale) <= 0.5 or h == 1
    assert abs(w - width * scale) <= 0.5 or w == 1


def test_the_sizes_of_faster_rcnn():
    placer = placement.resize_shortest_edge(600, 1000, 1000)
    assert placer.canvas == (1000, 1000)
    for source, size in (((375, 500), (600, 800)), ((500, 375), (800, 600)), ((200, 500), (400, 1000))):
        assert placer.place(None, source).size == size


@given(sides, sides, seeds)
def test_jittered_content_is_within_canvas_and_image_and_keeps_its_scale(height, width, seed):
    placer = placement.large_scale_jitter((200, 300))
    (x0, y0, x1, y1), (h, w), _ = placer.place(np.random.default_rng(seed), (height, width))
    assert 1 <= h <= 200
    assert 1 <= w <= 300
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    scale = min(200 / height, 300 / width)
    for size, length, side, canvas in ((h, y1 - y0, height, 200), (w, x1 - x0, width, 300)):
        resized = size * side / length  # the side of the whole image at this scale, rounded to pixels
        assert abs(resized - round(resized)) < 1e-6 * max(resized, 1)
        assert round(resized) <= max(1, 2 * scale * side + 0.5)
        assert size == min(round(resized), canvas)


def test_the_factor_is_uniform_and_the_window_reaches_every_border():
    placer, rng = placement.large_scale_jitter(500), np.random.default_rng(0)
    found = [placer.place(rng, (5000, 5000)) for _ in range(2000)]
    x0, y0, x1, _ = np.array([each.box for each in found]).T
    factor = np.array([each.size[1] for each in found]) / 500 * 5000 / (x1 - x0)
    assert stats.kstest(factor, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
    large = factor > 1.2
    for start in (x0, y0):
        share = start[large] / (5000 - 5000 / factor[large])
        assert stats.kstest(share, "uniform").pvalue > 0.01
        assert (start[factor < 1] == 0).all()


def test_a_jitter_of_one_is_fit():
    jitter, fit = placement.large_scale_jitter((90, 70), (1.0, 1.0)), placement.letterbox((90, 70))
    for source in ((30, 50), (333, 17), (90, 70)):
        assert jitter.place(np.random.default_rng(0), source) == fit.place(None, source)


def test_pixels_of_a_jittered_image_are_those_of_its_box():
    image = smooth(300, 400)
    placer = placement.large_scale_jitter(128, (1.5, 2.0))
    decoded = decode(image, placer, np.random.default_rng(1))
    x0, y0, x1, y1 = decoded.placement.box
    rows = (y0 + (np.arange(128) + 0.5) * (y1 - y0) / 128).astype(int)
    columns = (x0 + (np.arange(128) + 0.5) * (x1 - x0) / 128).astype(int)
    assert np.abs(decoded.image.astype(int) - image[rows][:, columns]).mean() < 4


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: placement.resize_shortest_edge(800, 600, 900),
            r"short=800, longest=600\): allowed is 1 <= short <= longest",
        ),
        (lambda: placement.resize_shortest_edge(0, 600, 900), "short=0"),
        (lambda: placement.large_scale_jitter(64, (0, 2)), r"scale must be .* got \(0, 2\)"),
        (lambda: placement.large_scale_jitter(64, (2, 1)), r"got \(2, 1\)"),
        (lambda: placement.large_scale_jitter(64).place(None, (3, 3)), "needs a random generator"),
    ],
)
def test_what_can_not_be_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()

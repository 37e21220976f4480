"""SSD's crop against an oracle that draws one window after the other, as the paper and torchvision have it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coloured_scene import CANVAS as SCENE
from coloured_scene import N, apply, coloured, no_nan, pixels_of, same
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxvision.augment import iou_crop
from jaxvision.types import Batch, Labels, Objects

CANVAS, SIZE = (44, 52), (40, 50)
CROP = jax.jit(iou_crop())
SPREAD = 4.0
"""Levels a pixel of the images that tell where their pixels come from."""
BOXES = {
    "one large": [[5, 4, 45, 36]],
    "small ones": [[3, 3, 7, 8], [30, 20, 34, 26], [44, 35, 48, 39]],
    "several": [[0, 0, 20, 30], [18, 10, 42, 28], [40, 30, 50, 40]],
}


def places(rows, boxes, ignore=False):
    """Images whose levels are the column and the row of each pixel, all with these objects, then rows of padding."""
    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    image = np.tile(np.stack([x, y, 0 * x], -1) * SPREAD, (rows, 1, 1, 1)).astype(np.float32)
    filled = np.tile(np.float32([*boxes, *[[10, 10, 40, 30]] * (N - len(boxes))]), (rows, 1, 1))
    valid = np.tile(np.arange(N) < len(boxes), (rows, 1))
    target = Objects(filled, np.zeros((rows, N), np.int32), valid, np.full((rows, N), ignore))
    size, index = np.tile(np.int32([SIZE]), (rows, 1)), np.arange(rows, dtype=np.int32)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0, target))


def windows(result):
    """x0 y0 x1 y1 of the content that each image shows, from the pixels of its middle alone."""
    h, w = SIZE
    found = np.asarray(result.image, np.float64) / SPREAD
    sides = []
    for axis, (line, extent) in enumerate(((found[:, h // 2, :w, 0], w), (found[:, :h, w // 2, 1], h))):
        del axis
        a, b = extent // 2 - 1, extent // 2 + 1  # the middle is never continued beyond the border
        step = (line[:, b] - line[:, a]) / (b - a)
        start = line[:, a] - (a + 0.5) * step
        sides += [start, start + extent * step]
    return np.round(np.stack(sides, 1)[:, [0, 2, 1, 3]], 2)


def best_ious(window, boxes):
    low, high = np.maximum(window[:2], boxes[:, :2]), np.minimum(window[2:], boxes[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    return shared / ((window[2:] - window[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared)


def centres_in(window, boxes):
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((window[:2] < centre) & (centre < window[2:])).all(1)


def fits(window, boxes, least):
    """Whether SSD would take this window."""
    wide, high = window[2:] - window[:2]
    held = centres_in(window, boxes)
    return 0.5 <= wide / high <= 2 and held.any() and best_ious(window, boxes[held]).max() >= least


def oracle(random, boxes):
    h, w = SIZE
    while True:
        least = random.choice([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
        if least == 1:
            return np.array([0.0, 0, w, h])
        for _ in range(40):
            wide, high = int(w * random.uniform(0.3, 1)), int(h * random.uniform(0.3, 1))
            left, top = random.integers(0, w - wide + 1), random.integers(0, h - high + 1)
            window = np.array([left, top, left + wide, top + high], np.float64)
            if fits(window, boxes, least):
                return window


def run(batch, seed=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.tree.map(np.asarray, CROP(jax.random.key(seed), jnp.int32(0), batch))


@pytest.mark.parametrize(
    "name", ["several", *(pytest.param(x, marks=pytest.mark.slow) for x in ("one large", "small ones"))]
)
def test_windows_are_distributed_as_the_oracle_draws_them(name):
    boxes, random = np.array(BOXES[name], np.float64), np.random.default_rng(0)
    found = np.concatenate([windows(run(places(200, BOXES[name]), seed)) for seed in range(5)])
    expected = np.array([oracle(random, boxes) for _ in range(1000)])
    whole = lambda windows: np.all(windows == [0, 0, SIZE[1], SIZE[0]], 1)
    assert abs(whole(found).mean() - whole(expected).mean()) < 0.07  # three standard errors: 0.067
    best = lambda windows: np.array([best_ious(window, boxes).max() for window in windows])
    for figure in (
        lambda w: w[:, 0],
        lambda w: w[:, 1],
        lambda w: w[:, 2] - w[:, 0],
        lambda w: w[:, 3] - w[:, 1],
        best,
    ):
        ours, theirs = figure(found)[~whole(found)], figure(expected)[~whole(expected)]
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("least", [0.1, 0.5, 0.9])
def test_a_window_overlaps_an_object_as_much_as_asked_for(least):
    boxes = np.array(BOXES["several" if least < 0.9 else "one large"], np.float64)
    found = windows(apply(iou_crop((least,)), places(200, boxes)))
    whole = np.all(found == [0, 0, SIZE[1], SIZE[0]], 1)
    assert 0.35 < whole.mean() < (0.65 if least < 0.9 else 1)
    for window in found[~whole]:
        np.testing.assert_array_equal(window, np.round(window))
        assert fits(window, boxes, least - 1e-6)
        assert np.all(window[:2] >= 0)
        assert np.all(window[2:] <= SIZE[::-1])
        assert np.all(window[2:] - window[:2] >= np.floor(0.3 * np.array(SIZE[::-1])))


def test_objects_stay_if_their_centre_is_in_the_window_and_are_cut_there():
    boxes = np.array(BOXES["several"], np.float64)
    result = run(places(200, boxes))
    for i, window in enumerate(windows(result)):
        held = centres_in(window, boxes)
        np.testing.assert_array_equal(result.target.valid[i], [*held, False])
        cut = np.clip(boxes, np.tile(window[:2], 2), np.tile(window[2:], 2)) - np.tile(window[:2], 2)
        moved = cut * np.tile(np.array(SIZE[::-1]) / (window[2:] - window[:2]), 2)
        np.testing.assert_allclose(result.target.boxes[i, :3][held], moved[held], atol=2e-2)


def test_what_is_to_be_ignored_stays_as_far_as_it_is_shown():
    boxes = np.array(BOXES["several"], np.float64)
    batch = places(200, boxes)
    crowd = np.asarray(batch.target.valid) & (np.arange(N) == 1)
    result = run(batch.replace(target=batch.target.replace(ignore=crowd)))
    shown_in_part = 0
    for i, window in enumerate(windows(result)):
        cut = np.clip(boxes[1], np.tile(window[:2], 2), np.tile(window[2:], 2)) - np.tile(window[:2], 2)
        moved = cut * np.tile(np.array(SIZE[::-1]) / (window[2:] - window[:2]), 2)
        assert result.target.valid[i, 1] == ((moved[2:] - moved[:2]).min() >= 1)
        shown_in_part += result.target.valid[i, 1] and not centres_in(window, boxes[1:2])[0]
    assert shown_in_part > 10


@pytest.mark.parametrize("masks", [False, pytest.param(True, marks=pytest.mark.slow)])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_colours_of_an_object_fill_its_box(masks, seed):
    before = coloured(seed, masks=masks)
    after = run(before, seed)
    no_nan(after)
    np.testing.assert_array_equal(after.size, before.size)
    np.testing.assert_array_equal(after.target.area, before.target.area)
    y, x = np.mgrid[: SCENE[0], : SCENE[1]] + 0.5
    for i, j in np.argwhere(after.target.valid):
        assert before.target.valid[i, j]
        shown, (x0, y0, x1, y1) = pixels_of(after.image[i], i * N + j), after.target.boxes[i, j]
        assert not np.any(shown & ~((x > x0 - 0.51) & (x < x1 + 0.51) & (y > y0 - 0.51) & (y < y1 + 0.51)))
        inner = (x > x0 + 2.5) & (x < x1 - 2.5) & (y > y0 + 2.5) & (y < y1 - 2.5)  # a window grows up to 3.3 times
        assert shown[inner].all()
        if masks:
            assert after.target.masks[i, j][inner].all()


def test_without_objects_to_learn_images_stay_whole():
    batch = places(200, BOXES["several"], ignore=True)
    same(run(batch), batch)
    none = batch.replace(target=batch.target.replace(valid=np.zeros_like(batch.target.valid)))
    same(run(none), none)


@pytest.mark.slow
def test_one_row_of_whole_levels_without_content_without_a_target_and_in_a_dict():
    batch = coloured(1, rows=1, dtype=np.uint8)
    nothing = run(batch.replace(size=np.zeros((1, 2), np.int32)))
    no_nan(nothing)
    np.testing.assert_array_equal(nothing.image, batch.image)
    same(run(batch.replace(target=None)), batch.replace(target=None))
    result = run(batch.replace(target={"objects": batch.target, "kind": Labels(jnp.int32([1]))}))
    assert result.image.dtype == np.uint8
    same(result.target["objects"], run(batch).target)


def test_nothing_to_see():
    batch = coloured(2)
    nothing = run(batch.replace(size=np.zeros_like(batch.size)))
    no_nan(nothing)
    np.testing.assert_array_equal(nothing.image, batch.image)


def test_what_cannot_be_is_refused():
    for options, message in [
        ({"min_ious": ()}, r"min_ious=\(\)"),
        ({"min_ious": (1.5,)}, "0 to 1"),
        ({"trials": 0}, "trials=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            iou_crop(**options)
    with pytest.raises(TypeError, match="iou_crop needs Objects in batch.target, got Labels"):
        run(coloured(0).replace(target=Labels(jnp.zeros(5, np.int32))))

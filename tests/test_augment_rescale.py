import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coloured_scene import CANVAS, N, apply, coloured, no_nan, pixels_of, same
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxvision.augment import chain, expand, scale_jitter, sometimes
from jaxvision.types import Labels, SegmentationMap

JITTER, EXPAND = scale_jitter((0.3, 2.0)), expand(3.0, fill=(1, 2, 3))
JITTED = {name: jax.jit(augment) for name, augment in (("jitter", JITTER), ("expand", EXPAND))}
EACH = pytest.mark.parametrize("name", JITTED)


def run(name, batch, seed):
    with jax.numpy_dtype_promotion("strict"):
        return jax.tree.map(np.asarray, JITTED[name](jax.random.key(seed), jnp.int32(0), batch))


def zoom_of(before, after):
    """Of y and x, from boxes that are whole in both."""
    sides = lambda boxes: (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    return np.median(sides(after) / sides(before), axis=0)


def inner(box, by):
    """The pixels of the canvas whose centres lie at least so far inside."""
    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    x0, y0, x1, y1 = box
    return (x > x0 + by) & (x < x1 - by) & (y > y0 + by) & (y < y1 - by)


@EACH
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_colours_of_an_object_fill_its_box_and_lie_nowhere_else(name, seed):
    before = coloured(seed)
    after = run(name, before, seed)
    no_nan(after)
    for i, objects in enumerate(after.target.valid):
        height, width = after.size[i]
        content = np.zeros(CANVAS, bool)
        content[:height, :width] = True
        for j in np.flatnonzero(np.asarray(before.target.valid)[i]):
            box, shown = after.target.boxes[i, j], pixels_of(after.image[i], i * N + j)
            assert not np.any(shown & ~content)
            if not objects[j]:
                assert not shown.any()
                continue
            assert np.all(box >= 0)
            assert np.all(box <= [width, height, width, height])
            assert not np.any(shown & ~inner(box, -0.01))
            assert np.all(shown[inner(box, 2.0)])
        assert not np.any(objects & ~np.asarray(before.target.valid)[i])
    for field in ("labels", "ignore", "area"):
        np.testing.assert_array_equal(getattr(after.target, field), getattr(before.target, field))


@pytest.mark.slow
def test_jitter_draws_its_factor_evenly_and_a_window_of_what_is_too_large():
    before = coloured(3, rows=300)
    after = apply(scale_jitter((0.5, 2.0)), before)
    size, old = np.asarray(after.size), np.asarray(before.size)
    smaller = np.all(size < CANVAS, 1)
    factor = (size / old)[smaller]
    np.testing.assert_allclose(factor[:, 0], factor[:, 1], atol=0.05)  # whole pixels
    assert 0.48 < factor.min() < 0.52
    # Evenly over 0.5 to 2: as many up to 0.75 as 0.25 / 1.5.
    assert abs(np.mean(smaller & (size[:, 0] <= 0.75 * old[:, 0])) - 1 / 6) < 0.05
    assert np.all(size <= CANVAS)
    cut = ~after.target.valid & np.asarray(before.target.valid)
    assert 0.05 < cut[~smaller].mean() < 0.4  # windows leave objects outside
    assert not cut[smaller].any()
    outside = np.arange(CANVAS[0])[None, :] >= size[:, :1]
    assert not np.any(after.image[outside])


def test_jitter_shows_any_window_of_what_is_too_large():
    before = coloured(10, rows=300)
    after = apply(scale_jitter((2.0, 2.0)), before)
    free = 2 * np.asarray(before.size) - CANVAS
    start = (2 * np.asarray(before.target.boxes) - after.target.boxes)[..., 1::-1]
    known = after.target.valid[..., None] & (after.target.boxes[..., 1::-1] > 0)
    free = np.broadcast_to(free[:, None], start.shape)
    shares = start[known & (free > 3)] / free[known & (free > 3)]
    assert np.all((shares > -1e-3) & (shares < 1 + 1e-3))
    assert stats.kstest(shares, "uniform").statistic < 0.1  # whole pixels, and some of them are known from two objects


def test_an_expanded_image_is_whole_and_lies_anywhere_in_the_filled_area():
    before = coloured(4, rows=300)
    after = apply(EXPAND, before)
    np.testing.assert_array_equal(after.size, before.size)
    np.testing.assert_array_equal(after.target.valid, before.target.valid)
    ratios, places = [], []
    for i, (h, w) in enumerate(np.asarray(after.size)):
        filled = np.abs(after.image[i, :h, :w] - [1, 2, 3]).max(-1) == 0
        rows, columns = np.flatnonzero(~filled.all(1)), np.flatnonzero(~filled.all(0))
        high, wide = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
        assert not filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()
        ratios.append(h / high)
        if high < h - 4:
            places.append(rows[0] / (h - high))
        valid = after.target.valid[i]
        if valid.any():
            zoom = zoom_of(np.asarray(before.target.boxes)[i][valid], after.target.boxes[i][valid])
            np.testing.assert_allclose(zoom, [high / h, wide / w], rtol=1e-3)
        outside = np.ones(CANVAS, bool)
        outside[:h, :w] = False
        assert np.all(after.image[i][outside] == 17)
    assert abs(np.mean(ratios) - 2) < 0.1  # evenly from 1 to 3
    assert 0.4 < np.mean(places) < 0.6
    assert min(places) < 0.05
    assert max(places) > 0.95


@pytest.mark.parametrize("name", ["jitter", pytest.param("expand", marks=pytest.mark.slow)])
def test_masks_and_maps_go_where_the_pixels_go(name):
    before = coloured(6, masks=True)
    scene = SegmentationMap(before.target.masks.any(1).astype(jnp.int32), before.image[..., 0] > 60)
    after = run(name, before.replace(target={"objects": before.target, "scene": scene}), 6)
    objects, scene = after.target["objects"], after.target["scene"]
    plain = run(name, coloured(6), 6).target
    np.testing.assert_array_equal(objects.valid, plain.valid)
    np.testing.assert_allclose(objects.boxes[objects.valid], plain.boxes[plain.valid], atol=1.01)
    for i, j in np.argwhere(objects.valid):
        box = plain.boxes[i, j]
        assert np.all(objects.masks[i, j][inner(box, 0.01)])
        assert not np.any(objects.masks[i, j] & ~inner(box, -0.01))
        assert np.all(scene.label[i][objects.masks[i, j]] == 1)
    for i, (h, w) in enumerate(after.size):
        if name == "jitter":
            assert not scene.valid[i, h:].any()
            assert not objects.masks[i, :, h:].any()
            assert not objects.masks[i, :, :, w:].any()


@pytest.mark.slow
@EACH
def test_nothing_to_see_and_one_row(name):
    batch = coloured(7, rows=1, dtype=np.uint8)
    empty = batch.replace(size=np.zeros((1, 2), jnp.int32), target=batch.target.replace(valid=np.zeros((1, N), bool)))
    for each in (batch, empty):
        after = run(name, each, 0)
        assert after.image.dtype == np.uint8
        assert after.size.dtype == np.int32
        no_nan(after)
    assert not after.target.valid.any()
    np.testing.assert_array_equal(after.size, [[0, 0]])
    labels = Labels(jnp.int32([3]))
    same(run(name, batch.replace(target=labels), 0).target, labels)


@pytest.mark.slow
def test_no_factor_changes_nothing():
    batch = coloured(8, dtype=np.uint8)
    result = apply(chain(scale_jitter((1.0, 1.0)), expand(1.0)), batch)
    inside = pixels_of(batch.image, 0, 255) & (np.asarray(batch.image) != 17).any(-1)
    np.testing.assert_array_equal(result.image[inside], np.asarray(batch.image)[inside])
    same(result.target, batch.target)


@pytest.mark.slow
def test_sometimes_expands_half_of_them():
    after = apply(sometimes(0.5, expand(4.0, fill=0.0)), coloured(9, rows=200))
    whole = [(image[:h, :w] >= 17).all() for image, (h, w) in zip(after.image, after.size, strict=True)]
    assert 0.4 < np.mean(whole) < 0.65


def test_what_cannot_be_is_refused():
    for make, told in [
        (lambda: scale_jitter((0.0, 1.0)), r"scale=\(0.0, 1.0\)"),
        (lambda: scale_jitter((2.0, 1.0)), "a range within above 0, low <= high"),
        (lambda: expand(0.5), "ratio=0.5"),
        (lambda: expand(fill=300), "fill=300"),
        (lambda: apply(expand(fill=(1, 2)), coloured(0)), "the image has 3 channels"),
    ]:
        with pytest.raises(ValueError, match=told):
            make()
    with pytest.raises(TypeError, match="scale_jitter cannot move batch.target: of type tuple"):
        apply(scale_jitter(), coloured(0).replace(target=(1,)))

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coloured_scene import CANVAS, N, apply, box_of, coloured, no_nan, pixels_of, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.augment import chain, mosaic, scale_jitter, sometimes
from jaxvision.types import Labels, SegmentationMap

ROWS = 5
MOSAIC = jax.jit(mosaic(close=100))


def run(batch, seed=0, step=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.tree.map(np.asarray, MOSAIC(jax.random.key(seed), jnp.int32(step), batch))


def scene(seed, **options):
    """With rows for the objects of two images."""
    batch = coloured(seed, ROWS, **options)
    return batch.replace(target=jax.tree.map(lambda x: np.concatenate([x, np.zeros_like(x)], 1), batch.target))


def visible(before, image):
    """Boxes by label of the objects that are shown enough of, from the pixels alone."""
    found, whole = {}, np.asarray(before.target.boxes)
    for i, j in np.argwhere(np.asarray(before.target.valid)):
        shown = pixels_of(image, i * N + j)
        if not shown.any():
            continue
        box = box_of(shown)
        assert shown.sum() == (box[2] - box[0]) * (box[3] - box[1])
        full = (whole[i, j, 2] - whole[i, j, 0]) * (whole[i, j, 3] - whole[i, j, 1])
        enough = shown.sum() >= 0.1 * full and min(box[2] - box[0], box[3] - box[1]) >= 2
        if enough or shown.sum() == full:
            found[int(i * N + j)] = box
    return found


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_objects_are_those_whose_pixels_are_shown_and_of_too_many_the_largest(seed):
    check(seed)


def test_more_objects_than_rows_and_fewer():
    counts = [count for seed in range(5) for count in check(seed)]
    assert max(counts) > 2 * N > min(counts)


def check(seed):
    """How many objects are shown enough of in each image."""
    before = scene(seed)
    after = run(before, seed)
    no_nan(after)
    np.testing.assert_array_equal(after.size, np.tile([CANVAS], (ROWS, 1)))
    ignored, counts = np.asarray(before.target.ignore)[:, :N].ravel(), []
    for i in range(ROWS):
        shown = visible(before, after.image[i])
        rank = {k: (ignored[k], -(b[2] - b[0]) * (b[3] - b[1])) for k, b in shown.items()}
        valid = after.target.valid[i]
        labels, boxes = after.target.labels[i][valid].tolist(), after.target.boxes[i][valid].tolist()
        assert boxes == [shown[k] for k in labels]
        assert [rank[k] for k in labels] == sorted(rank.values())[: 2 * N]
        np.testing.assert_array_equal(after.target.ignore[i][valid], ignored[labels])
        np.testing.assert_array_equal(after.target.area[i][valid], 1000 + np.array(labels))
        counts.append(len(shown))
    return counts


def test_four_images_meet_in_a_point_in_the_middle():
    level = np.arange(1, 201, dtype=np.uint8)
    batch = coloured(0, rows=200, dtype=np.uint8)
    image = np.broadcast_to(level[:, None, None, None], batch.image.shape)
    full = jnp.tile(jnp.int32([CANVAS]), (200, 1))
    after = apply(mosaic(), batch.replace(image=jnp.asarray(image), size=full, target=None))
    assert after.image.dtype == np.uint8
    points, used = [], np.zeros((4, 201), int)
    for each in after.image[..., 0].astype(int):
        y = np.flatnonzero(np.diff(each[:, 0]))[0] + 1
        x = np.flatnonzero(np.diff(each[0]))[0] + 1
        corners = each[:y, :x], each[:y, x:], each[y:, :x], each[y:, x:]
        assert all(np.ptp(corner) == 0 for corner in corners)
        four = [corner[0, 0] for corner in corners]
        assert len(set(four)) == 4
        used[range(4), four] += 1
        points.append((y / CANVAS[0], x / CANVAS[1]))
    assert np.all(used[:, 1:] == 1)  # each image once in each corner
    np.testing.assert_array_equal(after.image[:, 0, 0, 0], level)
    assert 0.18 < np.min(points) < 0.25
    assert 0.75 < np.max(points) < 0.82
    np.testing.assert_allclose(np.mean(points, 0), 0.5, atol=0.04)


def test_pixels_are_copied_and_the_rest_is_grey():
    before = scene(2)
    after = run(before)
    levels = {tuple(map(int, pixel)) for image in after.image for pixel in image.reshape(-1, 3)}
    inside = {
        tuple(map(int, pixel))
        for image, (h, w) in zip(np.asarray(before.image), before.size, strict=True)
        for pixel in image[:h, :w].reshape(-1, 3)
    }
    assert levels - inside == {(114, 114, 114)}


@pytest.mark.parametrize("valid", [[1, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
def test_an_invalid_image_is_shown_in_none_and_stays(valid):
    valid = np.array(valid, bool)
    before = scene(3).replace(valid=jnp.asarray(valid))
    after = run(before)
    no_nan(after)
    same(jax.tree.map(lambda x: x[~valid], after), jax.tree.map(lambda x: np.asarray(x)[~valid], before))
    for i in np.flatnonzero(valid):
        rows = after.target.labels[i][after.target.valid[i]] // N
        assert np.all(valid[rows])
        for label in range(ROWS * N):
            assert valid[label // N] or not pixels_of(after.image[i], label).any()


def test_masks_are_the_pixels_and_maps_go_along():
    before = coloured(4, ROWS, masks=True)
    before = before.replace(target=before.target.replace(attributes={"height": 2.0 * before.target.area}))
    scene = SegmentationMap(before.image[..., 0].astype(jnp.int32), before.image[..., 0] < 200)
    after = apply(mosaic(), before.replace(target={"objects": before.target, "scene": scene}))
    objects, scene = after.target["objects"], after.target["scene"]
    assert objects.valid.sum() > 5
    for i, j in np.argwhere(objects.valid):
        np.testing.assert_array_equal(objects.masks[i, j], pixels_of(after.image[i], objects.labels[i, j]))
        assert objects.boxes[i, j].tolist() == box_of(objects.masks[i, j])
    np.testing.assert_array_equal(objects.attributes["height"], 2 * objects.area)
    grey = (after.image == 114).all(-1)
    np.testing.assert_array_equal(scene.valid, (after.image[..., 0] < 200) & ~grey)
    np.testing.assert_array_equal(scene.label[~grey], after.image[..., 0][~grey].astype(int))


def test_from_the_closing_step_on_nothing_changes():
    batch = scene(5)
    for step in (100, 101, 2**31 - 1):
        same(run(batch, step=step), batch)
    assert np.any(run(batch, step=99).image != np.asarray(batch.image))


@pytest.mark.parametrize("rows", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_fewer_than_four_images(rows):
    before = coloured(6, rows)
    after = apply(mosaic(), before)
    no_nan(after)
    for i in range(rows):
        for box, label in zip(after.target.boxes[i], after.target.labels[i], strict=True):
            x0, y0, x1, y1 = box.astype(int)
            assert pixels_of(after.image[i], label)[y0:y1, x0:x1].all()


def test_images_without_objects_and_without_content():
    batch = scene(7)
    empty = batch.replace(target=batch.target.replace(valid=np.zeros_like(batch.target.valid)))
    assert not run(empty).target.valid.any()
    nothing = run(batch.replace(size=np.zeros_like(batch.size)))
    assert np.all(nothing.image == 114)
    assert not nothing.target.valid.any()


@pytest.mark.slow
def test_it_is_put_together_with_others():
    batch = coloured(8, ROWS, dtype=np.uint8)
    result = apply(sometimes(0.5, chain(scale_jitter((0.5, 1.5)), mosaic(close=3))), batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), result) == jax.tree.map(lambda x: (x.shape, x.dtype), batch)


def test_what_cannot_be_is_refused():
    for options in ({"close": -1}, {"fill": 256}):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            mosaic(**options)
    labels = Labels(jnp.zeros(ROWS, jnp.int32))
    batch = scene(0)
    for target, told in ((labels, "batch.target, of"), ({"scene": labels}, r"batch.target\['scene'\], of")):
        with pytest.raises(TypeError, match=f"mosaic cannot mix {told} type Labels; allowed: Objects"):
            run(batch.replace(target=target))
    with pytest.raises(TypeError, match=r"mosaic cannot move batch.given"):
        run(batch.replace(given=jnp.zeros((ROWS, 3))))

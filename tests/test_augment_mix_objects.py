import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coloured_scene import CANVAS, N, apply, coloured, no_nan, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.augment import mixup_objects
from jaxvision.types import Labels, SegmentationMap

ROWS = 5
MIXUP = jax.jit(mixup_objects(1.5, close=100))


def run(batch, seed=0, step=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.tree.map(np.asarray, MIXUP(jax.random.key(seed), jnp.int32(step), batch))


def with_weights(batch):
    return batch.replace(target=batch.target.replace(weight=np.ones(batch.target.valid.shape, np.float32)))


def content(batch, i):
    """The image on black."""
    image = np.zeros((*CANVAS, 3))
    h, w = np.asarray(batch.size)[i]
    image[:h, :w] = np.asarray(batch.image)[i, :h, :w]
    return image


def share_of(before, after, i):
    """Of the image itself, from the pixels alone."""
    mine, other = content(before, i), content(before, i - 1)
    apart = np.abs(mine - other) > 20
    return np.median((after.image[i] - other)[apart] / (mine - other)[apart])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_pixels_and_weights_have_the_same_shares_and_the_largest_objects_stay(seed):
    before = coloured(seed, ROWS)
    after = run(before, seed)
    no_nan(after)
    label, boxes, valid, ignore, area = (
        np.asarray(getattr(before.target, name)) for name in ("labels", "boxes", "valid", "ignore", "area")
    )
    size = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    for i in range(ROWS):
        share = share_of(before, after, i)
        content_size = np.maximum(before.size[i], before.size[i - 1])
        np.testing.assert_array_equal(after.size[i], content_size)
        mixed = share * content(before, i) + (1 - share) * content(before, i - 1)
        mixed[content_size[0] :] = np.asarray(before.image)[i, content_size[0] :]
        mixed[:, content_size[1] :] = np.asarray(before.image)[i, :, content_size[1] :]
        np.testing.assert_allclose(after.image[i], mixed, atol=2e-2)
        there = [(row, j, part) for row, part in ((i, share), (i - 1, 1 - share)) for j in np.flatnonzero(valid[row])]
        there.sort(key=lambda each: (ignore[each[:2]], -size[each[:2]]))
        expected = [[label[r, j], *boxes[r, j], ignore[r, j], area[r, j], part] for r, j, part in there[:N]]
        kept, found = after.target.valid[i], after.target
        columns = [found.labels[i], *found.boxes[i].T, found.ignore[i], found.area[i], found.weight[i]]
        np.testing.assert_allclose(np.stack(columns, 1)[kept], np.reshape(expected, (-1, 8)), atol=1e-3)


def test_half_of_each_for_some_of_them():
    share = share_of_levels(mixup_objects(math.inf, probability=0.3))
    assert set(share) == {0.5, 1.0}
    assert 0.2 < np.mean(share == 0.5) < 0.4


@pytest.mark.slow
def test_the_share_is_drawn_from_beta():
    share = share_of_levels(mixup_objects(1.5))
    np.testing.assert_allclose([share.mean(), share.var()], [1 / 2, 1 / 16], atol=0.02)


def share_of_levels(mix):
    """Of 300 images that are black or of level 200 in turn."""
    batch = coloured(0, rows=300)
    level = np.where(np.arange(300) % 2, 200, 0).astype(np.float32)[:, None, None, None]
    image = np.broadcast_to(level, batch.image.shape)
    mixed = apply(mix, batch.replace(image=image, size=np.full((300, 2), 20, np.int32), target=None)).image[:, 0, 0, 0]
    return np.where(np.arange(300) % 2, mixed, 200 - mixed) / 200


@pytest.mark.slow
def test_weights_that_there_were_are_multiplied():
    weight = jnp.tile(jnp.float32([[1, 2, 0.5, 0]]), (ROWS, 1))
    plain, weighted = run(coloured(1, ROWS)), run(coloured(1, ROWS, weight=weight))
    valid = plain.target.valid
    factor = np.asarray(weight).ravel()[plain.target.labels[valid]]
    np.testing.assert_allclose(weighted.target.weight[valid], factor * plain.target.weight[valid], atol=1e-6)
    np.testing.assert_array_equal(weighted.target.labels, plain.target.labels)


@pytest.mark.slow
def test_masks_are_kept():
    before = coloured(3, ROWS, masks=True)
    after, masks = run(before), np.asarray(before.target.masks).reshape(-1, *CANVAS)
    for i, j in np.argwhere(after.target.valid):
        np.testing.assert_array_equal(after.target.masks[i, j], masks[after.target.labels[i, j]])


@pytest.mark.parametrize("valid", [[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]])
def test_an_invalid_image_neither_mixes_nor_is_mixed(valid):
    valid = np.array(valid, bool)
    before = coloured(4, ROWS).replace(valid=jnp.asarray(valid))
    after = run(before)
    no_nan(after)
    alone = ~valid | ~np.roll(valid, 1)
    rows = lambda tree: jax.tree.map(lambda x: np.asarray(x)[alone], tree)
    same(rows(after), rows(with_weights(before)))
    assert np.any(after.image[~alone] != np.asarray(before.image)[~alone]) == np.any(~alone)


def test_from_the_closing_step_on_nothing_is_mixed():
    batch = coloured(5, ROWS)
    same(run(batch, step=100), with_weights(batch))
    assert np.any(run(batch, step=99).image != np.asarray(batch.image))


@pytest.mark.slow
def test_a_batch_of_one_stays_and_whole_levels_stay_whole():
    same(run(coloured(5, 1)), with_weights(coloured(5, 1)))
    whole, floats = run(coloured(5, ROWS, dtype=np.uint8)).image, run(coloured(5, ROWS)).image
    assert whole.dtype == np.uint8
    assert np.abs(whole - floats).max() <= 0.5 + 1e-4


def test_images_without_objects_and_without_content():
    batch = coloured(6, ROWS)
    assert not run(
        batch.replace(target=batch.target.replace(valid=np.zeros_like(batch.target.valid)))
    ).target.valid.any()
    nothing = run(batch.replace(size=np.zeros_like(batch.size)))
    np.testing.assert_array_equal(nothing.image, batch.image)
    assert not nothing.target.valid.any()


def test_what_cannot_be_is_refused():
    for options in ({"alpha": 0}, {"alpha": math.nan}, {"probability": 1.5}, {"close": -1}):
        with pytest.raises(ValueError, match=rf"mixup_objects\({next(iter(options))}={next(iter(options.values()))}"):
            mixup_objects(**options)
    batch = coloured(0, ROWS)
    for target in (
        Labels(jnp.zeros(ROWS, jnp.int32)),
        SegmentationMap(jnp.zeros((ROWS, *CANVAS), jnp.int32), jnp.ones((ROWS, *CANVAS), bool)),
    ):
        with pytest.raises(TypeError, match=f"mixup_objects cannot mix batch.target, of type {type(target).__name__}"):
            run(batch.replace(target=target))

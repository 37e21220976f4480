import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from jaxvision.augment import flip, pad_and_crop
from jaxvision.augment.keys import row_keys
from jaxvision.types import Batch, Labels, Objects, SegmentationMap

CANVAS = (7, 9)
SIZES = [(7, 9), (5, 9), (7, 4), (3, 6), (1, 1), (0, 0)]
DTYPES = [jnp.uint8, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (jnp.float32, jnp.bfloat16))]


def make_batch(sizes=SIZES, canvas=CANVAS, *, channels=3, dtype=jnp.uint8, target=None, given=None, seed=0):
    """Random pixels everywhere: the canvas around the content is no black."""
    image = np.random.default_rng(seed).integers(0, 256, (len(sizes), *canvas, channels))
    size = jnp.asarray(sizes, jnp.int32)
    return Batch(
        image=jnp.asarray(image, dtype),
        size=size,
        original_size=size,
        index=jnp.arange(len(sizes), dtype=jnp.int32),
        valid=jnp.ones(len(sizes), bool),
        target=target,
        given=given,
    )


def apply(augment, batch, seed=0):
    return jax.jit(augment)(jax.random.key(seed), jnp.zeros((), jnp.int32), batch)


def flipped_by_numpy(values, size):
    """A map or masks [... h w] of one image, the content reversed."""
    h, w = size
    result = np.array(values)
    result[..., :h, :w] = result[..., :h, :w][..., ::-1]
    return result


def make_objects(b, n=5, masks=True, seed=1):
    random = np.random.default_rng(seed)
    corners = np.sort(random.integers(0, 8, (b, n, 2, 2)), axis=-2).reshape(b, n, 4)
    return Objects(
        boxes=jnp.asarray(corners, jnp.float32),
        labels=jnp.asarray(random.integers(0, 3, (b, n)), jnp.int32),
        valid=jnp.asarray(random.integers(0, 2, (b, n)), bool),
        ignore=jnp.zeros((b, n), bool),
        masks=jnp.asarray(random.integers(0, 2, (b, n, *CANVAS)), bool) if masks else None,
    )


def make_map(b, seed=2):
    random = np.random.default_rng(seed)
    return SegmentationMap(
        label=jnp.asarray(random.integers(0, 9, (b, *CANVAS)), jnp.int32),
        valid=jnp.asarray(random.integers(0, 2, (b, *CANVAS)), bool),
    )


def test_flip_equals_pil_where_the_content_fills_the_canvas():
    batch = make_batch([CANVAS] * 3)
    result = apply(flip(1.0), batch)
    for before, after in zip(batch.image, result.image, strict=True):
        np.testing.assert_array_equal(after, np.asarray(ImageOps.mirror(Image.fromarray(np.asarray(before)))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_moves_the_content_within_itself(dtype):
    batch = make_batch(dtype=dtype)
    result = apply(flip(1.0), batch)
    assert result.image.dtype == dtype
    for before, after, (h, w) in zip(np.asarray(batch.image), np.asarray(result.image), SIZES, strict=True):
        np.testing.assert_array_equal(after[:h, :w], before[:h, :w][:, ::-1])
        np.testing.assert_array_equal(after[h:], before[h:])
        np.testing.assert_array_equal(after[:, w:], before[:, w:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_twice_is_identity(dtype):
    target = {"objects": make_objects(len(SIZES)), "map": make_map(len(SIZES))}
    batch = make_batch(dtype=dtype, target=target)
    twice = apply(flip(1.0), apply(flip(1.0), batch, 1), 2)
    jax.tree.map(np.testing.assert_array_equal, twice, batch)


def test_flip_never_and_always():
    batch = make_batch([CANVAS] * 64)
    np.testing.assert_array_equal(apply(flip(0.0), batch).image, batch.image)
    np.testing.assert_array_equal(apply(flip(1.0), batch).image, batch.image[:, :, ::-1])


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_flip_has_the_probability_asked_for(probability):
    n = 4000
    batch = make_batch([(1, 2)] * n, (1, 2), channels=1).replace(image=jnp.tile(jnp.uint8([[[0], [1]]]), (n, 1, 1, 1)))
    share = np.mean(np.asarray(apply(flip(probability), batch).image)[:, 0, 0, 0])
    assert share == pytest.approx(probability, abs=5 * np.sqrt(probability * (1 - probability) / n))


def test_flip_mirrors_boxes_and_masks_exactly():
    batch = make_batch(target=make_objects(len(SIZES)))
    moved, given = apply(flip(1.0), batch).target, batch.target
    for i, (h, w) in enumerate(SIZES):
        expected = [[w - x1, y0, w - x0, y1] for x0, y0, x1, y1 in np.asarray(given.boxes[i])]
        np.testing.assert_array_equal(moved.boxes[i], expected)
        np.testing.assert_array_equal(moved.masks[i], flipped_by_numpy(given.masks[i], (h, w)))
    for name in ("labels", "valid", "ignore"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(given, name))
    assert moved.masks.dtype == bool
    assert moved.boxes.dtype == jnp.float32


def test_a_box_still_holds_the_same_pixels():
    objects = make_objects(1, n=1, masks=False).replace(boxes=jnp.float32([[[1, 2, 4, 5]]]))
    batch = make_batch([(6, 7)], target=objects)
    result = apply(flip(1.0), batch)
    x0, y0, x1, y1 = np.asarray(result.target.boxes[0, 0], int)
    np.testing.assert_array_equal(result.image[0, y0:y1, x0:x1], batch.image[0, 2:5, 1:4][:, ::-1])


def test_flip_mirrors_maps_and_enters_dicts():
    labels = Labels(label=jnp.arange(len(SIZES), dtype=jnp.int32))
    target = {"class": labels, "scene": {"map": make_map(len(SIZES)), "boxes": make_objects(len(SIZES), masks=False)}}
    batch = make_batch(target=target, given=make_map(len(SIZES), seed=3))
    moved = apply(flip(1.0), batch)
    np.testing.assert_array_equal(moved.target["class"].label, labels.label)
    assert moved.target["scene"]["boxes"].masks is None
    for before, after in [(target["scene"]["map"], moved.target["scene"]["map"]), (batch.given, moved.given)]:
        for name in ("label", "valid"):
            expected = [flipped_by_numpy(getattr(before, name)[i], s) for i, s in enumerate(SIZES)]
            np.testing.assert_array_equal(getattr(after, name), expected)


def test_image_and_target_of_a_row_flip_together():
    n = 40
    boxes = jnp.tile(jnp.float32([[[0, 0, 2, 1]]]), (n, 1, 1))
    objects = make_objects(n, n=1, masks=False).replace(boxes=boxes)
    batch = make_batch([CANVAS] * n, target=objects)
    result = apply(flip(0.5), batch)
    image_flipped = np.any(np.asarray(result.image != batch.image), axis=(1, 2, 3))
    boxes_flipped = np.asarray(result.target.boxes[:, 0, 0]) == CANVAS[1] - 2
    np.testing.assert_array_equal(image_flipped, boxes_flipped)
    assert 0 < image_flipped.sum() < n


def test_flip_refuses_what_it_cannot_move():
    image_like = jnp.zeros((len(SIZES), 4), jnp.float32)
    with pytest.raises(
        TypeError, match=r"target\['a'\]\['points'\]: an array of shape \(6, 4\); allowed: None, Labels, Objects"
    ):
        apply(flip(), make_batch(target={"a": {"points": image_like}}))
    with pytest.raises(TypeError, match="given: of type tuple"):
        apply(flip(), make_batch(given=(1,)))
    small = make_objects(len(SIZES)).replace(masks=jnp.zeros((len(SIZES), 5, 3, 3), bool))
    with pytest.raises(ValueError, match=r"target.masks on the canvas of the image, \(7, 9\)"):
        apply(flip(), make_batch(target=small))
    for probability in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"flip.probability={probability}.: allowed is 0 to 1"):
            flip(probability)


def crop_by_numpy(image, padding, fill):
    """Every window that padding and cropping can give, by its top-left corner."""
    h, w = image.shape[:2]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    return {(y, x): padded[y : y + h, x : x + w] for y in range(2 * padding + 1) for x in range(2 * padding + 1)}


def offset_of(window, windows):
    matches = [offset for offset, expected in windows.items() if np.array_equal(window, expected)]
    assert len(matches) == 1
    return matches[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("padding", "fill"), [(0, 0), (2, 0), (3, 128)])
def test_pad_and_crop_cuts_a_window_of_the_padded_image(dtype, padding, fill):
    batch = make_batch([CANVAS] * 12, dtype=dtype)
    result = apply(pad_and_crop(padding, fill), batch)
    assert result.image.dtype == dtype
    for before, after in zip(np.asarray(batch.image, np.float32), np.asarray(result.image, np.float32), strict=True):
        offset_of(after, crop_by_numpy(before, padding, fill))


def test_pad_and_crop_of_smaller_content_leaves_the_canvas_around_it():
    sizes = [(5, 6), (4, 9), (7, 5)]
    batch = make_batch(sizes)
    result = apply(pad_and_crop(2, 7), batch)
    for before, after, (h, w) in zip(np.asarray(batch.image), np.asarray(result.image), sizes, strict=True):
        offset_of(after[:h, :w], crop_by_numpy(before[:h, :w], 2, 7))
        np.testing.assert_array_equal(after[h:], before[h:])
        np.testing.assert_array_equal(after[:, w:], before[:, w:])


def test_padding_wider_than_the_image():
    batch = make_batch([(2, 3)] * 30, (2, 3))
    result = apply(pad_and_crop(5, 1), batch)
    for before, after in zip(np.asarray(batch.image), np.asarray(result.image), strict=True):
        assert any(np.array_equal(after, window) for window in crop_by_numpy(before, 5, 1).values())


def test_every_offset_is_drawn_equally_often():
    n, padding = 4500, 1
    batch = make_batch([(3, 3)] * n, (3, 3), channels=1)
    marked = np.zeros((n, 3, 3, 1), np.uint8)
    marked[:, 1, 1] = 255
    result = np.asarray(apply(pad_and_crop(padding), batch.replace(image=jnp.asarray(marked))).image)
    counts = np.bincount(result.reshape(n, 9).argmax(-1), minlength=9)
    assert counts.sum() == n
    assert np.all(np.abs(counts - n / 9) < 5 * np.sqrt(n / 9))


def test_pad_and_crop_refuses_what_it_cannot_move():
    with pytest.raises(TypeError, match=r"batch.target: of type Objects; allowed: None or Labels"):
        apply(pad_and_crop(4), make_batch(target=make_objects(len(SIZES))))
    with pytest.raises(TypeError, match=r"batch.target: of type dict"):
        apply(pad_and_crop(4), make_batch(target={"a": Labels(label=jnp.zeros(6, jnp.int32))}))
    with pytest.raises(TypeError, match=r"batch.given: of type SegmentationMap"):
        apply(pad_and_crop(4), make_batch(given=make_map(len(SIZES))))
    with pytest.raises(ValueError, match="padding=-1"):
        pad_and_crop(-1)
    for fill in (-1, 256, 0.5):
        with pytest.raises(ValueError, match=rf"fill={fill}.: allowed is 0 to 255, whole"):
            pad_and_crop(1, fill)  # pyright: ignore[reportArgumentType]


AUGMENTS = pytest.mark.parametrize("augment", [flip(), pad_and_crop(2, 9)], ids=["flip", "pad_and_crop"])


@pytest.mark.slow
@AUGMENTS
@pytest.mark.parametrize("dtype", DTYPES)
def test_jit_and_strict_types_change_nothing(augment, dtype):
    batch = make_batch(SIZES * 3, dtype=dtype, target=Labels(label=jnp.zeros(18, jnp.int32)))
    with jax.numpy_dtype_promotion("strict"):
        plain = augment(jax.random.key(4), jnp.int32(0), batch)
        jitted = apply(augment, batch, 4)
    jax.tree.map(np.testing.assert_array_equal, plain, jitted)


@AUGMENTS
def test_same_key_same_result_and_other_key_other_result(augment):
    batch = make_batch([CANVAS] * 32)
    first, again, other = (np.asarray(apply(augment, batch, seed).image) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@AUGMENTS
def test_steps_differ_through_their_keys(augment):
    batch, run = make_batch([CANVAS] * 32), jax.random.key(0)
    jitted = jax.jit(augment)
    results = [np.asarray(jitted(jax.random.fold_in(run, s), jnp.int32(s), batch).image) for s in range(4)]
    assert all(np.any(results[i] != results[j]) for i in range(4) for j in range(i))


@AUGMENTS
def test_an_example_does_not_depend_on_the_others(augment):
    batch = make_batch([CANVAS] * 16)
    result = np.asarray(apply(augment, batch).image)
    changed = batch.replace(image=batch.image.at[3].set(0))
    np.testing.assert_array_equal(np.delete(apply(augment, changed).image, 3, axis=0), np.delete(result, 3, axis=0))
    np.testing.assert_array_equal(apply(augment, jax.tree.map(lambda a: a[:5], batch)).image, result[:5])


@AUGMENTS
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31), sizes=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), min_size=4, max_size=4)
)
def test_pixels_of_the_content_stay_in_the_content(augment, seed, sizes):
    batch = make_batch(sizes, seed=seed)
    result = np.asarray(apply(augment, batch, seed).image)
    for before, after, (h, w) in zip(np.asarray(batch.image), result, sizes, strict=True):
        assert set(after[:h, :w].flat) <= set(before[:h, :w].flat) | {9}
        outside = np.ones(CANVAS, bool)
        outside[:h, :w] = False
        np.testing.assert_array_equal(after[outside], before[outside])


def test_row_keys_are_the_folded_keys():
    key = jax.random.key(3)
    expected = [jax.random.key_data(jax.random.fold_in(key, row)) for row in range(4)]
    np.testing.assert_array_equal(jax.random.key_data(row_keys(key, 4)), expected)

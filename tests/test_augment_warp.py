import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.augment import affine, perspective, resized_crop
from jaxvision.types import Batch, Objects

CANVAS = (24, 32)
SIZES = [(24, 32), (20, 32), (24, 25), (17, 19)] * 6
ALL = {
    "affine": affine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, fill="nearest"),
    "straight": affine(shift=0.3, zoom=0.3, fill="constant"),
    "perspective": perspective(0.6),
    "resized_crop": resized_crop((0.2, 0.9)),
}
EVERY = pytest.mark.parametrize("augment", ALL.values(), ids=ALL)
SIDEWAYS = 7.0
"""Levels per pixel of the images that tell where their pixels come from."""


def make_batch(image=None, target=None, sizes=SIZES, dtype=jnp.uint8):
    size = jnp.asarray(sizes, jnp.int32)
    if image is None:
        image = np.random.default_rng(0).integers(0, 256, (len(sizes), *CANVAS, 3))
    index = jnp.arange(len(sizes), dtype=jnp.int32)
    return Batch(jnp.asarray(image, dtype), size, size, index, index >= 0, target)


def apply(augment, batch, seed=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(augment)(jax.random.key(seed), jnp.zeros((), jnp.int32), batch)


def places():
    """An image whose levels are SIDEWAYS times the column and the row of each pixel centre."""
    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    return np.tile(np.stack([x, y, np.zeros_like(x)], -1) * SIDEWAYS, (len(SIZES), 1, 1, 1))


def motions(augment, seed=0):
    """The affine matrices (output to input, x y 1) that the images were resampled with, from the images alone."""
    found = np.asarray(apply(augment, make_batch(places(), dtype=jnp.float32), seed).image, np.float64) / SIDEWAYS
    for image, (h, w) in zip(found, SIZES, strict=True):
        y, x = np.mgrid[:h, :w] + 0.5
        u, v = image[:h, :w, 0], image[:h, :w, 1]
        sure = (u > 1) & (v > 1) & (u < w - 1) & (v < h - 1)
        points = np.stack([x, y, np.ones_like(x)], -1)[sure]
        matrix, residual, rank, _ = np.linalg.lstsq(points, np.stack([u, v], -1)[sure], rcond=None)
        assert rank == 3
        assert np.all(residual < 1e-4 * len(points))
        yield np.vstack([matrix.T, [0, 0, 1]]), (h, w)


def test_a_crop_is_a_window_of_the_area_and_shape_asked_for():
    for matrix, (h, w) in motions(resized_crop((0.3, 0.6), (0.8, 1.25))):
        np.testing.assert_allclose(matrix[[0, 1], [1, 0]], 0, atol=2e-3)
        wide, high = matrix[0, 0] * w, matrix[1, 1] * h
        np.testing.assert_allclose([wide, high], np.round([wide, high]), atol=0.05)
        assert 0.25 < wide * high / (h * w) < 0.65
        assert 0.7 < wide / high < 1.4
        left, top = matrix[:2, 2]
        assert left > -0.05
        assert top > -0.05
        assert left + wide < w + 0.05
        assert top + high < h + 0.05


def test_shear_may_lean_columns_and_rows_each_its_own():
    found = np.array([np.linalg.inv(matrix)[:2, :2] for matrix, _ in motions(affine(shear=(0.2, 0.1)))])
    # the centre stays, and what is one pixel to the right or below moves by the lean
    np.testing.assert_allclose(found[:, [0, 1], [0, 1]], 1, atol=2e-3)
    for lean, most in ((found[:, 0, 1], 0.2), (found[:, 1, 0], 0.1)):
        assert 0.7 * most < np.abs(lean).max() < 1.01 * most
        assert len(np.unique(np.sign(lean))) == 2
    assert abs(np.corrcoef(found[:, 0, 1], found[:, 1, 0])[0, 1]) < 0.7


def rectangles(seed=0, n=4):
    """Boxes of whole pixels within the content, and their masks."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((len(SIZES), n, 4), np.float32)
    masks = np.zeros((len(SIZES), n, *CANVAS), bool)
    for i, (h, w) in enumerate(SIZES):
        for j in range(n):
            x0, y0 = rng.integers(0, w - 3), rng.integers(0, h - 3)
            x1, y1 = rng.integers(x0 + 3, w + 1), rng.integers(y0 + 3, h + 1)
            boxes[i, j], masks[i, j, y0:y1, x0:x1] = (x0, y0, x1, y1), True
    return boxes, masks


def objects(with_masks, seed=0):
    boxes, masks = rectangles(seed)
    valid = jnp.ones(boxes.shape[:2], bool).at[:, -1].set(False)
    labels = jnp.zeros(valid.shape, jnp.int32)
    return Objects(jnp.asarray(boxes), labels, valid, ~valid, masks=jnp.asarray(masks) if with_masks else None)


@EVERY
@pytest.mark.parametrize("dtype", [jnp.uint8, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_the_canvas_outside_stays_and_does_not_matter(augment, dtype):
    batch = make_batch(dtype=dtype)
    inside = np.zeros((len(SIZES), *CANVAS, 1), bool)
    for i, (h, w) in enumerate(SIZES):
        inside[i, :h, :w] = True
    other = batch.replace(image=jnp.where(inside, batch.image, jnp.asarray(7, dtype)))
    found, changed = np.asarray(apply(augment, batch).image), np.asarray(apply(augment, other).image)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.where(inside, found, 0), np.where(inside, changed, 0))
    np.testing.assert_array_equal(np.where(inside, 0, found), np.where(inside, 0, batch.image))
    assert np.any(found != np.asarray(batch.image))


@pytest.mark.slow
@EVERY
def test_jit_changes_nothing_but_roundings(augment):
    batch = make_batch(places(), objects(False), dtype=jnp.float32)
    plain = augment(jax.random.key(3), jnp.int32(0), batch)
    jitted = apply(augment, batch, 3)
    np.testing.assert_allclose(plain.image, jitted.image, atol=0.1)
    np.testing.assert_allclose(plain.target.boxes, jitted.target.boxes, atol=1e-2)


MOSTLY_SLOW = [pytest.param(a, marks=() if name == "affine" else pytest.mark.slow, id=name) for name, a in ALL.items()]


@pytest.mark.parametrize("augment", MOSTLY_SLOW)
def test_an_example_depends_on_its_row_alone(augment):
    batch = make_batch()
    result = np.asarray(apply(augment, batch).image)
    five = apply(augment, jax.tree.map(lambda a: a[:5], batch)).image
    assert np.mean(np.asarray(five) != result[:5]) < 1e-3
    assert np.any(np.asarray(apply(augment, batch, 1).image) != result)


NOTHING = [
    affine(),
    *(pytest.param(a, marks=pytest.mark.slow) for a in (perspective(0.0), resized_crop((1.0, 1.0), (1e-3, 1e-3)))),
]


@pytest.mark.parametrize("augment", NOTHING)
def test_nothing_asked_for_changes_nothing(augment):
    batch = make_batch(target=objects(True))
    result = apply(augment, batch)
    assert np.abs(np.asarray(result.image).astype(int) - np.asarray(batch.image)).max() <= 1
    np.testing.assert_array_equal(result.target.masks, batch.target.masks)
    np.testing.assert_array_equal(result.target.boxes, batch.target.boxes)


def test_what_cannot_be_is_refused():
    for options, told in [
        ({"zoom": 1.0}, "zoom=1.0"),
        ({"shift": -0.1}, "shift=-0.1"),
        ({"fill": "edge"}, "fill='edge'"),
    ]:
        with pytest.raises(ValueError, match=told):
            affine(**options)
    with pytest.raises(ValueError, match="distortion=1"):
        perspective(1)
    with pytest.raises(ValueError, match=r"resized_crop\(area=\(0, 1\)\)"):
        resized_crop((0, 1))
    with pytest.raises(
        TypeError, match="affine cannot move batch.target: of type tuple; allowed: None, Labels, Objects"
    ):
        apply(affine(), make_batch(target=(1,)))

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxvision.augment import affine, perspective, resized_crop
from jaxvision.types import Batch, Labels, Objects, SegmentationMap

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


def test_a_rotation_turns_about_the_centre_of_the_content():
    angles = []
    for matrix, (h, w) in motions(affine(rotation=40)):
        np.testing.assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, np.eye(2), atol=2e-3)
        np.testing.assert_allclose(matrix @ [w / 2, h / 2, 1], [w / 2, h / 2, 1], atol=2e-2)
        angles.append(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))
    assert -40 <= min(angles) < -15
    assert 15 < max(angles) <= 40


def test_a_shift_is_a_share_of_the_size():
    shares = []
    for matrix, (h, w) in motions(affine(shift=0.2)):
        np.testing.assert_allclose(matrix[:2, :2], np.eye(2), atol=2e-3)
        shares.append(matrix[:2, 2] / [w, h])
    assert np.all(np.abs(shares) <= 0.201)
    assert np.all(np.max(shares, 0) > 0.1)
    assert np.all(np.min(shares, 0) < -0.1)


def test_zoom_and_shear_go_as_far_as_asked():
    factors, leans = [], []
    for matrix, (h, w) in motions(affine(zoom=0.3)):
        np.testing.assert_allclose(matrix[[0, 1], [1, 0]], 0, atol=2e-3)
        np.testing.assert_allclose(matrix @ [w / 2, h / 2, 1], [w / 2, h / 2, 1], atol=2e-2)
        factors.append(1 / np.diag(matrix)[:2])
    assert 0.69 < np.min(factors) < 0.85
    assert 1.15 < np.max(factors) < 1.31
    assert np.std(np.subtract(*np.transpose(factors))) > 0.1  # width and height apart
    for matrix, _ in motions(affine(shear=0.4)):
        np.testing.assert_allclose(np.delete(matrix[:2, :2].ravel(), 1), [1, 0, 1], atol=2e-3)
        leans.append(-matrix[0, 1])
    assert -0.41 < min(leans) < -0.2
    assert 0.2 < max(leans) < 0.41


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


def test_an_affine_image_equals_scipy():
    amounts = {"rotation": 40, "shift": 0.2, "shear": 0.2, "zoom": 0.2}
    batch = make_batch(dtype=jnp.float32)
    found = np.asarray(apply(affine(**amounts, fill="reflect"), batch).image)
    drawn = motions(affine(**amounts))
    for before, after, (matrix, (h, w)) in zip(np.asarray(batch.image), found, drawn, strict=True):
        y, x = np.mgrid[:h, :w] + 0.5
        to = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)])) - 0.5
        expected = ndimage.map_coordinates(before[:h, :w, 0], [to[1], to[0]], order=1, mode="reflect")
        np.testing.assert_allclose(after[:h, :w, 0], expected, atol=1)


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
@pytest.mark.parametrize("seed", range(2))
def test_boxes_masks_maps_and_images_move_together(augment, seed):
    masks = rectangles(seed)[1]
    painted = np.where(masks[:, :3].transpose(0, 2, 3, 1), 255, 0)
    scene = SegmentationMap(jnp.asarray(masks[:, 0], jnp.int32), jnp.ones(masks[:, 0].shape, bool))
    target = {
        "masks": objects(True, seed),
        "boxes": objects(False, seed),
        "scene": scene,
        "class": Labels(jnp.arange(24)),
    }
    moved = apply(augment, make_batch(painted, target), seed)
    by_masks, by_boxes, scene = (moved.target[name] for name in ("masks", "boxes", "scene"))
    for i, (h, w) in enumerate(SIZES):
        content = np.zeros(CANVAS, bool)
        content[:h, :w] = True
        known = np.asarray(scene.valid[i]) & content
        np.testing.assert_array_equal(np.asarray(scene.label[i])[known], np.asarray(by_masks.masks[i, 0])[known])
        assert not np.asarray(by_masks.masks[i])[:, content & ~known].any()
        for j in range(3):
            mask = np.asarray(by_masks.masks[i, j]) & content
            bright = np.asarray(moved.image[i, :, :, j])
            assert not np.any(known & mask & (bright < 60))  # nearest and bilinear differ by less than a pixel
            assert not np.any(known & ~mask & (bright > 195))
            found = ndimage.find_objects(mask.astype(int))
            assert bool(by_masks.valid[i, j]) == bool(found)
            if not found:
                continue
            tight = [found[0][1].start, found[0][0].start, found[0][1].stop, found[0][0].stop]
            np.testing.assert_array_equal(by_masks.boxes[i, j], tight)
            box = np.asarray(by_boxes.boxes[i, j])
            assert by_boxes.valid[i, j]
            assert np.all(box[:2] <= np.add(tight[:2], 0.51))  # contains the centre of every pixel of the mask
            assert np.all(box[2:] >= np.subtract(tight[2:], 0.51))
            if augment in (ALL["straight"], ALL["resized_crop"]):
                np.testing.assert_allclose(box, tight, atol=0.52)
    assert not by_masks.valid[:, -1].any()
    assert not by_boxes.valid[:, -1].any()
    np.testing.assert_array_equal(moved.target["class"].label, np.arange(24))


def test_an_object_that_leaves_is_no_longer_valid():
    corner = jnp.tile(jnp.float32([[[0, 0, 2, 2]]]), (len(SIZES), 1, 1))
    target = objects(False).replace(boxes=corner, labels=jnp.zeros((24, 1), jnp.int32), valid=jnp.ones((24, 1), bool))
    moved = apply(affine(shift=0.5), make_batch(target=target))
    seen = np.asarray(moved.target.valid[:, 0])
    assert 0 < seen.sum() < len(seen)
    for (matrix, _), valid in zip(motions(affine(shift=0.5)), seen, strict=True):
        assert valid == np.all(2 - matrix[:2, 2] > 0)


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


SLOWLY = [pytest.param(a, marks=() if name == "perspective" else pytest.mark.slow, id=name) for name, a in ALL.items()]


@pytest.mark.parametrize("augment", SLOWLY)
def test_jit_changes_nothing_but_roundings(augment):
    batch = make_batch(places(), objects(False), dtype=jnp.float32)
    plain = augment(jax.random.key(3), jnp.int32(0), batch)
    jitted = apply(augment, batch, 3)
    np.testing.assert_allclose(plain.image, jitted.image, atol=0.1)
    np.testing.assert_allclose(plain.target.boxes, jitted.target.boxes, atol=1e-2)


@EVERY
def test_an_example_depends_on_its_row_alone(augment):
    batch = make_batch()
    result = np.asarray(apply(augment, batch).image)
    five = apply(augment, jax.tree.map(lambda a: a[:5], batch)).image
    assert np.mean(np.asarray(five) != result[:5]) < 1e-3
    assert np.any(np.asarray(apply(augment, batch, 1).image) != result)


def test_nothing_asked_for_changes_nothing():
    batch = make_batch(target=objects(True))
    for augment in (affine(), perspective(0.0), resized_crop((1.0, 1.0), (1e-3, 1e-3))):
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

"""Boxes, masks and maps move with their images: properties of every augmentation that moves pixels, against NumPy and SciPy.

How the pixels of an image moved is read off its channels, which hold the column and the row of each pixel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from jaxvision import augment as au
from jaxvision.types import Batch, Objects, SegmentationMap

CANVAS, ROWS, N = (18, 22), 3, 3
STRAIGHT = {
    "flip": au.flip(),
    "vertical_flip": au.vertical_flip(),
    "shift_and_zoom": au.affine(shift=0.4, zoom=0.3, fill="constant"),
    "resized_crop": au.resized_crop((0.2, 0.9)),
}
BENT = {
    "affine": au.affine(rotation=180, shift=0.2, shear=0.4, zoom=0.3, fill="constant"),
    "perspective": au.perspective(0.6, fill="constant"),
}
SPREAD = 100.0
"""Levels of a channel from one side of the canvas to the other, above 100: what comes in from outside is 0."""


@functools.cache
def jitted(name):
    augment = (STRAIGHT | BENT)[name]
    return jax.jit(lambda seed, batch: augment(jax.random.key(seed), jnp.int32(0), batch))


def apply(name, seed, batch):
    with jax.numpy_dtype_promotion("strict"):
        return jax.tree.map(np.asarray, jitted(name)(seed, batch))


def scene_of(seed):
    """Contents smaller than the canvas, boxes of whole pixels in them, rows that are padding or to be ignored."""
    random = np.random.default_rng(seed)
    sizes = random.integers(9, [CANVAS[0] + 1, CANVAS[1] + 1], (ROWS, 2)).astype(np.int32)
    boxes, masks = np.zeros((ROWS, N, 4), np.float32), np.zeros((ROWS, N, *CANVAS), bool)
    for i, (h, w) in enumerate(sizes):
        for j in range(N):
            x0, y0 = random.integers(0, w), random.integers(0, h)
            x1, y1 = random.integers(x0 + 1, w + 1), random.integers(y0 + 1, h + 1)
            boxes[i, j], masks[i, j, y0:y1, x0:x1] = (x0, y0, x1, y1), True
    flags = random.random((2, ROWS, N)) < [[[0.8]], [[0.3]]]
    scene = random.integers(0, 5, (ROWS, *CANVAS)).astype(np.int32), random.random((ROWS, *CANVAS)) < 0.8
    return sizes, boxes, masks, flags, scene


def batch_of(sizes, boxes, masks, flags, scene):
    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    image = np.tile(100 + SPREAD * np.dstack([x / CANVAS[1], y / CANVAS[0]]), (ROWS, 1, 1, 1)).astype(np.float32)
    plain = Objects(boxes, np.arange(ROWS * N, dtype=np.int32).reshape(ROWS, N), *flags)
    target = {"boxes": plain, "masks": plain.replace(masks=masks), "scene": SegmentationMap(*scene)}
    index = np.arange(ROWS, dtype=np.int32)
    return jax.tree.map(jnp.asarray, Batch(image, sizes, sizes, index, index >= 0, target))


def taken_from(image, size):
    """The matrix from a pixel to where it was taken from; None where too little of the content is left to tell."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    at = (image[: size[0], : size[1]].astype(np.float64) - 100) / SPREAD * [CANVAS[1], CANVAS[0]]
    u, v = at[..., 0], at[..., 1]
    inner = (u > 0.6) & (v > 0.6) & (u < size[1] - 0.6) & (v < size[0] - 0.6)
    inner = ndimage.binary_erosion(inner, np.ones((3, 3)), iterations=1)
    x, y, u, v = (each[inner] for each in (x, y, u, v))
    if len(x) < 12 or min(np.ptp(x), np.ptp(y)) < 2:
        return None
    one, zero = np.ones_like(x), np.zeros_like(x)
    first = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    second = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    numbers = np.linalg.lstsq(np.concatenate([first, second]), np.concatenate([u, v]), rcond=None)[0]
    return np.append(numbers, 1).reshape(3, 3)


def moved_corners(box, source):
    """The four corners, each where its pixels went."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, x1, x0, x1], [y0, y0, y1, y1], [1, 1, 1, 1]], np.float64)
    to = np.linalg.inv(source) @ corners
    return to[:2] / to[2]


def tightest(mask):
    (rows, columns), *_ = ndimage.find_objects(mask.astype(int)) or [(None, None)]
    return rows and [columns.start, rows.start, columns.stop, rows.stop]


def nearest(values, source, size):
    """The content of `values` taken from the nearest pixel by SciPy, and where the place is clearly nearest to that."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    to = np.einsum("ij,jhw->ihw", source, np.stack([x, y, np.ones_like(x)]))
    places = np.stack([to[1] / to[2] - 0.5, to[0] / to[2] - 0.5])
    sure = np.all(np.abs(places - np.floor(places) - 0.5) > 0.05, axis=0)
    content = values[: size[0], : size[1]].astype(int)
    return ndimage.map_coordinates(content, places, order=0, mode="grid-constant", cval=-1), sure


@pytest.mark.parametrize(
    "name",
    [
        "flip",
        "affine",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("vertical_flip", "shift_and_zoom", "resized_crop", "perspective")
        ),
    ],
)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_everything_moves_with_its_image(name, seed):
    parts = scene_of(seed)
    sizes, boxes, masks, (valid, ignore), (label, known) = parts
    result = apply(name, seed, batch_of(*parts))
    by_boxes, by_masks, moved = (result.target[key] for key in ("boxes", "masks", "scene"))
    for each in (by_boxes, by_masks):
        np.testing.assert_array_equal(each.ignore, ignore)
        np.testing.assert_array_equal(each.labels, np.arange(ROWS * N).reshape(ROWS, N))
        assert not np.any(each.valid & ~valid)
    for i, (h, w) in enumerate(sizes):
        mask, content = by_masks.masks[i, :, :h, :w], (slice(h), slice(w))
        for j in np.flatnonzero(valid[i]):
            tight = tightest(mask[j])
            if name in ("flip", "vertical_flip") or tight:
                np.testing.assert_array_equal(by_masks.boxes[i, j], tight)
            assert by_masks.valid[i, j] == bool(tight)
            if (
                tight and by_boxes.valid[i, j]
            ):  # the box of the corners holds the centre of every pixel of the moved mask
                assert np.all(by_boxes.boxes[i, j, :2] <= np.add(tight[:2], 0.51))
                assert np.all(by_boxes.boxes[i, j, 2:] >= np.subtract(tight[2:], 0.51))
        source = taken_from(result.image[i], (h, w))
        if source is None:
            continue
        for j in np.flatnonzero(valid[i]):
            corners = moved_corners(boxes[i, j], source)
            whole = [*corners.min(1), *corners.max(1)]
            box = np.clip(whole, 0, [w, h, w, h])
            left, cut = min(box[2] - box[0], box[3] - box[1]), np.abs(box - whole).max()
            if cut < 1e-4 or (cut > 0.2 and abs(left - 1) > 0.2):
                assert by_boxes.valid[i, j] == (left > 0 if cut < 1e-4 else left > 1)
            if by_boxes.valid[i, j] and left > 0.05:
                np.testing.assert_allclose(by_boxes.boxes[i, j], box, atol=0.02 if name in STRAIGHT else 0.2)
            expected, sure = nearest(masks[i, j], source, (h, w))
            np.testing.assert_array_equal(mask[j][sure], expected[sure] == 1)
        expected, sure = nearest(label[i], source, (h, w))
        expected_known = (expected >= 0) & (nearest(known[i], source, (h, w))[0] == 1)
        np.testing.assert_array_equal(moved.valid[i][content][sure], expected_known[sure])
        sure &= expected_known
        np.testing.assert_array_equal(moved.label[i][content][sure], expected[sure])


@pytest.mark.parametrize("name", STRAIGHT | BENT)
def test_the_canvas_around_the_content_and_its_map_stay(name):
    parts = scene_of(5)
    sizes, *_, (label, known) = parts
    before, after = batch_of(*parts), apply(name, 5, batch_of(*parts))
    for i, (h, w) in enumerate(sizes):
        outside = np.ones(CANVAS, bool)
        outside[:h, :w] = False
        np.testing.assert_array_equal(after.image[i][outside], np.asarray(before.image[i])[outside])
        np.testing.assert_array_equal(after.target["scene"].valid[i][outside], known[i][outside])
        np.testing.assert_array_equal(after.target["scene"].label[i][outside], label[i][outside])

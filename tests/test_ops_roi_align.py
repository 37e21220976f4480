"""Pooling of regions against loops over samples and pixels; gradients against finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equalities import equalities

from jaxvision.ops.roi_align import roi_align, roi_pool
from jaxvision.ops.roi_pyramid import roi_align_pyramid

SCALE = 1 / 4
BOXES = np.array(
    [(3, 5, 40, 33), (-30, -9, 10, 12), (50, 40, 90, 70), (8, 8, 8, 8), (20, 30, 12, 9), (200, 200, 240, 220)]
)


def features():
    return np.random.RandomState(0).standard_normal((11, 13, 2))


def bilinear(image, y, x):
    """The value at a place; 0 more than a pixel outside, else that of the nearest place inside."""
    height, width, _ = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(image.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = (1 - (x - left)) * image[top, left] + (x - left) * image[top, right]
    lower = (1 - (x - left)) * image[bottom, left] + (x - left) * image[bottom, right]
    return (1 - (y - top)) * upper + (y - top) * lower


def aligned_by_loops(image, box, size, samples, aligned):
    x0, y0, x1, y1 = np.asarray(box) * SCALE - (0.5 if aligned else 0)
    width, height = (x1 - x0, y1 - y0) if aligned else (max(x1 - x0, 1), max(y1 - y0, 1))
    pooled = np.zeros((size, size, image.shape[2]))
    for row in range(size):
        for column in range(size):
            values = [
                bilinear(
                    image,
                    y0 + (row + (i + 0.5) / samples) * height / size,
                    x0 + (column + (j + 0.5) / samples) * width / size,
                )
                for i in range(samples)
                for j in range(samples)
            ]
            pooled[row, column] = np.mean(values, 0)
    return pooled


@pytest.mark.parametrize(("aligned", "samples"), [(False, 2), (True, 3)])
def test_align_equals_the_loop(float64, aligned, samples):
    image = features()
    expected = [aligned_by_loops(image, box, 3, samples, aligned) for box in BOXES]
    align = lambda image, boxes: roi_align(image, boxes, size=3, scale=SCALE, samples=samples, aligned=aligned)
    found = jax.jit(align)(image, BOXES.astype(float))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("x", "counts"), [(-1.01, False), (-1.0, True), (13.0, True), (13.01, False)])
def test_a_sample_counts_up_to_a_pixel_outside(float64, x, counts):
    image, box = features(), jnp.asarray([[x - 1, 4, x + 1, 6]])  # its middle is the one sample
    found = jax.jit(lambda image, box: roi_align(image, box, size=1, scale=1, samples=1))(image, box)
    np.testing.assert_allclose(found[0, 0, 0], bilinear(image, 5, x), atol=1e-12)
    assert bool(np.all(found != 0)) == counts


def pooled_by_loops(image, box, size):
    """The largest value of every cell, and its place: of equal ones the first, row by row, as torchvision keeps it."""

    def whole(value):
        return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)

    x0, y0, x1, y1 = (whole(value * SCALE) for value in box)
    width, height = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    pooled, places = np.zeros((size, size, image.shape[2])), {}
    for row in range(size):
        for column in range(size):
            rows = range(y0 + math.floor(row * height / size), y0 + math.ceil((row + 1) * height / size))
            columns = range(x0 + math.floor(column * width / size), x0 + math.ceil((column + 1) * width / size))
            cell = [(i, j) for i in rows for j in columns if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]]
            for channel in range(image.shape[2] if cell else 0):
                place = max(cell, key=lambda place: image[place][channel])  # max keeps the first
                pooled[row, column, channel], places[row, column, channel] = image[place][channel], place
    return pooled, places


def test_pool_equals_the_loop(float64):
    image = features()
    expected = [pooled_by_loops(image, box, 3)[0] for box in BOXES]
    found = jax.jit(lambda image, boxes: roi_pool(image, boxes, size=3, scale=SCALE))(image, BOXES.astype(float))
    np.testing.assert_array_equal(found, expected)


def test_the_gradient_of_a_cell_goes_to_its_first_maximum(float64):
    image, weights = np.round(features()), np.random.RandomState(1).standard_normal((6, 3, 3, 2))
    pool = lambda image: roi_pool(image, jnp.asarray(BOXES, jnp.float64), size=3, scale=SCALE)
    expected, ties = np.zeros_like(image), 0
    for box, weight in zip(BOXES, weights, strict=True):
        for (row, column, channel), place in pooled_by_loops(image, box, 3)[1].items():
            expected[place][channel] += weight[row, column, channel]
            ties += int((image[..., channel] == image[place][channel]).sum() > 1)
    found = jax.jit(jax.grad(lambda image: (pool(image) * weights).sum()))(jnp.asarray(image))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert ties > 50
    assert not equalities(jax.grad(lambda image: pool(image).sum()), image)


@pytest.mark.parametrize("pool", [roi_align, roi_pool])
def test_the_gradient_is_that_of_finite_differences(float64, pool):
    image, weights = jnp.asarray(features()), np.random.RandomState(1).standard_normal((6, 2, 2, 2))
    total = jax.jit(lambda f: (pool(f, jnp.asarray(BOXES, jnp.float64), size=2, scale=SCALE) * weights).sum())
    gradient, step = jax.grad(total)(image), 1e-6
    for place in [(0, 0, 0), (2, 3, 1), (5, 5, 0), (10, 12, 1)]:
        difference = (total(image.at[place].add(step)) - total(image.at[place].add(-step))) / (2 * step)
        assert float(gradient[place]) == pytest.approx(float(difference), abs=1e-7)


def test_roi_pool_in_float32_takes_in_whole_pixels_exactly():
    random = np.random.RandomState(0)
    features = random.standard_normal((38, 63, 1)).astype(np.float32)
    corner = random.randint(0, 30, (60, 2))
    boxes = np.concatenate([corner, corner + random.randint(1, 30, (60, 2))], 1).astype(np.float32)
    found = jax.jit(lambda x, boxes: roi_pool(x, boxes, size=7, scale=1.0))(features, boxes)
    for box, cells in zip(boxes.astype(int), np.asarray(found)[..., 0], strict=True):
        width, height = box[2:] - box[:2] + 1
        for i in range(7):
            for j in range(7):
                rows = slice(box[1] + i * height // 7, box[1] - (-(i + 1) * height // 7))
                columns = slice(box[0] + j * width // 7, box[0] - (-(j + 1) * width // 7))
                part = features[rows, columns]
                assert cells[i, j] == (part.max() if part.size else 0)


def test_the_gradient_of_pooling_keeps_no_map_for_every_region():
    """128 regions of a map of 38 x 63: kept, 7 rows of cells of each would be 550 MB."""
    features, boxes = jax.ShapeDtypeStruct((38, 63, 64), jnp.float32), jax.ShapeDtypeStruct((128, 4), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, boxes: roi_pool(x, boxes, size=7, scale=1 / 16).sum()))
    used = gradient.lower(features, boxes).compile().memory_analysis()
    assert used is not None
    assert used.temp_size_in_bytes < 150e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples=0.: allowed is 1 or more, whole"),
        ({"size": -1}, "size=-1"),
        ({"scale": 0}, "scale=0.: allowed is above 0"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        roi_align(jnp.zeros((4, 4, 1)), jnp.zeros((1, 4)), **{"size": 2, "scale": 1.0} | options)
    if "samples" not in options:
        with pytest.raises(ValueError, match=message):
            roi_pool(jnp.zeros((4, 4, 1)), jnp.zeros((1, 4)), **{"size": 2, "scale": 1.0} | options)


@pytest.mark.parametrize("at", range(4))
def test_a_box_that_is_not_a_number_shows_in_its_own_features_alone(at):
    boxes = jnp.array([[1.0, 1, 3, 3], [1, 1, 3, 3]]).at[0, at].set(jnp.nan)
    features = jnp.ones((8, 8, 1))
    for found in (
        roi_align(features, boxes, size=2, scale=1.0),
        roi_pool(features, boxes, size=2, scale=1.0),
        roi_align_pyramid([features, features[::2, ::2]], boxes, strides=(1, 2), size=2),
    ):
        assert jnp.isnan(found[0]).any()
        assert (found[1] == 1).all()


@pytest.mark.parametrize("pool", [roi_align, roi_pool])
def test_no_regions_give_no_features_and_no_gradient(pool):
    none, image = jnp.zeros((0, 4)), jnp.asarray(features())
    assert pool(image, none, size=3, scale=SCALE).shape == (0, 3, 3, 2)
    gradient = jax.grad(lambda image: pool(image, none, size=3, scale=SCALE).sum())(image)
    np.testing.assert_array_equal(gradient, np.zeros(image.shape))
    assert roi_align_pyramid([image], none, strides=(4,), size=3).shape == (0, 3, 3, 2)

"""Overlaps of boxes against loops over pixels and against the definitions in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops import boxes as b

whole = st.integers(-4, 12)
box = st.tuples(whole, whole, st.integers(0, 8), st.integers(0, 8)).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)
some = st.lists(box, min_size=4, max_size=4)


def pixels(one):
    """The pixels that a box of whole numbers covers."""
    return {(x, y) for x in range(one[0], one[2]) for y in range(one[1], one[3])}


def around(a, c):
    return (min(a[0], c[0]), min(a[1], c[1]), max(a[2], c[2]), max(a[3], c[3]))


def counted(a, c):
    """IoU, GIoU and the share of `a` in `c`, by counting pixels."""
    inside, union, hull = len(pixels(a) & pixels(c)), len(pixels(a) | pixels(c)), len(pixels(around(a, c)))
    iou = inside / union if union else 0
    return iou, iou - ((hull - union) / hull if hull else 0), inside / len(pixels(a)) if pixels(a) else 0


PAIRWISE = jax.jit(b.pairwise, static_argnums=0)
FORMS = jax.jit(lambda x: (b.from_centre(b.to_centre(x)), b.from_corner(b.to_corner(x)), b.to_corner(x), b.area(x)))


def matrix(overlap, a, c):
    return np.asarray(PAIRWISE(overlap, np.float32(a), np.float32(c)))


@settings(max_examples=40, deadline=None)
@given(some, some)
def test_overlaps_count_pixels(a, c):
    expected = np.array([[counted(one, other) for other in c] for one in a]).reshape(4, 4, 3)
    found = np.stack([matrix(overlap, a, c) for overlap in (b.iou, b.giou, b.covered)], -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def distance_terms(a, c):
    """DIoU and CIoU from their definitions, for boxes with area."""
    iou, hull = counted(a, c)[0], around(a, c)
    apart = ((a[0] + a[2] - c[0] - c[2]) ** 2 + (a[1] + a[3] - c[1] - c[3]) ** 2) / 4
    diou = iou - apart / ((hull[2] - hull[0]) ** 2 + (hull[3] - hull[1]) ** 2)
    angles = [math.atan((one[2] - one[0]) / (one[3] - one[1])) for one in (a, c)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return diou, diou - (v * v / (1 - iou + v) if v else 0)


@settings(max_examples=30, deadline=None)
@given(some, some)
def test_distances_follow_their_definition(a, c):
    a, c = ([(x, y, u + 1, v + 1) for x, y, u, v in boxes] for boxes in (a, c))
    expected = np.array([[distance_terms(one, other) for other in c] for one in a]).reshape(4, 4, 2)
    found = np.stack([matrix(overlap, a, c) for overlap in (b.diou, b.ciou)], -1)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_weight_of_ciou_has_no_gradient(float64):
    """The slopes along the four sides, by differences in NumPy in which the weight stays as it is (arXiv:1911.08287)."""
    a, c, step = np.array([1.0, 2, 6, 9]), np.array([3.0, 1, 11, 5]), 1e-6

    def terms(a):
        sides = np.minimum(a[2:], c[2:]) - np.maximum(a[:2], c[:2])
        areas = [np.prod(each[2:] - each[:2]) for each in (a, c)]
        iou, hull = sides.prod() / (sum(areas) - sides.prod()), np.array(around(a, c))
        apart = np.square((a[:2] + a[2:] - c[:2] - c[2:]) / 2).sum() / np.square(hull[2:] - hull[:2]).sum()
        angles = [np.arctan((each[2] - each[0]) / (each[3] - each[1])) for each in (a, c)]
        return iou, iou - apart, 4 / math.pi**2 * (angles[0] - angles[1]) ** 2

    iou, _, unlike = terms(a)
    weight = unlike / (1 - iou + unlike)
    slopes = []
    for side in np.eye(4) * step:
        low, high = (terms(a + sign * side) for sign in (-1, 1))
        slopes.append(((high[1] - low[1]) - weight * (high[2] - low[2])) / (2 * step))
    found = jax.jit(jax.grad(lambda x: b.ciou(x, jnp.asarray(c))))(jnp.asarray(a))
    np.testing.assert_allclose(found, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("overlap", [b.iou, b.giou, b.diou, b.ciou, b.covered])
def test_no_gradient_is_nan(overlap):
    odd = np.float32([[0, 0, 0, 0], [3, 3, 3, 3], [0, 0, 2, 2], [5, 5, 2, 2], [0, 0, 0, 4]])
    with jax.numpy_dtype_promotion("strict"):
        gradients = jax.jit(jax.grad(lambda a, c: b.pairwise(overlap, a, c).sum(), argnums=(0, 1)))(odd, odd)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@settings(max_examples=20, deadline=None)
@given(some)
def test_other_forms_lead_back(some):
    x = np.float32(some)
    by_centre, by_corner, corner, area = FORMS(x)
    np.testing.assert_allclose(by_centre, x, atol=1e-6)
    np.testing.assert_array_equal(by_corner, x)
    np.testing.assert_array_equal(np.asarray(corner)[:, 2] * np.asarray(corner)[:, 3], area)


def test_forms_by_hand():
    x = jnp.float32([[1, 2, 5, 10]])
    np.testing.assert_array_equal(b.to_centre(x), [[3, 6, 4, 8]])
    np.testing.assert_array_equal(b.to_corner(x), [[1, 2, 4, 8]])
    assert float(b.area(x)[0]) == 32


def test_clipping_leaves_what_lies_inside():
    x = jnp.float32([[-3, -2, 5, 30], [1, 1, 2, 2], [40, 40, 50, 50]])
    np.testing.assert_array_equal(b.clip(x, jnp.int32([20, 10])), [[0, 0, 5, 20], [1, 1, 2, 2], [10, 20, 10, 20]])

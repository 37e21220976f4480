"""Regions pooled from the map that fits them: against loops over samples, and against autodiff of the pooling of one map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ops_roi_align import SCALE, aligned_by_loops

from jaxvision.ops.roi_align import roi_align, roi_pool
from jaxvision.ops.roi_pyramid import level_of, roi_align_pyramid

STRIDES = (4, 8, 16, 32)
SHAPES = ((24, 40), (12, 20), (6, 10), (1, 1), (2, 3))
BOXES = np.array(
    [
        *((10, 20, 60, 44), (0, 0, 112, 112), (-8, 4, 105, 117), (3, 3, 160, 95), (1, 1, 1, 1), (20, 30, 12, 9)),
        *((150, 80, 170, 100), (0, 0, 223, 224), (0, 0, 224, 224), (0, 0, 448, 448), (-300, -300, 600, 600)),
    ],
    float,
)
LEVELS = [0, 1, 1, 1, 0, 0, 0, 1, 2, 3, 3]


def maps():
    random = np.random.RandomState(0)
    return [random.standard_normal((*shape, 3)) for shape in SHAPES]


def test_a_region_of_224_pixels_is_of_stride_16(float64):
    coarse, fine = jax.jit(lambda b: (level_of(b, STRIDES), level_of(b, (1, 2, 4, 8))))(BOXES)
    np.testing.assert_array_equal(coarse, LEVELS)
    np.testing.assert_array_equal(
        fine, [1, 3, 3, 3, 0, 0, 0, 3, 3, 3, 3]
    )  # 4 + log2(side / 224), down to whole numbers


@pytest.mark.parametrize("samples", [1, 2])
def test_equals_loops_over_the_map_that_fits(float64, samples):
    pooled = jax.jit(lambda m, b: roi_align_pyramid(m, b, strides=STRIDES, size=3, samples=samples))
    own = maps()
    expected = [
        aligned_by_loops(own[level], box / STRIDES[level] / SCALE, 3, samples, False)
        for box, level in zip(BOXES, LEVELS, strict=True)
    ]
    np.testing.assert_allclose(pooled(own, BOXES), expected, atol=1e-12)


def test_the_gradient_is_that_of_pooling_from_one_map(float64):
    weights = np.random.RandomState(1).standard_normal((len(BOXES), 2, 2, 3))
    boxes, level = jnp.asarray(BOXES), np.asarray(LEVELS)

    def by_map(maps):
        each = [roi_align(x, boxes, size=2, scale=1 / stride) for x, stride in zip(maps, STRIDES, strict=False)]
        return sum((x * (weights * (level == n)[:, None, None, None])).sum() for n, x in enumerate(each))

    def at_once(maps):
        return (roi_align_pyramid(maps, boxes, strides=STRIDES, size=2) * weights).sum()

    own = maps()
    found, expected, twice = jax.jit(
        lambda m: (
            jax.grad(at_once)(m),
            jax.grad(by_map)(m),
            jax.vmap(jax.grad(at_once))([jnp.stack([x, 2 * x]) for x in m]),
        )
    )(own)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert not np.any(found[-1])  # a map without a stride
    np.testing.assert_allclose(twice[0][1], expected[0], atol=1e-12)


@pytest.mark.parametrize(
    "pool",
    [
        lambda maps, boxes: roi_align_pyramid(maps, boxes, strides=(4, 8), size=7),
        lambda maps, boxes: roi_align(maps[0], boxes, size=7, scale=0.25),
        lambda maps, boxes: roi_pool(maps[0], boxes, size=7, scale=0.25),
    ],
    ids=["roi_align_pyramid", "roi_align", "roi_pool"],
)
def test_the_gradient_in_half_precision_is_as_exact_as_half_precision_is(pool):
    random = np.random.default_rng(3)
    boxes = jnp.asarray(np.tile([20.0, 24, 90, 84], (300, 1)) + random.uniform(-6, 6, (300, 4)), jnp.float32)
    maps = [jnp.zeros((32, 32, 3)), jnp.zeros((16, 16, 3))]
    wanted = jnp.asarray(random.normal(1, 0.3, (300, 7, 7, 3)), jnp.bfloat16)

    def gradient(dtype):
        back = lambda maps, wanted: jax.vjp(lambda maps: pool(maps, boxes), maps)[1](wanted)[0][0]
        return jax.jit(back)([x.astype(dtype) for x in maps], wanted.astype(dtype))

    exact, half = gradient(jnp.float32), gradient(jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    assert float(jnp.abs(exact).max()) > 50  # some pixels belong to all regions
    error = jnp.linalg.norm((half.astype(jnp.float32) - exact).ravel()) / jnp.linalg.norm(exact.ravel())
    assert error < 0.004


def test_bfloat16_features_are_interpolated_in_float32():
    random = np.random.default_rng(0)
    maps = [jnp.asarray(random.normal(4, 1, (side, side, 3)), jnp.bfloat16) for side in (20, 10)]
    boxes = jnp.asarray([[3.3, 5.1, 60.7, 50.2], [0, 0, 79, 70], [10, 10, 14, 15]], jnp.float32)
    for pool in (
        lambda maps: roi_align_pyramid(maps, boxes, strides=(4, 8), size=7),
        lambda maps: roi_align(maps[0], boxes, size=7, scale=0.25),
    ):
        half, exact = jax.jit(pool)(maps), jax.jit(pool)([x.astype(jnp.float32) for x in maps])
        assert half.dtype == jnp.bfloat16
        np.testing.assert_array_equal(half, exact.astype(jnp.bfloat16))

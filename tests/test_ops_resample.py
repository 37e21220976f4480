import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxvision.ops import homography, resample

HEIGHT, WIDTH = 13, 17
WARP = jax.jit(resample.warp, static_argnums=(3, 4))
CANVAS = (16, 20)
SCIPY_MODE = {"nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap", "constant": "grid-constant"}


def random_canvas(channels=2, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*CANVAS, channels)).astype(dtype)


def by_scipy(image, source, fill, order):
    """Every pixel centre moved by `source`, in float64; scipy counts from the centre of the first pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    to = np.einsum("ij,jhw->ihw", np.asarray(source, np.float64), np.stack([x, y, np.ones_like(x)]))
    places = [to[1] / to[2] - 0.5, to[0] / to[2] - 0.5]
    mode, value = (SCIPY_MODE[fill], 0) if isinstance(fill, str) else ("grid-constant", fill)
    channels = np.moveaxis(np.asarray(image, np.float64), -1, 0)
    return np.stack([ndimage.map_coordinates(c, places, order=order, mode=mode, cval=value) for c in channels], -1)


def random_motion(seed):
    rng = np.random.default_rng(seed)
    linear = np.eye(2) + rng.uniform(-0.7, 0.7, (2, 2))
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, rng.uniform(-25, 25, 2)
    return matrix


@pytest.mark.parametrize("fill", ["nearest", "reflect", "wrap", "constant", 77])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("take", [resample.warp, resample.stretch])
def test_pixels_are_those_of_scipy(take, fill, interpolation):
    canvas = random_canvas()
    warp = jax.jit(lambda source: take(jnp.asarray(canvas), jnp.int32([HEIGHT, WIDTH]), source, fill, interpolation))
    for seed in range(8):
        motion = random_motion(seed) * (
            np.eye(3) + [[0, 0, 1], [0, 0, 1], [0, 0, 0]] if take is resample.stretch else 1
        )
        source = jnp.asarray(motion, jnp.float32)
        with jax.numpy_dtype_promotion("strict"):
            found = np.asarray(warp(source))[:HEIGHT, :WIDTH]
        image = canvas[:HEIGHT, :WIDTH].astype(np.float64)
        expected = by_scipy(image, source, fill, order=0 if interpolation == "nearest" else 1)
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_stretch_is_the_warp_by_the_same_matrix_of_whole_numbers_and_of_maps_too():
    size, source = jnp.int32([HEIGHT, WIDTH]), 2 * jnp.float32([[0.6, 0, 1.3], [0, -1.7, 20.2], [0, 0, 1]])
    for values in (random_canvas(3, np.uint8), random_canvas(1, np.int32)[..., 0]):
        for interpolation in ("nearest", "bilinear"):
            given = (jnp.asarray(values), size, source, "reflect", interpolation)
            expected, found = (np.asarray(take(*given)) for take in (resample.warp, resample.stretch))
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found[:HEIGHT, :WIDTH], expected[:HEIGHT, :WIDTH])


def test_warp_equals_affine_transform_of_scipy():
    canvas = random_canvas()
    source = jnp.asarray(random_motion(3), jnp.float32)
    found = WARP(jnp.asarray(canvas), jnp.int32([HEIGHT, WIDTH]), source, "reflect")[:HEIGHT, :WIDTH, 0]
    matrix = np.asarray(source, np.float64)
    linear = matrix[:2, :2][::-1, ::-1]
    offset = matrix[:2, 2][::-1] + linear @ [0.5, 0.5] - 0.5
    image = canvas[:HEIGHT, :WIDTH, 0].astype(np.float64)
    expected = ndimage.affine_transform(image, linear, offset, order=1, mode="reflect")
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize(
    "dtype", [jnp.uint8, *(pytest.param(d, marks=pytest.mark.slow) for d in (jnp.bool_, jnp.int32))]
)
def test_nearest_keeps_values_of_any_type(dtype):
    canvas = jnp.asarray(random_canvas(dtype=np.int32) > 100 if dtype == jnp.bool_ else random_canvas(), dtype)
    size, source = jnp.int32([HEIGHT, WIDTH]), jnp.asarray(random_motion(1), jnp.float32)
    found = WARP(canvas[..., 0], size, source, "constant", "nearest")
    assert found.dtype == dtype
    expected = by_scipy(np.asarray(canvas[:HEIGHT, :WIDTH], np.float64), source, "constant", 0)[..., 0]
    np.testing.assert_array_equal(np.asarray(found)[:HEIGHT, :WIDTH], expected)
    inside = by_scipy(np.ones((HEIGHT, WIDTH, 1)), source, "constant", 0)[..., 0]
    np.testing.assert_array_equal(resample.reaches(size, source, *CANVAS)[:HEIGHT, :WIDTH], inside)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
def test_the_motion_that_is_none_changes_no_bit_of_the_content(dtype):
    canvas = jnp.asarray(random_canvas(), dtype)
    found = WARP(canvas, jnp.int32([HEIGHT, WIDTH]), jnp.eye(3, dtype=jnp.float32))
    np.testing.assert_array_equal(found[:HEIGHT, :WIDTH], canvas[:HEIGHT, :WIDTH])
    assert found.dtype == dtype


def test_whole_levels_are_rounded():
    canvas, size, source = random_canvas(), jnp.int32([HEIGHT, WIDTH]), jnp.asarray(random_motion(2), jnp.float32)
    whole = WARP(jnp.asarray(canvas, jnp.uint8), size, source)
    np.testing.assert_array_equal(whole, np.round(WARP(jnp.asarray(canvas), size, source)))


def test_a_perspective_equals_pil():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    corners = np.float32([[3, 5], [44, 1], [48, 37], [9, 33]])
    size = jnp.int32([40, 50])
    motion = homography.onto(jnp.asarray(corners), size)
    found = WARP(jnp.asarray(image), size, homography.inverse(motion), "constant")

    rows = []
    for (x, y), (u, v) in zip(corners, [(0, 0), (50, 0), (50, 40), (0, 40)], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    coefficients = np.linalg.solve(rows, [0, 0, 50, 0, 50, 40, 0, 40])
    transform = Image.Transform.PERSPECTIVE
    expected = np.asarray(
        Image.fromarray(image).transform((50, 40), transform, tuple(coefficients), Image.Resampling.BILINEAR)
    ).astype(int)
    within = ndimage.binary_erosion(expected.sum(-1) > 0, iterations=2)
    assert within.sum() > 800
    assert np.abs(np.asarray(found).astype(int) - expected)[within].max() <= 1


def test_beyond_the_horizon_is_outside():
    source = jnp.float32([[1, 0, 0], [0, 1, 0], [0, -0.2, 1]])
    found = WARP(jnp.full((10, 10, 1), 9.0), jnp.int32([10, 10]), source, "constant")
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[5:], 0)


def test_an_unknown_way_is_told_with_those_that_there_are():
    with pytest.raises(ValueError, match="fill='mirror'; allowed: nearest, reflect, wrap, constant, or a grey level"):
        resample.check("mirror", "bilinear")
    with pytest.raises(ValueError, match="fill=256"):
        resample.check(256, "bilinear")
    with pytest.raises(ValueError, match="interpolation='cubic'; allowed: nearest, bilinear"):
        resample.check("wrap", "cubic")

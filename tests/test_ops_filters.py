import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxvision.ops import filters

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.5])
def test_blur_equals_scipy_with_the_weights_inside_scaled(deviation):
    height, width = 19, 23
    canvas = RNG.integers(0, 256, (24, 25, 3)).astype(np.float32)
    found = jax.jit(filters.gaussian_blur)(jnp.asarray(canvas), jnp.int32([height, width]), deviation)[:height, :width]

    def summed(values):
        return ndimage.gaussian_filter(values, (deviation, deviation, 0), mode="constant", truncate=25 / deviation)

    image = canvas[:height, :width].astype(np.float64)
    np.testing.assert_allclose(found, summed(image) / summed(np.ones_like(image)), atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_no_blur_changes_nothing(dtype):
    image = jnp.asarray(RNG.integers(0, 256, (9, 8, 3)), dtype)
    np.testing.assert_array_equal(jax.jit(filters.gaussian_blur)(image, jnp.int32([9, 8]), 0.0), image)


def test_a_sharper_image_equals_scipy_inside_and_keeps_its_border():
    image = RNG.integers(100, 140, (9, 8, 1)).astype(np.float32)
    kernel = np.ones((3, 3))
    kernel[1, 1] = 5
    smooth = ndimage.convolve(image[..., 0], kernel / 13)
    found = np.asarray(filters.sharpness(jnp.asarray(image), jnp.int32([9, 8]), 1.5))[..., 0]
    expected = image[..., 0].copy()
    expected[1:-1, 1:-1] = (smooth + 1.5 * (image[..., 0] - smooth))[1:-1, 1:-1]
    np.testing.assert_allclose(found, expected, atol=1e-3)

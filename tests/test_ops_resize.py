import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision.ops.resize import resized

CANVAS = (20, 26)
TO = jax.jit(resized)


def by_pil(content, height, width):
    """Of each channel by itself, in float32."""
    bands = [Image.fromarray(band) for band in np.moveaxis(content.astype(np.float32), -1, 0)]
    return np.stack([np.asarray(band.resize((width, height), Image.Resampling.BILINEAR)) for band in bands], -1)


def image_of(size, dtype, outside):
    image = np.random.default_rng(0).integers(0, 256, (*CANVAS, 3)).astype(dtype)
    content = image[: size[0], : size[1]].copy()
    image[size[0] :], image[:, size[1] :] = outside, outside
    return jnp.asarray(image), content


@pytest.mark.parametrize("size", [(20, 26), (13, 19)])
@pytest.mark.parametrize("whole", [(20, 26), (7, 11), (3, 5), (1, 1), (17, 12), (18, 25)])
def test_it_is_what_pil_makes_of_it(size, whole):
    image, content = image_of(size, np.float32, outside=np.nan)
    zoom = np.divide(whole, size).astype(np.float32)
    with jax.numpy_dtype_promotion("strict"):
        result = TO(image, jnp.int32(size), zoom, np.float32([2, 1]))
    height, width = min(whole[0], 18), min(whole[1], 25)
    np.testing.assert_allclose(result[2:, 1:][:height, :width], by_pil(content, *whole)[:height, :width], atol=2e-3)


def test_a_part_of_a_larger_one_is_shown_by_a_negative_shift():
    image, content = image_of(CANVAS, np.float32, outside=0)
    result = TO(image, jnp.int32(CANVAS), np.float32([2, 1.5]), np.float32([-9, -6]))
    expected = by_pil(content, 40, 39)
    np.testing.assert_allclose(result, expected[9:29, 6:32], atol=2e-3)


@pytest.mark.slow
def test_whole_types_are_rounded_and_float64_stays(float64):
    image, _ = image_of((13, 19), np.uint8, outside=9)
    arguments = jnp.int32([13, 19]), jnp.float32([0.6, 0.7]), jnp.float32([0, 0])
    whole, wide = TO(image, *arguments), TO(image.astype(jnp.float64), *arguments)
    assert whole.dtype == jnp.uint8
    assert wide.dtype == jnp.float64
    assert np.abs(np.asarray(whole) - np.asarray(wide)).max() <= 0.5 + 1e-4
    same = TO(image, jnp.int32([13, 19]), jnp.ones(2, jnp.float32), jnp.zeros(2, jnp.float32))
    np.testing.assert_array_equal(same[:13, :19], image[:13, :19])


def test_an_image_without_content_is_black():
    image, _ = image_of(CANVAS, np.float32, outside=0)
    assert not np.any(TO(image, jnp.int32([0, 0]), jnp.ones(2, jnp.float32), jnp.zeros(2, jnp.float32)))

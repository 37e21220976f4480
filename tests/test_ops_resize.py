import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision.ops.resize import bilinear, resized

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


def between(values, height, width):
    """Bilinear values at pixel centres, one at a time."""
    found = np.zeros((height, width, values.shape[2]))
    for y, x in np.ndindex(height, width):
        at = [(i + 0.5) * old / new - 0.5 for i, old, new in zip((y, x), values.shape, (height, width), strict=False)]
        at = [min(max(place, 0), old - 1) for place, old in zip(at, values.shape, strict=False)]
        (top, left), (down, right) = np.int64(at), np.mod(at, 1)
        for row, column in np.ndindex(2, 2):
            weight = (down if row else 1 - down) * (right if column else 1 - right)
            place = min(top + row, values.shape[0] - 1), min(left + column, values.shape[1] - 1)
            found[y, x] += weight * values[place]
    return found


FROM = (5, 7)
TO_SIZES = [(5, 7), (10, 14), (40, 21), (13, 9), (3, 4), (1, 1), (15, 3)]


@pytest.mark.parametrize("size", TO_SIZES)
def test_bilinear_values_lie_between_pixel_centres(float64, size):
    values = np.random.default_rng(0).normal(size=(*FROM, 2))
    np.testing.assert_allclose(bilinear(jnp.asarray(values), *size), between(values, *size), rtol=0, atol=1e-14)
    one = np.float64([[[3.0, -1.0]]])
    np.testing.assert_array_equal(bilinear(jnp.asarray(one), *size), np.broadcast_to(one, (*size, 2)))


@pytest.mark.parity
@pytest.mark.parametrize("size", TO_SIZES)
def test_bilinear_values_and_gradients_are_those_of_torch(float64, size):
    import torch

    values = np.random.default_rng(0).normal(size=(*FROM, 2))
    weights = np.random.default_rng(1).normal(size=(*size, 2))
    given = torch.tensor(values.transpose(2, 0, 1)[None], requires_grad=True)
    theirs = torch.nn.functional.interpolate(given, size=size, mode="bilinear", align_corners=False)[0]
    (theirs * torch.tensor(weights.transpose(2, 0, 1))).sum().backward()
    np.testing.assert_allclose(
        bilinear(jnp.asarray(values), *size), theirs.detach().numpy().transpose(1, 2, 0), atol=1e-13
    )
    ours = jax.grad(lambda x: (bilinear(x, *size) * weights).sum())(jnp.asarray(values))
    np.testing.assert_allclose(ours, given.grad[0].numpy().transpose(1, 2, 0), atol=1e-12)


def test_bilinear_keeps_the_type():
    with jax.numpy_dtype_promotion("strict"):
        for size in ((10, 14), (9, 9)):
            assert bilinear(jnp.ones((*FROM, 1), jnp.bfloat16), *size).dtype == jnp.bfloat16

"""Each operation against PIL or the standard library; images on a larger canvas, whose rest must not matter."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxvision.data.samples import photos_dir
from jaxvision.ops import colour, filters

SIDE = 64
SIZE = jnp.int32([48, 57])
BRIGHTNESS, CONTRAST, SATURATION, SHARPNESS, EQUALIZE, AUTOCONTRAST = map(
    jax.jit,
    (colour.brightness, colour.contrast, colour.saturation, filters.sharpness, colour.equalize, colour.autocontrast),
)
FACTORS = [0.0, 0.1, 0.7, 1.0, 1.9]


def photo(name="astronaut"):
    return np.asarray(Image.open(photos_dir() / f"{name}.jpg").convert("RGB").resize((57, 48)))


def narrow():
    """A photograph of few levels, with channels of other ranges."""
    return (photo("chelsea") // [2, 3, 5] + [40, 0, 100]).astype(np.uint8)


IMAGES = pytest.mark.parametrize("image", [photo(), narrow()], ids=["photo", "narrow"])


def on_canvas(image, seed=0, dtype=jnp.uint8):
    canvas = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, image.shape[2]), dtype=np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return jnp.asarray(canvas, dtype)


def content(result):
    return np.asarray(result)[: int(SIZE[0]), : int(SIZE[1])]


def assert_levels(found, expected, tolerance=1):
    assert found.dtype == np.uint8
    assert np.abs(content(found).astype(int) - np.asarray(expected).astype(int)).max() <= tolerance


def enhanced(enhancer, image, factor):
    return enhancer(Image.fromarray(image)).enhance(factor)


@IMAGES
@pytest.mark.parametrize("factor", FACTORS)
def test_factors_equal_pil_within_a_level(image, factor):
    canvas = on_canvas(image)
    with jax.numpy_dtype_promotion("strict"):
        assert_levels(BRIGHTNESS(canvas, factor), enhanced(ImageEnhance.Brightness, image, factor))
        assert_levels(CONTRAST(canvas, SIZE, factor), enhanced(ImageEnhance.Contrast, image, factor))
        assert_levels(SATURATION(canvas, factor), enhanced(ImageEnhance.Color, image, factor))
        assert_levels(SHARPNESS(canvas, SIZE, factor), enhanced(ImageEnhance.Sharpness, image, factor))


@IMAGES
def test_grey_equals_pil(image):
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert_levels(colour.greyscale(on_canvas(image)), np.stack([grey] * 3, -1))


@IMAGES
@pytest.mark.parametrize("threshold", [0, 1, 100, 128, 255, 256])
def test_solarize_equals_pil(image, threshold):
    expected = ImageOps.solarize(Image.fromarray(image), threshold)
    assert_levels(colour.solarize(on_canvas(image), threshold), expected, 0)


@IMAGES
@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
def test_posterize_equals_pil(image, bits):
    assert_levels(colour.posterize(on_canvas(image), bits), ImageOps.posterize(Image.fromarray(image), bits), 0)


SPECIAL = [photo(), narrow(), np.full((48, 57, 3), [0, 77, 255], np.uint8), np.eye(48, 57, dtype=np.uint8)[..., None]]


@pytest.mark.parametrize("image", SPECIAL, ids=["photo", "narrow", "flat", "two_levels"])
def test_equalize_and_autocontrast_equal_pil(image):
    by_pil = Image.fromarray(image.squeeze())
    expected = np.asarray(ImageOps.equalize(by_pil)).reshape(image.shape)
    assert_levels(EQUALIZE(on_canvas(image), SIZE), expected, 0)
    expected = np.asarray(ImageOps.autocontrast(by_pil)).reshape(image.shape)
    assert_levels(AUTOCONTRAST(on_canvas(image), SIZE), expected)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.05, 1 / 3, 0.5])
def test_hue_equals_colorsys(turn):
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    colours[:3] = [[[7, 7, 7]], [[255, 0, 0]], [[0, 0, 0]]]

    def turned(pixel):
        h, s, v = colorsys.rgb_to_hsv(*pixel / 255)
        return 255 * np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v))

    found = colour.hue(jnp.asarray(colours, jnp.float32), turn)
    np.testing.assert_allclose(found, np.apply_along_axis(turned, -1, colours), atol=2e-3)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.2])
def test_gamma_equals_numpy(exponent):
    expected = np.round(255 * (photo() / 255.0) ** exponent)
    assert_levels(colour.gamma(on_canvas(photo()), exponent), expected)


def test_offset_and_solarize_add_equal_pil():
    image = Image.fromarray(photo().astype(np.uint8))
    brightened = image.point([min(max(level - 77, 0), 255) for level in range(256)] * 3)
    assert_levels(colour.offset(on_canvas(photo()), -77), np.asarray(brightened))
    added = image.point([min(level + 99, 255) if level < 128 else level for level in range(256)] * 3)
    assert_levels(colour.solarize_add(on_canvas(photo()), 99), np.asarray(added))


OPERATIONS = {
    "offset": lambda image: colour.offset(image, 77),
    "solarize_add": lambda image: colour.solarize_add(image, 99),
    "brightness": lambda image: colour.brightness(image, 1.7),
    "contrast": lambda image: colour.contrast(image, SIZE, 1.7),
    "saturation": lambda image: colour.saturation(image, 1.7),
    "greyscale": colour.greyscale,
    "hue": lambda image: colour.hue(image, 0.2),
    "gamma": lambda image: colour.gamma(image, 1.5),
    "solarize": lambda image: colour.solarize(image, 99),
    "posterize": lambda image: colour.posterize(image, 3),
    "autocontrast": lambda image: colour.autocontrast(image, SIZE),
    "equalize": lambda image: colour.equalize(image, SIZE),
    "sharpness": lambda image: filters.sharpness(image, SIZE, 1.7),
    "blur": lambda image: filters.gaussian_blur(image, SIZE, 1.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_types_and_what_lies_outside(operation):
    operation = jax.jit(operation)
    with jax.numpy_dtype_promotion("strict"):
        found = operation(on_canvas(photo()))
        elsewhere = operation(on_canvas(photo(), seed=1))
        floats = operation(on_canvas(photo(), dtype=jnp.float32))
    np.testing.assert_array_equal(content(found), content(elsewhere))
    assert (found.dtype, floats.dtype) == (jnp.uint8, jnp.float32)
    np.testing.assert_array_equal(content(found), np.round(content(floats)))
    assert 0 <= float(floats.min()) <= float(floats.max()) <= 255


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_half_precision_and_grey_images(operation):
    for image in (on_canvas(photo(), dtype=jnp.bfloat16), on_canvas(photo()[..., :1])):
        with jax.numpy_dtype_promotion("strict"):
            found = jax.eval_shape(operation, image)
        assert (found.shape, found.dtype) == (image.shape, image.dtype)


def test_hue_and_saturation_of_a_grey_image_change_nothing():
    grey = on_canvas(photo()[..., :1])
    np.testing.assert_array_equal(colour.hue(grey, 0.3), grey)
    np.testing.assert_array_equal(colour.saturation(grey, 0.0), grey)
    with pytest.raises(ValueError, match="an image of 4 channels has no colours; allowed are 1"):
        colour.luma(jnp.zeros((2, 2, 4)))


def test_an_empty_image_gives_no_nan():
    nothing = jnp.int32([0, 0])
    image = jnp.ones((4, 4, 3))

    @jax.jit
    def results(image, size):
        first = colour.contrast(image, size, 0.5), colour.autocontrast(image, size), colour.equalize(image, size)
        return *first, filters.gaussian_blur(image, size, 1.0), filters.sharpness(image, size, 2.0)

    assert all(np.isfinite(result).all() for result in results(image, nothing))

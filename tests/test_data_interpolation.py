"""Resizing, against the libraries whose meaning it has."""

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from data_encoding import encoded, noise, smooth
from PIL import Image

from jaxvision.data import host_tensorflow, placement, samples
from jaxvision.data.decode import decode
from jaxvision.data.interpolation import OPENCV_BILINEAR, PIL_BICUBIC, PIL_BILINEAR

FILTERS = {"bilinear": PIL_BILINEAR, "bicubic": PIL_BICUBIC, "opencv": OPENCV_BILINEAR}
SIZES = [(120, 90), (31, 57), (7, 400), (1, 1)]


def resized(pixels, size, interpolation, channels=3):
    return decode(pixels, placement.stretch(size, interpolation=interpolation), channels=channels).image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_antialiased_filters_are_pils_bit_for_bit(name, size):
    for pixels in (smooth(97, 61), noise(97, 61, 3)):
        expected = Image.fromarray(pixels).resize(size[::-1], Image.Resampling[name.upper()])
        np.testing.assert_array_equal(resized(pixels, size, FILTERS[name]), np.asarray(expected))


def test_without_a_word_it_is_pils_bilinear():
    assert {placement.stretch(8).interpolation, placement.random_resized_crop(8).interpolation} == {PIL_BILINEAR}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("source", [(97, 61), (480, 640), (1, 1), (5, 1)])
def test_opencvs_is_opencvs_to_a_grey_level(source, size):
    for pixels in (smooth(*source), noise(*source, 3)):
        expected = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
        found = resized(pixels, size, OPENCV_BILINEAR)
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert (found == expected).mean() > 0.97


def test_opencvs_is_tensorflows_without_antialias_to_a_grey_level():
    tf = host_tensorflow.tensorflow()
    pixels = noise(120, 90, 3)
    expected = tf.image.resize(pixels, (41, 77), "bilinear", antialias=False).numpy()
    assert np.abs(resized(pixels, (41, 77), OPENCV_BILINEAR) - expected).max() < 1.01


@pytest.mark.parametrize("shape", [(1, 4_000_000), (4_000_000, 1)])
def test_a_very_long_image_takes_no_more_memory_than_itself(shape):
    pixels = np.full(shape, 77, np.uint8)
    tracemalloc.start()
    assert (resized(pixels, (300, 300), OPENCV_BILINEAR) == 77).all()
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_are_resized_too(channels):
    grey = noise(60, 40)
    expected = cv2.resize(grey, (20, 31), interpolation=cv2.INTER_LINEAR)[..., None]
    found = resized(grey, (31, 20), OPENCV_BILINEAR, channels)
    assert found.shape == (31, 20, channels)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_opencvs_reads_beyond_a_box_that_lies_inside():
    pixels = noise(40, 50, 3)
    whole = cv2.resize(pixels, (100, 80), interpolation=cv2.INTER_LINEAR)
    placer = placement.Placer(
        (40, 60), lambda rng, size: placement.Placement((10, 5, 40, 25), (40, 60)), interpolation=OPENCV_BILINEAR
    )
    assert np.abs(decode(pixels, placer).image.astype(int) - whole[10:50, 20:80]).max() <= 1


@pytest.mark.parametrize(
    "make",
    [
        placement.stretch,
        placement.letterbox,
        lambda size, **how: placement.resize_shortest_edge(*size, size, **how),
        lambda size, **how: placement.resize_and_centre_crop(size[1], size[0], **how),
        placement.large_scale_jitter,
        placement.random_resized_crop,
    ],
)
def test_every_placer_that_resizes_takes_it(make):
    placer = make((30, 40), interpolation=OPENCV_BILINEAR)
    assert placer.interpolation is OPENCV_BILINEAR
    pixels = noise(90, 80, 3)
    images = [
        decode(pixels, placer._replace(interpolation=how), np.random.default_rng(0)).image for how in FILTERS.values()
    ]
    assert len({image.tobytes() for image in images}) == 3


@pytest.mark.parametrize("name", FILTERS)
def test_cutting_a_jpeg_before_decoding_changes_no_bit(name, monkeypatch):
    host_tensorflow.tensorflow()
    photo = Image.open(samples.photos_dir() / "astronaut.jpg").convert("RGB").resize((901, 677))
    data = encoded(photo, "JPEG")
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    placer = placement.random_resized_crop(48, area=(0.02, 0.5), interpolation=FILTERS[name])
    for seed in range(12):
        found = decode(data, placer, np.random.default_rng(seed))
        np.testing.assert_array_equal(found.image, decode(pixels, placer, np.random.default_rng(seed)).image)

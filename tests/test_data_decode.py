import contextlib
import io
import logging
import warnings

import numpy as np
import pytest
from data_encoding import encoded, noise, smooth
from PIL import Image, ImageOps

from jaxvision.data import decode as decoding
from jaxvision.data import host_tensorflow, placement, samples
from jaxvision.data.decode import decode
from jaxvision.formats.image_file import BadImage

KEEP = placement.keep(64)
COLOUR = smooth(48, 40)
GREY = COLOUR[..., 1].copy()


def content(data, channels=3, placer=KEEP):
    image, (height, width), _ = decode(data, placer, channels=channels)[:3]
    assert image.dtype == np.uint8
    assert image.shape == (*placer.canvas, channels)
    assert not image[height:].any()
    assert not image[:, width:].any()
    return image[:height, :width]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_colour_is_what_was_stored(kind):
    data = encoded(COLOUR, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(content(data), COLOUR)


@pytest.mark.parametrize("pixels", [GREY, GREY[..., None]])
def test_grey_pixels_spread_over_three_channels(pixels):
    for data in (encoded(GREY), pixels):
        np.testing.assert_array_equal(content(data), np.repeat(GREY[..., None], 3, axis=2))
        np.testing.assert_array_equal(content(data, channels=1), GREY[..., None])


def test_colour_becomes_luma():
    luma = np.rint(COLOUR.astype(float) @ [0.299, 0.587, 0.114])
    for data in (encoded(COLOUR), COLOUR):
        assert np.abs(content(data, channels=1)[..., 0] - luma).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_what_pil_says(mode, options):
    data = encoded(Image.fromarray(COLOUR).convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(content(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_transparency_is_dropped():
    rgba = np.dstack([COLOUR, noise(48, 40)])
    np.testing.assert_array_equal(content(encoded(rgba)), COLOUR)
    np.testing.assert_array_equal(content(encoded(rgba, "WEBP", lossless=True, exact=True)), COLOUR)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(noise(48, 40))])
    np.testing.assert_array_equal(content(encoded(grey_alpha), channels=1)[..., 0], GREY)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_is_looked_up(kind, transparency):
    if kind == "GIF" and isinstance(transparency, bytes):
        pytest.skip("GIF has one transparent colour")
    index, table = noise(48, 40) % 16, noise(16, 3, seed=1)
    image = Image.frombytes("P", (40, 48), index.tobytes())
    image.putpalette(table.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(content(encoded(image, kind, **options)), table[index])


def test_sixteen_bits_are_scaled_to_eight():
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shallow = content(encoded(deep), channels=1, placer=placement.keep(256))[..., 0]
    np.testing.assert_array_equal(shallow, np.rint(deep / 65535 * 255))


def test_one_bit_is_black_and_white():
    bits = GREY > 128
    np.testing.assert_array_equal(content(encoded(Image.fromarray(bits)), channels=1)[..., 0], bits * 255)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.fromarray(noise(9, 7, seed=k) % 2 * 255) for k in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(content(data, channels=1)[..., 0], np.asarray(frames[0]))


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(COLOUR, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    expected = TURNS[orientation](stored)
    np.testing.assert_array_equal(content(data), expected)
    assert decode(data, KEEP).original_size == expected.shape[:2]


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (90, 91), (256, 256), (50, 400)])
def test_resize_and_centre_crop_is_a_resize_of_the_whole_and_then_a_crop(size):
    image = Image.fromarray(smooth(*size))
    height, width = size
    short = min(size)
    whole = image.resize((int(64 * width / short), int(64 * height / short)), Image.Resampling.BILINEAR)
    left, top = round((whole.width - 56) / 2), round((whole.height - 56) / 2)
    expected = np.asarray(whole.crop((left, top, left + 56, top + 56)))
    for data in (encoded(image), np.asarray(image)):
        found = content(data, placer=placement.resize_and_centre_crop(64, 56))
        if max(size) < 400:
            np.testing.assert_array_equal(found, expected)
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert (found == expected).mean() > 0.999


def test_of_a_very_long_image_only_the_centre_is_resized():
    place = placement.resize_and_centre_crop(64, 56).place
    assert place(None, (64, 64)).size == (64, 64)
    assert place(None, (1, 170_000_000)).size == (56, 56)


@pytest.mark.parametrize("make", [placement.stretch, placement.letterbox])
def test_the_whole_image_is_resized_as_pil_does(make):
    image = Image.fromarray(smooth(120, 90))
    size = {placement.stretch: (40, 48), placement.letterbox: (36, 48)}[make]
    expected = image.resize(size, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(content(encoded(image), placer=make((48, 40))), np.asarray(expected))


def test_a_random_crop_is_the_box_resized():
    image = Image.fromarray(smooth(120, 90))
    placer = placement.random_resized_crop(32)
    for seed in range(5):
        box = placer.place(np.random.default_rng(seed), (120, 90)).box
        expected = image.resize((32, 32), Image.Resampling.BILINEAR, box=box)
        found = decode(encoded(image), placer, np.random.default_rng(seed)).image
        np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(
    "placer",
    [
        placement.stretch(32),
        placement.letterbox(32),
        placement.resize_and_centre_crop(40, 32),
        placement.random_resized_crop(32),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (20, 20000), (20000, 20)])
def test_extreme_sizes_work(placer, size):
    pixels = np.full((*size, 3), (10, 120, 250), np.uint8)
    image, (height, width), original = decode(encoded(pixels), placer, np.random.default_rng(0))[:3]
    assert original == size
    assert (image[:height, :width] == (10, 120, 250)).all()


# --- the quick way through a large JPEG -----------------------------------------------------------------------------------


def jpegs():
    photo = Image.open(samples.photos_dir() / "astronaut.jpg").convert("RGB")
    for subsampling in (0, 1, 2):
        for quality in (40, 95):
            yield encoded(photo.resize((901, 677)), "JPEG", subsampling=subsampling, quality=quality)
    yield encoded(photo.resize((700, 900)).convert("L"), "JPEG")
    yield encoded(photo.resize((700, 900)), "JPEG", restart_marker_rows=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_cutting_a_jpeg_before_decoding_changes_no_bit(channels, monkeypatch):
    host_tensorflow.tensorflow()
    cuts = []
    cut = decoding._cut_jpeg
    monkeypatch.setattr(decoding, "_cut_jpeg", lambda *args: cuts.append(cut(*args)) or cuts[-1])
    placer = placement.random_resized_crop(48, area=(0.02, 0.7))
    files = list(jpegs())
    quick = [
        decode(data, placer, np.random.default_rng(k), channels=channels).image for data in files for k in range(8)
    ]
    assert sum(each is not None for each in cuts) > 50
    monkeypatch.setattr(decoding, "loaded", lambda: None)
    slow = [decode(data, placer, np.random.default_rng(k), channels=channels).image for data in files for k in range(8)]
    np.testing.assert_array_equal(quick, slow)


def test_a_truncated_jpeg_is_bad_wherever_the_crop_lies():
    host_tensorflow.tensorflow()
    data = next(jpegs())
    placer = placement.Placer((8, 8), lambda rng, size: placement.Placement((0, 0, 80, 80), (8, 8)))
    assert decode(data, placer).size == (8, 8)
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: len(data) // 2], placer)


# --- what is no image -----------------------------------------------------------------------------------------------------


PNG, JPEG = encoded(COLOUR), encoded(COLOUR, "JPEG")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<!DOCTYPE html>", r"not an image .* first bytes are b'<!DOCTYP'"),
        (JPEG[:200], "not an image|truncated|can't be decoded"),
        (JPEG[: len(JPEG) // 2], "(?i)truncated"),
        (PNG[: len(PNG) // 2], "truncated|can't be decoded"),
        (PNG[:33], "not an image"),
        (encoded(COLOUR, "GIF")[:60], "can't be decoded|not an image"),
        (encoded(COLOUR, "BMP")[:100], "can't be decoded"),
        (encoded(COLOUR, "WEBP")[:50], "can't be decoded|not an image"),
        (encoded(COLOUR, "TGA"), "not an image"),
        (np.zeros((4, 4), np.float32), r"uint8 .* got float32 \[4, 4\]"),
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 \[4, 4, 2\]"),
        (np.zeros((0, 4), np.uint8), r"got uint8 \[0, 4\]"),
    ],
)
def test_what_is_no_image_is_named(data, match):
    with pytest.raises(BadImage, match=match) as raised:
        decode(data, KEEP)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_an_image_or_a_bad_image_and_nothing_else(seed):
    rng = np.random.RandomState(seed)
    data = bytearray((JPEG, PNG, encoded(COLOUR, "WEBP"), encoded(GREY, "GIF"))[seed % 4])
    for _ in range(4):
        data[rng.randint(8, len(data))] = rng.randint(256)
    with contextlib.suppress(BadImage):
        assert decode(bytes(data), placement.stretch(16)).size == (16, 16)


def test_too_many_pixels_are_refused_with_both_numbers():
    with pytest.raises(BadImage, match="48x40 are 1920 pixels, more than max_pixels=1919"):
        decode(PNG, KEEP, max_pixels=1919)
    assert decode(PNG, KEEP, max_pixels=1920).original_size == (48, 40)
    bomb = bytearray(encoded(np.zeros((1, 1), np.uint8), "BMP"))
    bomb[18:26] = (20000).to_bytes(4, "little") * 2
    with pytest.raises(BadImage, match=r"400000000 pixels.* limit of 178956970 pixels"):
        decode(bytes(bomb), KEEP)


def test_an_image_larger_than_the_canvas_is_no_bad_image():
    with pytest.raises(ValueError, match="48x40 is larger than the canvas 32x64") as raised:
        decode(PNG, placement.keep((32, 64)))
    assert not isinstance(raised.value, BadImage)


def test_what_pil_warns_of_stays_inside():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06"  # ends in the middle of its first entry
    data = encoded(COLOUR, "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).getexif()
    assert caught, "PIL does warn of it"
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            assert decode(data, KEEP).original_size == (48, 40)
            assert caught == []


def test_the_warnings_of_others_are_left_alone():
    decode(JPEG, KEEP)
    with pytest.warns(UserWarning, match="of others"):
        warnings.warn("of others", UserWarning, stacklevel=1)


def test_nothing_is_logged(caplog):
    caplog.set_level(logging.INFO)
    decode(JPEG, KEEP)
    assert caplog.records == []


def test_exif_transpose_agrees_for_a_photograph():
    data = (samples.photos_dir() / "chelsea.jpg").read_bytes()
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(content(data, placer=placement.keep(600)), np.asarray(expected))

"""Metadata never cost the pixels: files whose EXIF, text or colour profile is odd decode to what was stored."""

import io
import struct
import zlib

import numpy as np
import pytest
from data_encoding import encoded, smooth
from detection_files import CLASSES
from PIL import Image

from jaxvision.data import objects
from jaxvision.data.decode import decode
from jaxvision.data.placement import keep
from jaxvision.formats.image_file import BadImage, decoded_size, upright_size

COLOUR = smooth(40, 60)
PNG, JPEG = encoded(COLOUR), encoded(COLOUR, "JPEG")


def exif(*tags):
    """An EXIF block, little-endian, of one directory: tags of number, type, count and four bytes of value."""
    rows = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + rows + struct.pack("<I", 0)


TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))
"""Orientation 6: shown after a quarter turn clockwise."""


def chunk(name, content, crc=None):
    crc = zlib.crc32(name + content) if crc is None else crc
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png_with(*chunks, before=b"IDAT"):
    place = PNG.index(before) - 4
    return PNG[:place] + b"".join(chunks) + PNG[place:]


def jpeg_with(marker, content):
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + JPEG[2:]


LONG = zlib.compress(b"x" * 2_000_000)
UPRIGHT = {
    "PNG with 2 MB of compressed text": png_with(chunk(b"zTXt", b"Raw profile type xmp\0\0" + LONG)),
    "PNG with 2 MB of international text": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG)),
    "PNG with a colour profile of 2 MB": png_with(chunk(b"iCCP", b"icc\0\0" + LONG)),
    "PNG with a wrong checksum of a text": png_with(chunk(b"tEXt", b"Comment\0hello", crc=1)),
    "PNG with such a text behind the pixels": png_with(chunk(b"tEXt", b"Comment\0hello", crc=1), before=b"IEND"),
    "PNG whose EXIF is garbage": png_with(chunk(b"eXIf", b"garbage")),
    "PNG whose EXIF has a wrong checksum": png_with(chunk(b"eXIf", exif(TURNED)[6:], crc=1)),
    "PNG with a short gAMA": png_with(chunk(b"gAMA", b"\0")),
    "PNG with a short pHYs": png_with(chunk(b"pHYs", b"\0")),
    "WebP whose EXIF is garbage": encoded(COLOUR, "WEBP", lossless=True, exif=b"Exif\0\0garbage"),
    "JPEG with a short APP14": jpeg_with(0xEE, b"Adobe"),
    "JPEG with a short JFIF": jpeg_with(0xE0, b"JFIF\0"),
    "JPEG whose EXIF is garbage": jpeg_with(0xE1, b"Exif\0\0garbage"),
    "JPEG whose list of pictures is garbage": jpeg_with(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\2\0\7\0\0\0\1\0\0\0\0"),
}
TURNED_QUARTER = {
    "Software is a float": exif(TURNED, (0x131, 11, 1, struct.pack("<f", 1.5))),
    "ImageWidth is -5": exif((0x100, 9, 1, struct.pack("<i", -5)), TURNED),
    "BitsPerSample is bytes": exif((0x102, 1, 3, b"\x08\x08\x08\0"), TURNED),
    "Artist has a type that there is not": exif(TURNED, (0x13B, 99, 1, b"abcd")),
}


def content(data):
    image, (height, width) = decode(data, keep(64))[:2]
    return image[:height, :width]


@pytest.mark.parametrize("name", UPRIGHT)
def test_odd_metadata_cost_no_pixels(name, tmp_path):
    data = UPRIGHT[name]
    plain = np.asarray(Image.open(io.BytesIO(JPEG)).convert("RGB")) if name.startswith("JPEG") else COLOUR
    np.testing.assert_array_equal(content(data), plain)
    (tmp_path / "file").write_bytes(data)
    assert decoded_size(data) == upright_size(data) == upright_size(tmp_path / "file") == (40, 60)


@pytest.mark.parametrize("name", TURNED_QUARTER)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_beside_odd_tags_is_followed(name, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(COLOUR, kind, exif=TURNED_QUARTER[name], **options)
    plain = np.asarray(Image.open(io.BytesIO(encoded(COLOUR, kind, **options))).convert("RGB"))
    np.testing.assert_array_equal(content(data), np.rot90(plain, -1))
    assert decoded_size(data) == upright_size(data) == (60, 40)


def test_objects_of_an_image_with_odd_metadata_are_not_lost(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images/a.png").write_bytes(UPRIGHT["PNG with 2 MB of compressed text"])
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .2 .4\n")
    source = objects.yolo_folder(tmp_path / "images", tmp_path / "labels", CLASSES)
    np.testing.assert_allclose(source.objects()[0].boxes, [[24, 12, 36, 28]], atol=1e-4)


def damaged(data, place, count=8):
    return data[:place] + bytes(byte ^ 0xFF for byte in data[place : place + count]) + data[place + count :]


@pytest.mark.parametrize("data", [PNG, UPRIGHT["PNG with 2 MB of compressed text"]])
def test_damaged_pixels_are_still_refused(data):
    pixels = data.index(b"IDAT")
    for broken in (
        damaged(data, pixels + 40),  # inside the compressed pixels
        damaged(data, data.index(b"IHDR") + 4, 4),  # another width than the checksum is of
        data[: pixels + 200],
        data[: pixels - 4],
    ):
        with pytest.raises(BadImage):
            decode(broken, keep(64))
    with pytest.raises(BadImage, match="(?i)truncated"):
        decode(UPRIGHT["JPEG with a short APP14"][:-400], keep(64))


def test_the_adobe_segment_that_says_what_the_channels_mean_stays():
    cmyk = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG")
    broken = cmyk[:2] + b"\xff\xee\0\7Adobe" + cmyk[2:]
    np.testing.assert_array_equal(content(broken), np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")))

import os

import numpy as np
import pytest
from data_encoding import encoded, smooth
from PIL import Image

from jaxvision.data.decode import decode
from jaxvision.data.placement import keep
from jaxvision.formats import files
from jaxvision.formats.image_file import SUFFIXES, BadImage, upright_size

COLOUR = smooth(24, 31)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_every_suffix_is_decoded(suffix, tmp_path):
    """Written as PIL writes a file of this name, and read as PIL reads it."""
    path = tmp_path / f"a{suffix}"
    grey = suffix in (".pgm", ".pbm")
    Image.fromarray(COLOUR).convert("1" if suffix == ".pbm" else "L" if grey else "RGB").save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(path.read_bytes(), keep(32)).image[:24, :31], expected)
    assert upright_size(path) == (24, 31)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_a_tiff_is_what_was_stored(options):
    np.testing.assert_array_equal(decode(encoded(COLOUR, "TIFF", **options), keep(32)).image[:24, :31], COLOUR)
    deep = (np.arange(24 * 31) * 88).astype(np.uint16).reshape(24, 31)
    shallow = decode(encoded(deep, "TIFF", **options), keep(32), channels=1).image[:24, :31, 0]
    np.testing.assert_array_equal(shallow, np.rint(deep / 65535 * 255))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_of_a_tiff_is_followed(orientation):
    quarters = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    data = encoded(COLOUR, "TIFF", tiffinfo={0x112: orientation})
    image, (height, width) = decode(data, keep(32))[:2]
    np.testing.assert_array_equal(image[:height, :width], np.rot90(COLOUR, quarters))
    assert upright_size(data) == (height, width)


def test_floating_point_pixels_are_refused():
    with pytest.raises(BadImage, match="floating-point numbers, of no known range"):
        decode(encoded(np.zeros((4, 4), np.float32), "TIFF"), keep(8))


def test_links_and_pipes_neither_hang_nor_end_a_search(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.PNG").write_bytes(b"")
    (tmp_path / "a.png").symlink_to(tmp_path / "deep/b.PNG")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "notes").write_text("")
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = files.sorted_out(tmp_path, (".png",))
    assert [os.path.relpath(each.path, tmp_path) for each in found.used] == ["a.png", "deep/b.PNG"]
    assert files.counted(found.others) == {"no regular file": 3, "without a suffix": 1}


def test_what_is_left_out_is_counted_by_suffix():
    assert files.left_out(5, {}) == ""
    assert files.left_out(10, {".tga": 15, ".heic": 25}) == "left out 40 of 50 files: 25 .heic, 15 .tga"
    many = {f".{letter}": 1 for letter in "abcdefghij"}
    assert files.left_out(0, many).endswith("1 .g, 1 .h, 2 others")


@pytest.mark.parametrize("seen", [0, 3, 7, 9])
def test_all_of_a_file_is_read_whatever_size_it_had_before(seen, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"1234567")
    told = os.fstat

    def earlier(number):
        fields = list(told(number))
        fields[6] = seen
        return os.stat_result(fields)

    monkeypatch.setattr(files.os, "fstat", earlier)
    assert files.content(path, 100) == b"1234567"

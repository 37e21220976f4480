"""Metadata of image files: they never cost the pixels. What can't be read is left out, or counts as not there."""

import zlib
from collections.abc import Iterator

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright; 1 is upright."""
QUARTERS = (5, 6, 7, 8)
"""Orientations that exchange height and width."""


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # PIL raises SyntaxError, struct.error, ... for what is no EXIF
        return 1
    return int(value) if value in TURNS else 1


def bare_png(data: bytes) -> bytes:
    """The file without the chunks that no pixel needs, but for a sound `eXIf`; data that are no PNG as they are.

    Chunks of text and of colour profiles may be large or broken (PNG specification, 5.4: a decoder may ignore whatever is
    ancillary). Critical chunks stay, damaged or not, and so does what follows the last whole chunk.
    """
    if not data.startswith(PNG):
        return data
    kept, end = [PNG], len(PNG)
    for start, end in _chunks(data):
        if _is_needed(data[start + 4 : start + 8], data[start + 4 : end - 4], data[end - 4 : end]):
            kept.append(data[start:end])
    return b"".join([*kept, data[end:]])


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each whole chunk, up to the last one of the image."""
    start, name = len(PNG), b""
    while name != b"IEND" and start + 12 <= len(data):
        name, end = data[start + 4 : start + 8], start + 12 + int.from_bytes(data[start : start + 4])
        if end > len(data):
            return
        yield start, end
        start = end


def _is_needed(name: bytes, content: bytes, checksum: bytes) -> bool:
    ancillary = name[0] & 0x20
    return not ancillary or (name == b"eXIf" and zlib.crc32(content) == int.from_bytes(checksum))


def bare_jpeg(data: bytes) -> bytes:
    """The file without the segments that no pixel needs, but for EXIF; data that are no JPEG as they are.

    A whole JFIF or Adobe segment stays: it says what the channels mean.
    """
    if not data.startswith(JPEG):
        return data
    kept, place = [JPEG], len(JPEG)
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:  # the scan begins
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if data[place + 1] == 0xFF:  # a fill byte
            end = place + 1
        elif not _is_metadata(data[place:end]):
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _is_metadata(segment: bytes) -> bool:
    """Whether a segment is a comment, or an application's other than JFIF, Adobe or EXIF."""
    marker, content = segment[1], segment[4:]
    if marker not in (*range(0xE0, 0xF0), 0xFE):
        return False
    whole = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}
    name, length = whole.get(marker, (None, 0))
    return name is None or not content.startswith(name) or len(content) < length

"""Image files: which formats are read, their size from the header, and what is wrong with those that can't be decoded."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps

from jaxvision.errors import DataError

T = TypeVar("T")
Size = tuple[int, int]
"""Height, width."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
MAX_PIXELS = 178_956_970
"""Twice what PIL calls a decompression bomb, the point where it refuses to go on."""
ORIENTATION = 0x0112


class BadImage(DataError):
    """An image that can't be used: the message names it and says why, in one line."""


def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file, its pixels not decoded yet. Raises BadImage for what is no image, or a larger one."""
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise BadImage(f"not an image (readable are {', '.join(FORMATS)}): its first bytes are {data[:8]!r}") from None
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise BadImage(f"{image.height}x{image.width} are {pixels} pixels, more than max_pixels={max_pixels}")
    return image


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    if "exif" not in image.info or image.getexif().get(ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def decoded_size(data: bytes) -> Size:
    """`(height, width)` of an image file, upright, all of its pixels decoded. Raises BadImage if they can't be."""
    image = guarded(lambda: upright(opened(data)))
    guarded(image.load)
    return image.height, image.width


def upright_size(image: bytes | Path) -> Size | None:
    """`(height, width)` of an image file, turned as its EXIF orientation says, from its header; None if it is no image."""
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as opened:
            turned = _quarter_turned(opened)
            width, height = opened.size
    except Exception:  # decoders raise OSError, SyntaxError, struct.error, ... for broken files; decoding says why
        return None
    if width * height > MAX_PIXELS:
        return None
    return (width, height) if turned else (height, width)


def size_mismatch(name: str, stated: Size, size: Size | None, image: bytes) -> str | None:
    """How the size that is stated of an image differs from its own, upright; None if it does not, or if it has none."""
    if size is None or stated == size:
        return None
    in_annotation, in_file = (f"{width}x{height}" for height, width in (stated, size))
    turned = "; turned by its EXIF orientation" if stated == size[::-1] and _is_turned(image) else ""
    return f"{name} is {in_annotation} here, and {in_file} in its file (width x height{turned})"


def _quarter_turned(image: Image.Image) -> bool:
    """Whether its EXIF orientation exchanges its sides."""
    return "exif" in image.info and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)


def _is_turned(image: bytes) -> bool:
    """Whether the EXIF orientation exchanges the sides of a file that has a size."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return _quarter_turned(opened)


def guarded(read: Callable[[], T]) -> T:
    """What `read` returns; whatever PIL raises becomes a BadImage, and what it warns of is silenced."""
    _silence_pil()
    try:
        return read()
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, ... for broken files
        text = " ".join(str(error).split())
        raise BadImage(f"can't be decoded: {text or type(error).__name__}") from None


def _silence_pil() -> None:
    # `warnings.catch_warnings` swaps a process-wide list, which decoding threads must not do: a filter for PIL alone, kept
    # in front of those that others add.
    if not warnings.filters or warnings.filters[0] != _PIL_FILTER:
        warnings.filterwarnings("ignore", module=r"PIL\.")


warnings.filterwarnings("ignore", module=r"PIL\.")
_PIL_FILTER = warnings.filters[0]

"""Image files: which formats are read, their size from the header, and what is wrong with those that can't be decoded."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image

from jaxvision.errors import DataError, cut
from jaxvision.formats.files import content, regular
from jaxvision.formats.metadata import QUARTERS, TURNS, bare_jpeg, bare_png, orientation

T = TypeVar("T")
Size = tuple[int, int]
"""Height, width."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""How the names of image files end, in lower case: those that are read."""
MAX_PIXELS = 178_956_970
"""Pixels of an image; one of more is refused. Twice what PIL calls a decompression bomb, where it refuses to go on."""
MAX_SIDE = 65_535
"""Pixels of a side; one of more is refused. The most that a JPEG can have."""
MAX_BYTES = 1 << 28
"""Bytes of an image file; a larger one is refused unread."""
MAX_EXPANSION = 1_000
"""Times the size of its file that an image of more than `SMALL` bytes may take decoded; beyond is a decompression bomb."""
SMALL = 1 << 26
"""Bytes of an image, decoded, that any file may hold."""
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Bytes of a pixel in PIL's memory, by the mode of the image; 4 of any other."""


class BadImage(DataError):
    """An image that can't be used: the message names it and says why, in one line."""


def read(path: Path) -> bytes:
    """The content of an image file. Raises BadImage, naming it, if it can't be read, is no regular file or too large."""
    try:
        return content(path, MAX_BYTES)
    except FileNotFoundError:
        raise BadImage(f"there is no file {path}") from None
    except OSError as error:
        raise BadImage(f"{path} can't be read: {error.strerror or error}") from None
    except DataError as error:
        raise BadImage(str(error)) from None


def is_possible(size: Size) -> bool:
    """Whether an image that is read can have the size."""
    return 0 < min(size) <= max(size) <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS


def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file, its pixels not decoded yet, whatever its metadata are like.

    Raises BadImage for what is no image, or a larger one.
    """
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    try:
        image = _opened(bare_png(data))
    except Image.UnidentifiedImageError:
        readable = f"{', '.join(FORMATS)}, of 8 bits or grey of 16"
        raise BadImage(f"not an image (readable are {readable}): its first bytes are {data[:8]!r}") from None
    _check_size(image, len(data), max_pixels)
    return image


def _check_size(image: Image.Image, size: int, max_pixels: int) -> None:
    """Raises BadImage for a header that claims more than can be decoded, or than a file of `size` bytes holds."""
    text, pixels = f"{image.height}x{image.width}", image.width * image.height
    if pixels > max_pixels:
        raise BadImage(f"{text} are {pixels} pixels, more than max_pixels={max_pixels}")
    if max(image.size) > MAX_SIDE:
        raise BadImage(f"{text}: no side may have more than {MAX_SIDE:,} pixels")
    decoded = pixels * BYTES.get(image.mode, 4)
    if decoded > max(SMALL, MAX_EXPANSION * size):
        raise BadImage(
            f"{text} in a file of {size:,} bytes, more than {MAX_EXPANSION} times as much: a decompression bomb"
        )


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:
        bare = bare_jpeg(data)
        if bare == data:
            raise
        return Image.open(io.BytesIO(bare), formats=FORMATS)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def decoded_size(data: bytes) -> Size:
    """`(height, width)` of an image file, upright, all of its pixels decoded. Raises BadImage if they can't be."""
    image = guarded(lambda: upright(opened(data)))
    guarded(image.load)
    return image.height, image.width


def upright_size(image: bytes | Path) -> Size | None:
    """`(height, width)` of an image file, turned as its EXIF orientation says, from its header; None if it is no image."""
    try:
        return guarded(lambda: _size_in_header(image))
    except BadImage:  # decoding says why
        return None


def _size_in_header(image: bytes | Path) -> Size:
    if isinstance(image, Path):
        try:
            with regular(image) as file, Image.open(file, formats=FORMATS) as found:
                return _upright_size(found)
        except Exception:  # perhaps for its metadata, which `opened` can do without
            image = read(image)
    return _upright_size(opened(image))


def _upright_size(image: Image.Image) -> Size:
    width, height = image.size
    return (width, height) if orientation(image) in QUARTERS else (height, width)


def size_mismatch(name: str, stated: Size, size: Size | None, image: bytes) -> str | None:
    """How the size that is stated of an image differs from its own, upright; None if it does not, or if it has none."""
    if size is None or stated == size:
        return None
    in_annotation, in_file = (f"{width}x{height}" for height, width in (stated, size))
    turned = "; turned by its EXIF orientation" if stated == size[::-1] and _is_turned(image) else ""
    return f"{name} is {in_annotation} here, and {in_file} in its file (width x height{turned})"


def _is_turned(image: bytes) -> bool:
    """Whether the EXIF orientation exchanges the sides of a file that has a size."""
    return guarded(lambda: orientation(opened(image)) in QUARTERS)


def guarded(read: Callable[[], T]) -> T:
    """What `read` returns; whatever PIL raises becomes a BadImage, and what it warns of is silenced."""
    _silence_pil()
    try:
        return read()
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, ... for broken files
        text = cut(" ".join(str(error).split()), 200)
        raise BadImage(f"can't be decoded: {text or type(error).__name__}") from None


def _silence_pil() -> None:
    # `warnings.catch_warnings` swaps a process-wide list, which decoding threads must not do: a filter for PIL alone, kept
    # in front of those that others add.
    if not warnings.filters or warnings.filters[0] != _PIL_FILTER:
        warnings.filterwarnings("ignore", module=r"PIL\.")


warnings.filterwarnings("ignore", module=r"PIL\.")
_PIL_FILTER = warnings.filters[0]

"""Images of numbers, not of colours: a class for every pixel, or the segment that it belongs to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxvision.errors import amount
from jaxvision.formats.annotation import FaultKind, Meaning
from jaxvision.formats.image_file import BadImage, Size, guarded, opened, upright

VALUES = 1 << 16
"""Values that a pixel may have."""
NUMBERS = ("P", "L", "1", "I;16", "I;16B", "I")
"""PIL's modes of images of numbers: of a palette, or grey of 1, 8 or 16 bits."""
COLOURS = ("RGB", "RGBA")
SHOWN = 5
"""Values that a message names."""


class BadMap(BadImage):
    """A map that can't be used: the kind of its fault, and why."""

    def __init__(self, kind: FaultKind, text: str):
        """Takes both."""
        super().__init__(text)
        self.kind = kind


def values(data: bytes, size: Size) -> np.ndarray:
    """The numbers of a map's pixels, uint8 or uint16 `h w`; those of a palette are its indices.

    Raises:
      BadMap: for what is no image, for one that is stored as JPEG or has colours, and for one of another size than `size`.
    """
    found = _pixels(data, size, NUMBERS, "has colours ({}) where numbers are meant; allowed are a palette, or grey")
    return found if found.dtype == np.uint8 else found.astype(np.uint16)


def ids(data: bytes, size: Size) -> np.ndarray:
    """The ids of a panoptic map's pixels, int32 `h w`: red + 256 green + 65,536 blue; 0 for none.

    Raises:
      BadMap: for what is no image, for one that is stored as JPEG or has no colours, and for one of another size than `size`.
    """
    colours = _pixels(data, size, COLOURS, "has no colours ({}) to make ids of; allowed is RGB")
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65_536 * blue


def _pixels(data: bytes, size: Size, modes: Sequence[str], otherwise: str) -> np.ndarray:
    try:
        image = guarded(lambda: opened(data))
        if image.format in ("JPEG", "MPO"):
            raise BadMap(FaultKind.MAP_FILE, "is stored as JPEG, which changes the numbers of pixels; allowed is PNG")
        if image.mode not in modes:
            raise BadMap(FaultKind.MAP_FILE, otherwise.format(image.mode))
        turned = guarded(lambda: upright(image))
        problem = size_fault((turned.height, turned.width), size)
        if problem is not None:
            raise BadMap(FaultKind.MAP_SIZE, problem)
        if turned.mode == "1":  # whose pixels are 255 in NumPy
            return guarded(lambda: np.asarray(turned.convert("L"))) // 255
        return guarded(lambda: np.asarray(turned)) // _scale(data)
    except BadMap:
        raise
    except BadImage as error:
        raise BadMap(FaultKind.MAP_FILE, str(error)) from None


def _scale(data: bytes) -> int:
    """What PIL has multiplied the pixels of a PNG by: grey ones of 2 or 4 bits, so that the largest becomes 255."""
    depth, colour = (data[24], data[25]) if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 25 else (8, 0)
    return 255 // (2**depth - 1) if colour == 0 and depth in (2, 4) else 1


def size_fault(found: Size, size: Size) -> str | None:
    """How the size of a map differs from that of its image; None if it does not."""
    if found == size:
        return None
    found_text, image_text = (f"{width}x{height}" for height, width in (found, size))
    turned = ": it is transposed" if found == size[::-1] else ""
    return f"is {found_text}, and its image {image_text} (width x height){turned}"


class Table(NamedTuple):
    """What each value of a pixel means, arrays `[65536]`."""

    label: np.ndarray
    """uint8 or uint16: the class."""
    valid: np.ndarray
    """Whether it has a class."""
    known: np.ndarray
    """Whether it has a meaning at all."""


def table(meaning: Meaning) -> Table:
    """What the values mean, to be looked up."""
    found = Table(
        np.zeros(VALUES, np.uint8 if len(meaning.classes) <= 256 else np.uint16),
        np.zeros(VALUES, bool),
        np.zeros(VALUES, bool),
    )
    for value, label in meaning.labels.items():
        found.label[value], found.valid[value], found.known[value] = label or 0, label is not None, True
    return found


def classes(pixels: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The class of every pixel, uint8 or uint16, and whether it has one.

    Raises:
      BadMap: for values without a meaning.
    """
    known = table.known[pixels]
    if not known.all():
        raise BadMap(FaultKind.MAP_LABEL, _unknown(pixels, ~known, table))
    return table.label[pixels], table.valid[pixels]


def _unknown(pixels: np.ndarray, where: np.ndarray, table: Table) -> str:
    y, x = (int(each) for each in np.unravel_index(where.argmax(), where.shape))
    strange = np.unique(pixels[where]).tolist()
    named = ", ".join(map(str, strange[:SHOWN])) + (", ..." if len(strange) > SHOWN else "")
    text = f"{amount(int(where.sum()), 'pixel')} of value {named}, first at x {x}, y {y}"
    return f"has {text}; allowed are {ranges(np.flatnonzero(table.known))}"


def ranges(numbers: np.ndarray) -> str:
    """Ascending numbers in few words: `0 to 20, 255`."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts if len(part))


class Segment(NamedTuple):
    """Pixels of one object, or of one region of a class."""

    number: int
    """Value of its pixels in the map of segments."""
    label: int
    ignore: bool = False
    """Whether it is several objects that were not told apart."""


def most_frequent(labels: np.ndarray, valid: np.ndarray) -> int | None:
    """The label that most of the valid pixels have; None where none is valid."""
    counts = np.bincount(labels[valid], minlength=1)
    return int(counts.argmax()) if counts.any() else None


def extents(pixels: np.ndarray, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box `x0 y0 x1 y1` around each segment, and its number of pixels; zeros for one without."""
    boxes, areas = np.zeros((len(segments), 4)), np.zeros(len(segments))
    for place, each in enumerate(segments):
        on = pixels == each.number
        rows, columns = np.flatnonzero(on.any(1)), np.flatnonzero(on.any(0))
        if len(rows):
            boxes[place], areas[place] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), np.count_nonzero(on)
    return boxes, areas

"""Label Studio's run lengths of brushes: bits of the scheme of thi.ng/rle-pack, four equal values a pixel, row by row.

32 bits say how many values follow, 5 the bits of a value and four times 4 the bits of counts, each less 1. Then come blocks:
a bit, 1 for equal values, two that choose one of the four sizes of a count, the count less 1, and the value or the values.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from jaxvision.formats.image_file import Size

SIZES = (3, 4, 8, 16)
"""Bits of a count."""
CHANNELS = 4
WORD = 8
"""Bits of a value."""


def encode(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """The bytes of a mask: values of 255 where it is on, else 0."""
    flat = np.asarray(mask, bool).reshape(-1)
    borders = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    bits = [f"{CHANNELS * len(flat):032b}", f"{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for start, end in pairwise(borders):
        bits += _blocks(CHANNELS * (end - start), 255 if flat[start] else 0)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8))


def _blocks(count: int, value: int) -> list[str]:
    found = []
    while count > 0:
        here = min(count, 1 << SIZES[-1])
        choice = next(place for place, size in enumerate(SIZES) if here <= 1 << size)
        found.append(f"1{choice:02b}{here - 1:0{SIZES[choice]}b}{value:0{WORD}b}")
        count -= here
    return found


def decode(data: list[int], size: Size) -> Bool[np.ndarray, "h w"]:
    """The mask of an image of this size: where the last of the four values of a pixel is not 0.

    Raises:
      ValueError: for what are no such bytes, or of another size.
    """
    if not data or not all(type(each) is int and 0 <= each <= 255 for each in data):
        raise ValueError("rle is no list of bytes")
    bits, place = _Bits(bytes(data)), 0
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    if count != CHANNELS * size[0] * size[1]:
        raise ValueError(f"rle is of {count:,} values; allowed are four a pixel, {CHANNELS * size[0] * size[1]:,}")
    values = np.zeros(count, bool)
    while place < count:
        equal = bits.read(1)
        end = place + 1 + bits.read(sizes[bits.read(2)])
        if end > count:
            raise ValueError("rle has more values than it says")
        values[place:end] = bits.read(word) > 0 if equal else [bits.read(word) > 0 for _ in range(place, end)]
        place = end
    return values.reshape(*size, CHANNELS)[:, :, -1]


class _Bits:
    """Bits of bytes, read in their order."""

    def __init__(self, data: bytes):
        self.text = f"{int.from_bytes(data):0{8 * len(data)}b}"
        self.place = 0

    def read(self, count: int) -> int:
        """The number of the next bits. Raises ValueError where they end before."""
        found = self.text[self.place : self.place + count]
        if len(found) < count:
            raise ValueError("rle is cut off")
        self.place += count
        return int(found, 2)

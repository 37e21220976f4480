"""Protocol buffers, read from their bytes: fields, each a number and a wire type, then a number, or a length and bytes."""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


def fields(message: memoryview) -> dict[int, list]:
    """The values of each field, by its number: whole numbers, or bytes as a memoryview.

    Raises:
        IndexError, TypeError: for what is no message, or is cut off.
    """
    found: dict[int, list] = {}
    for number, value in items(message):
        found.setdefault(number, []).append(value)
    return found


def items(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field in order. Raises as `fields`."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = varint(message, at)
        elif wire in (BYTES, FIXED64, FIXED32):
            length, at = varint(message, at) if wire == BYTES else ({FIXED64: 8, FIXED32: 4}[wire], at)
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise IndexError("a field ends behind the file")
        else:
            raise TypeError(f"wire type {wire}")
        yield number, value


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, lowest first; and where it ends. Raises as `fields`."""
    value = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise TypeError("a number of more than ten bytes")

"""Coordinates in decimals: what a file says stays so in another, `473.07 + 38.65 = 511.72`, whatever binary makes of it.

Sums are exact; only the result is rounded, to the nearest float64.
"""

import decimal
import math
from decimal import Decimal
from typing import NamedTuple

EXACT = decimal.Context(prec=60, rounding=decimal.ROUND_HALF_EVEN)
PLACES = 15
"""Decimals of a fraction of a side: a coordinate comes back to less than a tenth of `PIXEL`."""
PIXEL = Decimal("1e-9")
"""Steps of pixels to which coordinates are rounded that were stored as fractions of a side."""
STEPS = 2
"""Neighbouring floats of an extent that are tried."""


class Span(NamedTuple):
    """Where something begins along a side, and how far it reaches."""

    start: float
    extent: float


def exact(value: float) -> Decimal:
    """The decimal that a number is written as."""
    return Decimal(repr(float(value)))


def plus(a: float, b: float) -> float:
    """The sum, as decimals: 0.1 + 0.2 = 0.3."""
    return float(EXACT.add(exact(a), exact(b)))


def shifted(text: str, by: int) -> float:
    """The number that a text spells, and a whole one: `1.1` and -1 are 0.1."""
    return float(EXACT.add(Decimal(text.strip()), by))


def span(start: float, end: float) -> Span:
    """The span of which `plus(*span)` is the end.

    Exactly so of decimals of 15 digits together. Of all 17 digits of a float64, too, but where the start is negative and far
    from 0, and so the end is known less well than it was: to the last digit of the extent.
    """
    extent = float(EXACT.subtract(exact(end), exact(start)))
    low = high = extent
    for _ in range(STEPS):
        for each in (low, high):
            if each >= 0 and plus(start, each) == end:
                return Span(start, each)
        low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    return Span(start, extent)


def text(value: float) -> str:
    """The number as text, without an exponent, and without decimals where it is whole."""
    return trimmed(exact(value))


def trimmed(value: Decimal) -> str:
    """The number as text, without an exponent and without zeros at its end."""
    plain = f"{value:f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


def fraction(value: Decimal | float, side: int, scale: int = 1) -> Decimal:
    """A coordinate as a part of a side, times `scale`, to `PLACES` decimals of the part."""
    value = value if isinstance(value, Decimal) else exact(value)
    return EXACT.quantize(EXACT.divide(EXACT.multiply(value, scale), side), Decimal(scale).scaleb(-PLACES))


def pixels(part: Decimal | float, side: int, scale: int = 1) -> float:
    """The coordinate in pixels of which `fraction` gave the part, to `PIXEL`."""
    part = part if isinstance(part, Decimal) else exact(part)
    return float(EXACT.quantize(EXACT.divide(EXACT.multiply(part, side), scale), PIXEL)) + 0.0


def half(value: Decimal) -> Decimal:
    """Half of it."""
    return EXACT.divide(value, 2)


def brief(value: float) -> float | int:
    """The number, as int where it is whole: as people write it in JSON."""
    return int(value) if value == int(value) else value

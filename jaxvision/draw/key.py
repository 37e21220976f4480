"""Keys of pictures: what their colours stand for, in lines below the title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxvision.draw.style import INK, MUTED, shorten, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE, LINE, SWATCH = 8.5, 0.19, 0.11
"""Points of the text; inches from one line to the next, and of a side of a patch of colour."""
NAMED = 30
"""Most classes that a key names."""

Entry = tuple[str, str]
"""A text and its colour; none: a text alone."""
Line = list[tuple[float, str, str]]
"""Entries of one line: how far right in inches, text, colour."""


def named(classes: Sequence[Entry]) -> list[Entry]:
    """The first 30 classes with their colours, and how many more there are."""
    return [*classes[:NAMED], *([(f"{len(classes) - NAMED} more", "")] if len(classes) > NAMED else [])]


def lines(entries: Sequence[Entry], wide: float) -> list[Line]:
    """The entries in as many lines as it takes, each of up to this many inches."""
    found: list[Line] = [[]]
    x = 0.0
    for text, colour in entries:
        text = shorten(text, 2.4, SIZE)
        length = 1.12 * text_width(text, SIZE) + 0.15 + bool(colour) * 1.5 * SWATCH
        if found[-1] and x + length > wide:
            found.append([])
            x = 0.0
        found[-1].append((x, text, colour))
        x += length
    return [line for line in found if line]


def draw(figure: Figure, key: Sequence[Line], left: float, top: float) -> None:
    """Writes the lines, the baseline of the first one this far from the upper left corner of the page, in inches."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for number, line in enumerate(key):
        y = top + LINE * number
        for x, text, colour in line:
            if colour:
                corner = ((left + x) / width, 1 - (y + 0.015) / height)
                style = {"facecolor": colour, "edgecolor": MUTED, "linewidth": 0.5, "transform": figure.transFigure}
                figure.add_artist(Rectangle(corner, SWATCH / width, SWATCH / height, **style))
            place = (left + x + bool(colour) * 1.5 * SWATCH) / width, 1 - y / height
            figure.text(*place, text, fontsize=SIZE, color=INK if colour else MUTED, parse_math=False)

"""Sheets of examples, each as several pictures side by side: ground truth, prediction, errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from jaxvision.draw.boxes import Label, draw_label
from jaxvision.draw.detection import CAPTION, GAP, HEAD, MARGIN, image_axes
from jaxvision.draw.style import INK, MUTED, shorten, text_width

CELL = 2.2
"""Width and height of the field of a panel, in inches."""
BETWEEN, LINE = 0.3, 0.19
"""Inches between two examples in a row, and from one line of the key to the next."""
PIXELS = 400
"""Pixels of the longer side of a panel, from where on it is not enlarged, so that contours are thin lines."""
KEY_SIZE = 8.5


class Panel(NamedTuple):
    """One picture of an example."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: Sequence[tuple[Float[np.ndarray, "4"], str, str]] = ()
    """Box, text and colour of each label, the first first to have room."""


class Shown(NamedTuple):
    """One example: panels of one size, its name, and what is to say of it."""

    panels: Sequence[Panel]
    name: str
    note: str


def side_by_side(
    examples: Sequence[Shown], title: str, subtitle: str, key: Sequence[Sequence[tuple[str, str]]], *, columns: int = 2
) -> Figure:
    """A page of examples, one or more.

    Args:
      examples: each with as many panels.
      title: stands above.
      subtitle: below the title.
      key: lines below the subtitle, each of texts and their colours (none: of no colour), and broken where it is too long.
      columns: examples in a row.
    """
    panels = len(examples[0].panels)
    shapes = [example.panels[0].image.shape[:2] for example in examples]
    widths = [CELL * width / max(height, width) for height, width in shapes]
    field = panels * max(widths) + (panels - 1) * GAP
    tall = CELL * max(height / max(height, width) for height, width in shapes)
    columns = min(columns, len(examples))
    wide = max(columns * (field + BETWEEN) - BETWEEN, 4.2)
    lines = [line for entries in key if entries for line in _lines(entries, wide)]
    head = HEAD - LINE + LINE * len(lines)
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(wide + 2 * MARGIN, head + rows * (tall + CAPTION) + 2 * MARGIN), facecolor="white")
    _write_head(figure, title, subtitle, lines, wide)
    for place, (example, width) in enumerate(zip(examples, widths, strict=True)):
        left = MARGIN + place % columns * (field + BETWEEN)
        top = MARGIN + head + place // columns * (tall + CAPTION)
        _draw_example(figure, example, left, top, width)
    return figure


def _draw_example(figure: Figure, example: Shown, left: float, top: float, width: float) -> None:
    """The panels of an example from this place on, in inches from the upper left corner of the page."""
    page = figure.get_size_inches()
    shape = example.panels[0].image.shape
    height = width * shape[0] / shape[1]
    for number, panel in enumerate(example.panels):
        axes = image_axes(figure, panel.image, left + number * (width + GAP), top, width, height)
        taken: list[Label] = []
        for box, text, colour in panel.labels:
            draw_label(axes, box, text, colour, size=6, taken=taken)
    room = len(example.panels) * (width + GAP) - GAP
    for line, (text, colour) in enumerate(((example.name, INK), (example.note, MUTED))):
        y = 1 - (top + height + 0.16 + 0.14 * line) / page[1]
        figure.text(left / page[0], y, shorten(text, room, 8), fontsize=8, color=colour, parse_math=False)


def enlargement(shape: tuple[int, ...]) -> int:
    """How many times a small image is enlarged before contours are drawn on it."""
    return max(1, PIXELS // max(shape[:2]))


def enlarged(pixels: np.ndarray, times: int) -> np.ndarray:
    """An image or a map, each pixel this many times along both sides."""
    return pixels.repeat(times, 0).repeat(times, 1)


def _lines(key: Sequence[tuple[str, str]], wide: float) -> list[list[tuple[float, str, str]]]:
    """The entries of one line of the key in as many as it takes: how far right in inches, text, colour."""
    lines: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for text, colour in key:
        text = f"■ {shorten(text, 2.4, KEY_SIZE)}" if colour else text
        length = 1.12 * text_width(text, KEY_SIZE) + 0.15
        if lines[-1] and x + length > wide:
            lines.append([])
            x = 0.0
        lines[-1].append((x, text, colour))
        x += length
    return lines


def _write_head(
    figure: Figure, title: str, subtitle: str, lines: Sequence[Sequence[tuple[float, str, str]]], wide: float
) -> None:
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"x": MARGIN / width, "parse_math": False}
    title, subtitle = shorten(title, wide, 12 * 1.1), shorten(subtitle, wide, KEY_SIZE)
    figure.text(y=1 - (MARGIN + 0.12) / height, s=title, fontsize=12, weight="bold", color=INK, **style)
    figure.text(y=1 - (MARGIN + 0.32) / height, s=subtitle, fontsize=KEY_SIZE, color=MUTED, **style)
    for number, line in enumerate(lines):
        y = 1 - (MARGIN + 0.5 + LINE * number) / height
        for x, text, colour in line:
            style = {"fontsize": KEY_SIZE, "color": colour or MUTED, "parse_math": False}
            style |= {"weight": "bold"} if colour else {}
            figure.text((MARGIN + x) / width, y, text, **style)

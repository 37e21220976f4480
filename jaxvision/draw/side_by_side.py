"""Sheets of examples, each as several pictures side by side: ground truth, prediction, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxvision.draw import key as legend
from jaxvision.draw.boxes import Label, draw_label
from jaxvision.draw.detection import CAPTION, GAP, HEAD, MARGIN, image_axes
from jaxvision.draw.style import INK, MUTED, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 2.2
"""Width and height of the field of a panel, in inches."""
BETWEEN = 0.3
"""Inches between two examples in a row."""
PIXELS = 400
"""Pixels of the longer side of a panel, from where on it is not enlarged, so that contours are thin lines."""


class Panel(NamedTuple):
    """One picture of an example."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: Sequence[tuple[Float[np.ndarray, " 4"], str, str]] = ()
    """Box, text and colour of each label, the first first to have room."""


class Shown(NamedTuple):
    """One example: panels of one size, its name, and what is to say of it."""

    panels: Sequence[Panel]
    name: str
    note: str


def side_by_side(
    examples: Sequence[Shown], title: str, subtitle: str, key: Sequence[Sequence[legend.Entry]], *, columns: int = 2
) -> Figure:
    """A page of examples, one or more.

    Args:
      examples: each with as many panels.
      title: stands above.
      subtitle: below the title.
      key: lines below the subtitle, each of texts and their colours (none: of no colour), and broken where it is too long.
      columns: examples in a row.
    """
    from matplotlib.figure import Figure

    panels = len(examples[0].panels)
    shapes = [example.panels[0].image.shape[:2] for example in examples]
    widths = [CELL * width / max(height, width) for height, width in shapes]
    field = panels * max(widths) + (panels - 1) * GAP
    tall = CELL * max(height / max(height, width) for height, width in shapes)
    columns = min(columns, len(examples))
    wide = max(columns * (field + BETWEEN) - BETWEEN, 4.2)
    lines = [line for entries in key if entries for line in legend.lines(entries, wide)]
    head = HEAD - legend.LINE + legend.LINE * len(lines)
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


def _write_head(figure: Figure, title: str, subtitle: str, lines: Sequence[legend.Line], wide: float) -> None:
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"x": MARGIN / width, "parse_math": False}
    title, subtitle = shorten(title, wide, 12 * 1.1), shorten(subtitle, wide, legend.SIZE)
    figure.text(y=1 - (MARGIN + 0.12) / height, s=title, fontsize=12, weight="bold", color=INK, **style)
    figure.text(y=1 - (MARGIN + 0.32) / height, s=subtitle, fontsize=legend.SIZE, color=MUTED, **style)
    legend.draw(figure, lines, MARGIN, MARGIN + 0.5)

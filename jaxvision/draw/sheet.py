"""Contact sheets: many images on one page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from jaxvision.draw import key as legend
from jaxvision.draw.fonts import drawable
from jaxvision.draw.style import GREEN, INK, MUTED, RULE, VERMILLION, shorten, text_width
from jaxvision.errors import amount

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 1.42
"""Width and height of the field of an image, inches."""
GAP, MARGIN = 0.14, 0.25
TITLE, TITLE_LINE = 12, 0.24
TALLY, TALLY_LINE = 9, 0.22
CAPTION, CAPTION_LINE = 7.5, 0.135
"""Font sizes in points, heights of a line in inches."""
MARK = 0.16
"""Width in inches that the tick or cross takes of the first line."""
NARROWEST = 4.2
LARGE = 300
"""Pixels from which an image is smoothed when it is drawn smaller; smaller ones show their pixels."""


def sheet(
    images: Sequence[UInt8[np.ndarray, "h w c"]],
    captions: Sequence[str],
    correct: Sequence[bool] | None = None,
    *,
    columns: int = 8,
    title: str = "",
    subtitle: str = "",
    key: Sequence[legend.Entry] = (),
) -> Figure:
    r"""Images with a caption below each, from left to right and down.

    Args:
      images: uint8, 1 (grey) or 3 (RGB) channels, each of a size of its own; drawn as large as fits, in their own shape.
      captions: one an image; "\n" begins a new line, lines that are too long are shortened.
      correct: frames an image green and ticks it (True), or orange-red with a cross (False). None: plain frames.
      columns: images in a row; fewer images make a narrower sheet.
      title: stands above, in bold letters.
      subtitle: stands below the title, on one line.
      key: texts and their colours, below the subtitle, in as many lines as it takes.

    Raises:
      ValueError: no image, lists of different lengths, no columns, or an image of another type or shape.
    """
    from matplotlib.figure import Figure

    _check(images, captions, correct, columns)
    columns = min(columns, len(images))
    lines = [_lines(caption, marked=correct is not None) for caption in captions]
    field = max(_size(image)[1] for image in images)
    pitch = CELL + GAP, field + GAP + 0.06 + CAPTION_LINE * max(map(len, lines))
    width = max(columns * pitch[0] - GAP, NARROWEST) + 2 * MARGIN
    heading = textwrap.wrap(drawable(title), int((width - 2 * MARGIN) / 0.11))
    head = len(heading) * TITLE_LINE + bool(subtitle) * TALLY_LINE + (correct is not None) * TALLY_LINE
    entries = legend.lines(key, width - 2 * MARGIN)
    below = MARGIN + head + legend.LINE - 0.08
    head += legend.LINE * len(entries)
    head += 0.15 if head else 0
    height = math.ceil(len(images) / columns) * pitch[1] - GAP + head + 2 * MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    _write_head(figure, heading, shorten(subtitle, width - 2 * MARGIN, TALLY), correct)
    legend.draw(figure, entries, MARGIN, below)
    for number, image in enumerate(images):
        left = MARGIN + number % columns * pitch[0]
        bottom = height - MARGIN - head - number // columns * pitch[1] - field
        verdict = None if correct is None else bool(correct[number])
        _draw_image(figure, image, left, bottom, verdict)
        _write_caption(figure, lines[number], left, bottom, verdict)
    return figure


def _lines(caption: str, *, marked: bool) -> list[str]:
    """The lines of a caption, each as long as fits; the first one leaves room for the mark."""
    lines = caption.split("\n")
    return [shorten(line, CELL - (MARK if marked and not i else 0), CAPTION) for i, line in enumerate(lines)]


def _size(image: UInt8[np.ndarray, "h w c"]) -> tuple[float, float]:
    """Width and height of the picture of an image, inches."""
    h, w = image.shape[:2]
    return CELL * w / max(h, w), CELL * h / max(h, w)


def _check(images: Sequence[np.ndarray], captions: Sequence[str], correct: Sequence[bool] | None, columns: int) -> None:
    if not len(images) or columns < 1:
        raise ValueError(
            f"a sheet needs an image and a column, got {amount(len(images), 'image')} and columns={columns}"
        )
    judged = len(images) if correct is None else len(correct)
    if not len(images) == len(captions) == judged:
        raise ValueError(
            f"{amount(len(images), 'image')}: as many captions and verdicts are needed, got {len(captions)} and {judged}"
        )
    for number, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
            allowed = "uint8 [h w 1] and [h w 3]"
            raise ValueError(f"image {number} is {image.dtype} {list(image.shape)}; a sheet draws {allowed}")


def _draw_image(
    figure: Figure, image: UInt8[np.ndarray, "h w c"], left: float, bottom: float, verdict: bool | None
) -> None:
    """The image, its lower left corner at this place (inches); the frame hugs it."""
    page = figure.get_size_inches()
    width, height = _size(image)
    axes = figure.add_axes((left / page[0], bottom / page[1], width / page[0], height / page[1]))
    pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    axes.imshow(pixels, aspect="auto", interpolation="nearest" if max(image.shape[:2]) < LARGE else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=_colour(verdict), linewidth=1 if verdict is None else 2.5)


def _colour(verdict: bool | None) -> str:
    return RULE if verdict is None else GREEN if verdict else VERMILLION


def _mark(verdict: bool) -> str:
    return "✓" if verdict else "✗"


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text with its baseline at y, in inches from the lower left corner of the page."""
    page = figure.get_size_inches()
    figure.text(x / page[0], y / page[1], text, va="baseline", parse_math=False, **style)


def _write_caption(figure: Figure, lines: Sequence[str], left: float, bottom: float, verdict: bool | None) -> None:
    for number, line in enumerate(lines):
        y = bottom - 0.06 - (number + 0.85) * CAPTION_LINE
        _write(figure, left, y, line, fontsize=CAPTION, color=MUTED if number else INK)
    if verdict is not None:
        y = bottom - 0.06 - 0.85 * CAPTION_LINE
        _write(figure, left + CELL, y, _mark(verdict), fontsize=9, color=_colour(verdict), weight="bold", ha="right")


def _write_head(figure: Figure, heading: Sequence[str], subtitle: str, correct: Sequence[bool] | None) -> None:
    """The title, and below it the subtitle and how many are correct and wrong, in the colours of the frames."""
    y = figure.get_figheight() - MARGIN
    for line in heading:
        y -= TITLE_LINE
        _write(figure, MARGIN, y + 0.08, line, fontsize=TITLE, weight="bold", color=INK)
    if subtitle:
        y -= TALLY_LINE
        _write(figure, MARGIN, y + 0.08, subtitle, fontsize=TALLY, color=MUTED)
    x = MARGIN
    for verdict in (True, False) if correct is not None else ():
        count = sum(bool(value) is verdict for value in correct or ())
        text = f"{_mark(verdict)} {count:,} {'correct' if verdict else 'wrong'}"
        _write(figure, x, y - TALLY_LINE + 0.08, text, fontsize=TALLY, color=_colour(verdict), weight="bold")
        x += 1.15 * text_width(text, TALLY) + 0.15

"""Confusion matrices, from two classes to thousands."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxvision.draw.fonts import drawable
from jaxvision.draw.style import BLUE, INK, MUTED, NOTHING, shorten, text_width
from jaxvision.errors import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

logger = logging.getLogger(__name__)
MOST_CELLS_WRITTEN = 20
"""Most classes for which every cell says its numbers."""
MOST_CLASSES = 4_000
"""Most classes of a report's matrix, which then takes 128 MB, and its picture some times as much."""
MOST_LABELS = 40
MOST_PAIRS = 20
MOST_DOTS = 250
"""Most dots along a side: from twice as many classes on, a dot stands for several of them."""
NAME_WIDTH, NAME_SIZE, SUMMARY_SIZE = 1.4, 9, 8.5
"""Width of names in inches; font sizes of names and summary in points."""


def drawn_of(name: str, classes: Sequence[str]) -> bool:
    """Whether the report of an evaluation has a confusion matrix; says so where there are too many classes for one."""
    if len(classes) <= MOST_CLASSES:
        return True
    logger.warning("%s: no confusion matrix of %d classes; it is drawn up to %d", name, len(classes), MOST_CLASSES)
    return False


def confusion(
    matrix: Num[np.ndarray, "k k"], classes: Sequence[str], *, summary: str = "", name: str = "", of: str = ""
) -> Figure:
    """Confusion matrix: how the examples of each true class (row) were predicted (columns), as fractions of the row.

    Args:
      matrix: counts of examples, the true class along the first axis.
      classes: k names.
      summary: stands above; the accuracy and the number of examples unless given.
      name: the evaluation's, for the title.
      of: what the predictions are by, such as "step 64, averaged weights"; stands behind the summary.

    Up to 20 classes, each cell says its fraction and count; beyond, names are thinned out, small fractions are lifted by a
    square-root colour scale, and the most confused pairs are listed beside the matrix. From 500 classes on, a dot shows
    the largest fraction of a square of cells, so that none gets lost. A class without examples is grey.

    Raises:
      ValueError: a matrix that is not square, holds no counts or no examples, or whose size is not that of `classes`.
    """
    counts = _checked(np.asarray(matrix), classes)
    fractions = _fractions(counts)
    names = [shorten(name, NAME_WIDTH, NAME_SIZE) for name in classes]
    summary = "  ·  ".join(filter(None, (summary or _summary(counts), of)))
    if len(names) <= MOST_CELLS_WRITTEN:
        figure, axes = _small(names, text_width(summary, SUMMARY_SIZE))
        _draw_matrix(axes, fractions, names, gamma=1.0)
        _draw_cells(axes, fractions, counts)
    else:
        figure, axes, scale, aside = _large(names)
        _draw_scale(figure, scale, _draw_matrix(axes, fractions, names, gamma=0.5))
        _draw_pairs(aside, counts, names)
    _draw_title(axes, f"{name}: confusion matrix" if name else "Confusion matrix", summary)
    return figure


def _checked(matrix: np.ndarray, classes: Sequence[str]) -> Int[np.ndarray, "k k"]:
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(
            f"{amount(len(classes), 'class')}: the shape of the matrix must be {(len(classes),) * 2}, it is {matrix.shape}"
        )
    if not np.all(np.isfinite(matrix)) or np.any(matrix < 0) or np.any(matrix != np.floor(matrix)):
        raise ValueError("a confusion matrix holds counts: whole numbers, 0 or more; was it normalised already?")
    if not np.any(matrix):
        raise ValueError("a confusion matrix without a single example: every count is 0")
    return matrix.astype(np.int64)


def _fractions(counts: Int[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Each row divided by its sum; NaN where a class has no examples."""
    examples = counts.sum(axis=1, keepdims=True)
    return np.where(examples > 0, counts / np.maximum(examples, 1), np.nan)


def _small(names: Sequence[str], head: float) -> tuple[Figure, Axes]:
    """Cells of a fixed size, with as much room around them as the names and the line above need."""
    from matplotlib.figure import Figure

    side = max(2.4, len(names) * (0.62 if len(names) <= 10 else 0.52))
    room = _room(names, NAME_SIZE)
    left, bottom, top = 0.5 + room, 0.55 + (0.75 * room if _slanted(names) else 0.1), 0.75
    width, height = left + max(side, head) + 0.3, bottom + side + top
    figure = Figure(figsize=(width, height), facecolor="white")
    return figure, figure.add_axes((left / width, bottom / height, side / width, side / height))


def _large(names: Sequence[str]) -> tuple[Figure, Axes, Axes, Axes]:
    """A square for the matrix, a bar for its colours, a column for the list."""
    from matplotlib.figure import Figure

    side, room = 7.0, _room(names, 7)
    left, bottom, top = 0.55 + room, 0.55 + room, 0.75
    width, height = left + side + 5.0, bottom + side + top
    figure = Figure(figsize=(width, height), facecolor="white")
    fields = (
        (left, bottom, side, side),
        (left + side + 0.15, bottom, 0.14, side),
        (left + side + 1.2, bottom, 3.5, side),
    )
    matrix, scale, aside = (figure.add_axes((x / width, y / height, w / width, h / height)) for x, y, w, h in fields)
    return figure, matrix, scale, aside


def _room(names: Sequence[str], size: float) -> float:
    return max(text_width(name, size) for name in names) + 0.08


def _slanted(names: Sequence[str]) -> bool:
    """Whether the names are too long to stand side by side."""
    return _room(names, NAME_SIZE) > (1.2 if len(names) == 2 else 0.5)


def _colours() -> Colormap:
    from matplotlib import colormaps

    return colormaps["Blues"].with_extremes(bad=NOTHING)


def _draw_matrix(axes: Axes, fractions: Float[np.ndarray, "k k"], names: Sequence[str], *, gamma: float) -> AxesImage:
    from matplotlib.colors import PowerNorm

    k = len(names)
    block = max(1, k // MOST_DOTS)
    norm, extent = (
        PowerNorm(gamma, vmin=0, vmax=1),
        (-0.5, block * -(-k // block) - 0.5, block * -(-k // block) - 0.5, -0.5),
    )
    dots = np.ma.masked_invalid(_largest(fractions, block))
    image = axes.imshow(dots, cmap=_colours(), norm=norm, interpolation="nearest", extent=extent)
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    _name_axes(axes, names, f", a dot is the largest of {block} x {block} cells" if block > 1 else "")
    axes.spines[:].set_color(MUTED)
    return image


def _largest(fractions: Float[np.ndarray, "k k"], block: int) -> Float[np.ndarray, "m m"]:
    """The largest fraction in each square of `block` x `block` cells; NaN where there is none."""
    short = -len(fractions) % block
    padded = np.pad(fractions, (0, short), constant_values=np.nan)
    squares = padded.reshape(len(padded) // block, block, len(padded) // block, block)
    return np.fmax.reduce(squares, axis=(1, 3))


def _name_axes(axes: Axes, names: Sequence[str], note: str) -> None:
    every = -(-len(names) // MOST_LABELS)
    ticks = range(0, len(names), every)
    labels = [names[i] for i in ticks]
    size = NAME_SIZE if len(names) <= MOST_CELLS_WRITTEN else 7
    axes.set_xticks(ticks, labels, fontsize=size, parse_math=False, **_turn(names))
    axes.set_yticks(ticks, labels, fontsize=size, parse_math=False)
    axes.tick_params(length=0 if every == 1 else 2, colors=MUTED, labelcolor=INK)
    thinned = f" (1 in {every} named{note})" if every > 1 else ""
    axes.set_xlabel(f"predicted class{thinned}", fontsize=10, color=INK)
    axes.set_ylabel("true class", fontsize=10, color=INK)


def _turn(names: Sequence[str]) -> dict[str, Any]:
    if len(names) > MOST_CELLS_WRITTEN:
        return {"rotation": 90}
    return {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _slanted(names) else {}


def _draw_cells(axes: Axes, fractions: Float[np.ndarray, "k k"], counts: Int[np.ndarray, "k k"]) -> None:
    """Writes fraction and count into each cell that has any."""
    size = 9 if len(counts) <= 10 else 7.5
    for i, j in np.argwhere(counts > 0):
        colour = "white" if fractions[i, j] > 0.55 else INK
        place = {"ha": "center", "color": colour, "parse_math": False}
        axes.text(
            j,
            i,
            _percent(float(fractions[i, j])),
            va="bottom",
            fontsize=size,
            weight="bold" if i == j else "normal",
            **place,
        )
        axes.text(j, i + 0.06, f"{counts[i, j]:,}", va="top", fontsize=size - 2, **place)
    edges = np.arange(len(counts) - 1) + 0.5
    axes.hlines(edges, -0.5, len(counts) - 0.5, color="white", linewidth=1)
    axes.vlines(edges, -0.5, len(counts) - 0.5, color="white", linewidth=1)


def _percent(fraction: float) -> str:
    """A fraction in tenths of a percent, so that a row adds up; none but 0 reads as 0 %, and none below 1 as 100 %."""
    if fraction == 1:
        return "100%"
    if fraction < 0.0005:
        return "<0.1%"
    return ">99.9%" if fraction > 0.9995 else f"{100 * fraction:.1f}%"


def _draw_scale(figure: Figure, axes: Axes, image: AxesImage) -> None:
    from matplotlib.ticker import FuncFormatter

    bar = figure.colorbar(image, cax=axes, ticks=[0, 0.01, 0.05, 0.1, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:g}%"))
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.set_label("fraction of the true class", fontsize=9, color=INK)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _draw_pairs(axes: Axes, counts: Int[np.ndarray, "k k"], names: Sequence[str]) -> None:
    pairs = _most_confused(counts)
    values = [int(counts[i, j]) for i, j in pairs]
    axes.barh(range(len(pairs)), values, color=BLUE, height=0.32, align="edge")
    axes.set_ylim(max(len(pairs), 5) - 0.3, -0.7)
    axes.set_xlim(0, max(values, default=1) * 1.3)
    axes.axis("off")
    for place, (i, j) in enumerate(pairs):
        fraction = _percent(float(counts[i, j] / counts[i].sum()))
        axes.text(0, place - 0.08, f"{names[i]} → {names[j]}", fontsize=8.5, color=INK, va="bottom", parse_math=False)
        axes.text(
            values[place] + 0.02 * max(values), place + 0.16, f"{values[place]:,} ({fraction})", fontsize=7.5, color=MUTED,
            va="center", parse_math=False,
        )  # fmt: skip
    title = "Most confused: true → predicted" if pairs else "No confusions"
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=INK)


def _most_confused(counts: Int[np.ndarray, "k k"]) -> list[tuple[int, int]]:
    """The pairs (true, predicted) with the most examples; of equals, those with the larger fraction of the true class."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    true, predicted = np.nonzero(wrong)
    order = np.lexsort((counts[true].sum(axis=1), -wrong[true, predicted]))[:MOST_PAIRS]
    return [(int(true[i]), int(predicted[i])) for i in order]


def _draw_title(axes: Axes, title: str, summary: str) -> None:
    style: dict[str, Any] = {"fontsize": 12, "weight": "bold", "color": INK, "parse_math": False}
    axes.set_title(drawable(title), loc="left", pad=20, **style)
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    axes.annotate(summary, (0, 1), (0, 5), fontsize=SUMMARY_SIZE, color=MUTED, **place)


def _summary(counts: Int[np.ndarray, "k k"]) -> str:
    notes = [f"accuracy {_precise(float(np.trace(counts) / counts.sum()))}", amount(int(counts.sum()), "example")]
    notes += [amount(len(counts), "class")] if len(counts) > MOST_CELLS_WRITTEN else []
    notes += [] if np.all(counts.sum(axis=1)) else ["grey: no examples"]
    return "  ·  ".join(notes)


def percent(correct: Bool[np.ndarray, " n"]) -> str:
    """Which part is true, in percent; 100 % only where all are."""
    return _precise(float(np.mean(correct)))


def _precise(fraction: float) -> str:
    return ">99.99%" if 0.99994 < fraction < 1 else f"{fraction:.2%}"

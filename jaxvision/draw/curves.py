"""Training curves: the metrics of a run against the step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxvision.draw.fonts import drawable
from jaxvision.draw.panels import TRAINING, Curve, Page, Panel, better, is_constant, page
from jaxvision.draw.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, RULE, SKY, VERMILLION, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 3.5
"""Inches that the text above a panel may take."""
FEW_POINTS = 40
"""Most points of a curve for which each is marked."""

SPELLING = {"ap": "AP", "ar": "AR", "map": "mAP", "iou": "IoU", "miou": "mIoU", "pq": "PQ", "f": "F", "auc": "AUC"}


def curves(rows: Sequence[Mapping[str, Any]], by: str | None = None) -> Figure:
    """One panel a quantity, from rows such as {"step": 100, "loss": 0.5} and {"step": 500, "test/accuracy": 0.9}.

    Names without a slash are of training, `<evaluation>/<quantity>` of an evaluation; both share the panel of the
    quantity, and the log loss of an evaluation that of the loss. Metrics of single classes (two slashes) get none, but
    for the one by which the best checkpoint is chosen. Up to 12 panels are drawn (`draw.panels.page`); a line below names the
    quantities that are left out: those whose curves equal others, those without a finite value, and what has no room. None
    and NaN leave a gap in their curve and are counted above it. The best point of each curve of an evaluation (or of
    training, where nothing else has the quantity) is marked, where the name of the quantity tells whether more is better and
    not all values are the same.

    Args:
      rows: of the log of a run.
      by: name of the metric by which the best checkpoint is chosen.

    Raises:
      ValueError: no rows, a row without a step, or rows without a single metric.
    """
    found = page(rows, by)
    colours = _colours([curve.part for panel in found.panels for curve in panel])
    steps = [step for panel in found.panels for curve in panel for step in curve.steps]
    lines = max(len(_judged(panel)) for panel in found.panels)
    columns = _columns(len(found.panels))
    figure, fields = _page(len(found.panels), columns, lines)
    for place, (axes, panel) in enumerate(zip(fields, found.panels, strict=True)):
        _draw_panel(axes, panel, colours)
        _write_above(axes, panel[0].quantity, _notes(panel), lines)
        _dress(axes, is_lowest=place + columns >= len(fields))
        _scale_steps(axes, steps)
        _scale_values(axes, panel)
    _draw_legend(figure, colours)
    if text := _below(found):
        figure.supxlabel(text, fontsize=8, color=MUTED, wrap=True, parse_math=False)
    return figure


def _below(found: Page) -> str:
    """What the line below says of the quantities that have no panel."""
    texts = [f"equal to {_title(first)}: {_titles(names)}" for first, names in found.equal.items()]
    texts += [f"no finite value: {_titles(found.empty)}"] if found.empty else []
    texts += [f"not drawn: {_titles(found.others)}"] if found.others else []
    return "  ·  ".join(texts)


def _titles(quantities: Sequence[str]) -> str:
    return ", ".join(map(_title, quantities))


def _colours(parts: Iterable[str]) -> dict[str, str]:
    """One colour for training, others for the evaluations in the order in which they come."""
    others = [part for part in dict.fromkeys(parts) if part != TRAINING]
    palette = [VERMILLION, GREEN, PURPLE, SKY, ORANGE]
    return {TRAINING: BLUE} | {part: palette[i % len(palette)] for i, part in enumerate(others)}


def _columns(panels: int) -> int:
    """How many panels stand side by side: three, or four where that leaves fewer gaps."""
    return min(panels, min((3, 4), key=lambda columns: -panels % columns))


def _page(panels: int, columns: int, lines: int) -> tuple[Figure, list[Axes]]:
    """A page of panels, with room for `lines` lines above each."""
    from matplotlib.figure import Figure

    rows = math.ceil(panels / columns)
    size = 4.2 * max(columns, 1.2), (2.6 + 0.15 * lines) * rows + 0.45
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]


def _judged(panel: Panel) -> list[Curve]:
    """The curves whose best point counts: of evaluations, or of training alone."""
    return [curve for curve in panel if curve.part != TRAINING] or list(panel)


def _draw_panel(axes: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    for curve in panel:
        _draw_curve(axes, curve, colours[curve.part])
    for curve in _judged(panel):
        best = _best(curve)
        if best and better(curve.quantity) and not is_constant(curve):
            _draw_star(axes, best, colours[curve.part])


def _draw_star(axes: Axes, point: tuple[float, float], colour: str) -> None:
    star: dict[str, Any] = {"marker": "*", "markersize": 12, "markeredgecolor": "white", "markeredgewidth": 0.8}
    axes.plot([point[0]], [point[1]], color=colour, linestyle="none", label="_best", zorder=5, **star)


def _notes(panel: Panel) -> list[str]:
    """Notes on the judged curves, a line each."""
    judged = _judged(panel)
    notes = [_note(curve) for curve in judged]
    if len(judged) > 1 or judged[0].quantity != panel[0].quantity:
        names = [_name_beside(curve, panel[0].quantity) for curve in judged]
        notes = [f"{shorten(name, PANEL / 2, 8)}: {note}" for name, note in zip(names, notes, strict=True)]
    lost = sum(not math.isfinite(value) for curve in panel for value in curve.values)
    return notes[:-1] + [notes[-1] + (f" · {lost} not finite" if lost else "")]


def _name_beside(curve: Curve, quantity: str) -> str:
    """The name of a curve in the panel of a quantity: its part of the data, and what it is of where that is another."""
    return curve.part if curve.quantity == quantity else f"{curve.part} {_title(curve.quantity).lower()}"


def _note(curve: Curve) -> str:
    best = _best(curve)
    if best is None:
        return "no finite value"
    if is_constant(curve):
        return f"{best[1]:.4g} at every step"
    return f"best {best[1]:.4g} at step {best[0]:,}" if better(curve.quantity) else f"last {best[1]:.4g}"


def _best(curve: Curve) -> tuple[float, float] | None:
    """Step and value of the best point; of the last one, where no value is better than another."""
    points = [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)]
    direction = better(curve.quantity)
    if not points or direction is None:
        return points[-1] if points else None
    return (min if direction == "lower" else max)(points, key=lambda point: point[1])


def _write_above(axes: Axes, quantity: str, notes: Sequence[str], lines: int) -> None:
    """The title and, below it, the notes, in a space of `lines` lines: the titles of a row stand at one height."""
    text = "\n".join([shorten(note, PANEL, 8) for note in notes] + [""] * (lines - len(notes)))
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    axes.annotate(text, (0, 1), (0, 4), fontsize=8, color=MUTED, parse_math=False, in_layout=False, **place)
    title = shorten(_title(quantity), PANEL / 1.12, 11)
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=INK, pad=7 + 11.5 * lines, parse_math=False)


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    finite = sum(math.isfinite(value) for value in curve.values)
    marker = "o" if finite == 1 or (curve.part != TRAINING and finite <= FEW_POINTS) else "none"
    width = 1.1 if curve.part == TRAINING else 1.8
    axes.plot(
        curve.steps,
        curve.values,
        color=colour,
        linewidth=width,
        marker=marker,
        markersize=3.5,
        label=drawable(curve.part),
    )


def _title(quantity: str) -> str:
    quantity, _, of_class = quantity.partition("/")
    title = _title_of(quantity)
    return f"{title}: {drawable(of_class)}" if of_class else title


def _title_of(quantity: str) -> str:
    words = re.sub(r"\btop(\d+)", r"top-\1", drawable(quantity).replace("_", " ")).split()
    spelled = [re.sub(r"^([a-z]+)", lambda match: SPELLING.get(match[0], match[0]), word) for word in words]
    title = re.sub(r" (macro|micro)$", r" (\1)", " ".join(spelled))
    is_name = bool(spelled) and (spelled[0] != words[0] or any(map(str.isupper, words[0][1:])))
    return title if is_name else title[:1].upper() + title[1:]


def _dress(axes: Axes, *, is_lowest: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    axes.margins(y=0.1)
    if is_lowest:
        axes.set_xlabel("step", fontsize=9, color=INK)


def _scale_steps(axes: Axes, steps: Sequence[float]) -> None:
    """Makes the steps of every panel the same."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    first, last = min(steps), max(steps)
    margin = 0.03 * (last - first) or 1
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if first == last:
        axes.set_xticks([first])


def _scale_values(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if _wants_logarithm(panel):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, min_n_ticks=4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _wants_logarithm(panel: Panel) -> bool:
    """Whether a panel is logarithmic: losses and norms over more than two powers of ten are; a learning rate is linear."""
    quantity = panel[0].quantity
    values = [value for curve in panel for value in curve.values if math.isfinite(value)]
    may = better(quantity) == "lower" or "norm" in quantity
    return may and bool(values) and min(values) > 0 and max(values) > 100 * min(values)


def _draw_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    drawn = {line.get_color() for axes in figure.axes for line in axes.lines}
    used = [(part, colour) for part, colour in colours.items() if colour in drawn]
    handles = [Line2D([], [], color=colour, linewidth=2.2, label=shorten(part, 2, 9)) for part, colour in used]
    star = Line2D(
        [], [], color=MUTED, marker="*", markersize=11, linestyle="none", markeredgecolor="white", label="best"
    )
    legend = figure.legend(
        handles=[*handles, star], loc="outside upper right", ncols=len(handles) + 1, frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_parse_math(False)

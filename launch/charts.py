"""Charts of a report, as SVG that a page holds itself: intervals of differences, curves with bands, parallel coordinates."""

import io
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.comparison import Compared
from launch.plan import Deciding
from launch.results import Result, by_variant, changed_fields

COLOURS = colormaps["tab10"].colors  # pyright: ignore[reportAttributeAccessIssue]
VERDICT_COLOURS = {"better": "#1a7f37", "worse": "#b42318", "undecided": "#57606a"}
WIDTH = 8.0


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element; names of its parts begin with `name`, so that a page can hold several."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), io.StringIO() as text:
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        whole = text.getvalue()
    element = whole[whole.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.S)
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", element)


def forest(compared: Sequence[Compared], deciding: Deciding) -> Figure | None:
    """The difference of each variant to the baseline with its intervals; None where there is no difference."""
    rows = [each for each in compared if each.difference is not None]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 1.2 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="0.6", linewidth=1)
    for place, each in enumerate(rows):
        colour = VERDICT_COLOURS[each.verdict or "undecided"]
        for shift, of, style in ((0.0, each.difference, "-"), (0.22, each.test_set, ":"), (-0.22, each.both, "--")):
            if of is not None and math.isfinite(of.low):
                axes.plot([of.low, of.high], [place + shift] * 2, style, color=colour, linewidth=2)
        if each.difference is not None:
            axes.plot(each.difference.mean, place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [each.variant for each in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {deciding.figure} to the baseline ({deciding.better} is better)")
    for style, label in (("-", "other seeds"), (":", "other test images"), ("--", "both")):
        axes.plot([], [], style, color="0.3", label=label)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.35 / len(rows) + 0.12), ncols=3, frameon=False, fontsize=9
    )
    _plain(axes)
    return figure


def curves(results: Sequence[Result], deciding: Deciding) -> Figure | None:
    """The deciding figure over the steps: mean of the seeds, and a band of one standard deviation."""
    groups = {name: _curve(group, deciding.figure) for name, group in by_variant(results).items()}
    groups = {name: curve for name, curve in groups.items() if len(curve)}
    if not groups:
        return None
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        steps, mean, deviation = curve.T
        axes.plot(steps, mean, "o-" if number < len(COLOURS) else "s--", markersize=3, color=colour, label=name)
        axes.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("step")
    axes.set_ylabel(deciding.figure)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _plain(axes)
    return figure


def _curve(group: Sequence[Result], figure: str) -> np.ndarray:
    """Step, mean and standard deviation at each step that every seed was evaluated at."""
    tables = [{step: figures[figure] for step, figures in result.curve if figure in figures} for result in group]
    tables = [table for table in tables if table]
    steps = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    if not steps:
        return np.empty((0, 3))
    values = np.array([[table[step] for table in tables] for step in steps])
    deviation = values.std(1, ddof=1) if len(tables) > 1 else np.zeros(len(steps))
    return np.stack([steps, values.mean(1), deviation], 1)


def parallel(results: Sequence[Result], deciding: Deciding) -> Figure | None:
    """The fields that differ and the deciding figure, an axis each, a line a run; None for fewer than two fields."""
    done = [result for result in results if result.figure(deciding.figure) is not None]
    columns: Mapping[str, list] = changed_fields(done)
    if len(columns) < 2 or len(done) < 2:
        return None
    figures = np.array([result.figure(deciding.figure) for result in done], float)
    places = {name: _places(values) for name, values in columns.items()} | {deciding.figure: _places(list(figures))}
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.add_subplot()
    good = _places(list(figures))[0]
    shade = colormaps["viridis"]
    heights = np.stack([place for place, _ in places.values()])
    for run in np.argsort(good if deciding.better == "higher" else -good):
        axes.plot(range(len(places)), heights[:, run], color=shade(good[run]), alpha=0.8)
    for at, (_, ticks) in enumerate(places.values()):
        axes.axvline(at, color="0.6", linewidth=0.8)
        for height, text in ticks:
            axes.annotate(text, (at, height), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_xticks(range(len(places)), list(places))
    axes.set_xlim(-0.1, len(places) - 0.6)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def _places(values: list) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Heights from 0 to 1 on an axis, and its ticks: by the number (its logarithm over two decades), else by the order."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, float)
        log = numbers.min() > 0 and numbers.max() / numbers.min() >= 100
        scaled = np.log(numbers) if log else numbers
        low, span = scaled.min(), np.ptp(scaled) or 1.0
        shown = sorted(set(values)) if len(set(values)) <= 6 else [min(values), max(values)]
        heights = (scaled - low) / span
        ticks = [(float(heights[values.index(value)]), f"{value:.4g}") for value in shown]
        return heights, ticks
    texts = [str(value) for value in values]
    names = sorted(set(texts))
    step = 1 / max(len(names) - 1, 1)
    return np.array([names.index(text) * step for text in texts]), [(i * step, name) for i, name in enumerate(names)]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)

"""Reliability: how often guesses of each probability are right, before and after calibration, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvision.draw.style import BLUE, GREEN, INK, MUTED, NOTHING, ORANGE, RULE, shorten
from jaxvision.errors import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 14
"""Most groups of classes that have a bar."""
COLOURS = (ORANGE, BLUE)


class Reliability(NamedTuple):
    """Bins of probabilities that one curve is drawn through."""

    name: str
    count: Float[np.ndarray, " b"]
    """Guesses in each bin."""
    probability: Float[np.ndarray, " b"]
    right: Float[np.ndarray, " b"]
    """Fraction of them that is right."""
    error: float
    """Expected calibration error."""


class Bar(NamedTuple):
    """Guesses of a group of classes, by where they go."""

    name: str
    accepted: int
    reviewed: int
    dropped: int
    note: str = ""
    """What stands below the name."""


def reliability(curves: Sequence[Reliability], bars: Sequence[Bar], *, summary: str = "") -> Figure:
    """Reliability diagram of two curves, the number of guesses below it, and beside it a bar of the zones of each group.

    Without a group there is nothing beside it.

    Args:
      curves: scores as they are, then calibrated.
      bars: up to 14 are drawn, those with most guesses; a line says how many are left out.
      summary: stands above.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if bars else 4.6, 4.9), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(wspace=0.06)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    grid = figure.add_gridspec(2, 2 if bars else 1, height_ratios=(4, 1), width_ratios=(1, 1.25) if bars else None)
    upper = figure.add_subplot(grid[0, 0])
    _draw_curves(upper, curves)
    _draw_counts(figure.add_subplot(grid[1, 0], sharex=upper), curves)
    upper.tick_params(labelbottom=False)
    if bars:
        _draw_bars(figure.add_subplot(grid[:, 1]), bars)
    if summary:
        figure.suptitle(shorten(summary, 9.5, 9), x=0.01, ha="left", fontsize=9, color=MUTED, parse_math=False)
    return figure


def _draw_curves(axes: Axes, curves: Sequence[Reliability]) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for curve, colour in zip(curves, COLOURS, strict=False):
        most = max(curve.count.max(initial=0), 1)
        label = f"{curve.name}: error {curve.error:.3f}"
        axes.plot(curve.probability, curve.right, color=colour, linewidth=1.6, label=label)
        sizes = 8 + 60 * curve.count / most
        axes.scatter(curve.probability, curve.right, s=sizes, color=colour, edgecolor="white", linewidth=0.6, zorder=3)
    _dress(axes)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title("Reliability", loc="left", fontsize=11, weight="bold", color=INK)
    axes.set_ylabel("right", fontsize=9, color=INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_counts(axes: Axes, curves: Sequence[Reliability]) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

    for curve, colour in zip(curves, COLOURS, strict=False):
        axes.vlines(curve.probability, 0, curve.count, color=colour, linewidth=3, alpha=0.75)
    _dress(axes)
    if any(curve.count.max(initial=0) > 1 for curve in curves):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0.8)
    axes.set_ylabel("guesses (log scale)" if axes.get_yscale() == "log" else "guesses", fontsize=9, color=INK)
    axes.set_xlabel("probability", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    ranked = sorted(bars, key=lambda bar: -sum(bar[1:4]))
    shown = ranked[:MOST_BARS]
    for place, bar in enumerate(shown):
        total, left = max(sum(bar[1:4]), 1), 0.0
        for count, colour in zip(bar[1:4], (GREEN, NOTHING, MUTED), strict=True):
            axes.barh(place, count / total, left=left, color=colour, height=0.42, edgecolor="white", linewidth=0.8)
            if count / total > 0.09:
                ink = INK if colour == NOTHING else "white"
                axes.text(
                    left + count / total / 2, place, f"{count:,}", ha="center", va="center", fontsize=8, color=ink
                )
            left += count / total
        name = shorten(bar.name, 2.4, 9)
        axes.text(0, place - 0.27, name, fontsize=9, color=INK, va="bottom", weight="bold", parse_math=False)
        note: dict[str, Any] = {"fontsize": 8, "color": MUTED, "va": "bottom", "ha": "right", "parse_math": False}
        axes.text(1, place - 0.27, shorten(bar.note, 2.6, 8), **note)
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(shown), 3) - 0.4, -0.75)
    axes.set_title("Where the guesses go", loc="left", fontsize=11, weight="bold", color=INK)
    axes.set_axis_off()
    for place, (text, colour) in enumerate((("accepted", GREEN), ("to review", NOTHING), ("dropped", MUTED))):
        axes.scatter([], [], marker="s", s=60, color=colour, label=text, zorder=place)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, -0.04), handletextpad=0.2)
    if len(ranked) > len(shown):
        rest = amount(len(ranked) - len(shown), "further group")
        axes.text(1, max(len(shown), 3) - 0.45, f"not drawn: {rest}", fontsize=8, color=MUTED, ha="right", va="bottom")


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)

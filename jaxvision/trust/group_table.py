"""Tables of figures by group: for a terminal, as CSV, as JSON data."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from jaxvision.errors import amount
from jaxvision.trust.by_group import ByGroup
from jaxvision.trust.intervals import Estimate
from jaxvision.trust.parity import parity

GROUPS_A_BLOCK = 5
COLUMNS = ("figure", "group", "n", "value", "low", "high", "ranked")


def text(found: ByGroup) -> str:
    """The figures of each group with their intervals, then the gaps, parity of decisions, and what is not ranked."""
    blocks = [f"by {found.attribute}"]
    figures = [name for name in found.figures if "/" not in name]
    for first in range(0, len(found.names), GROUPS_A_BLOCK):
        numbers = range(first, min(first + GROUPS_A_BLOCK, len(found.names)))
        head = ["", *(f"{found.names[number]} ({found.n[number]:,})" for number in numbers)]
        blocks.append(grid([head, *([name, *(cell(found.figures[name][i]) for i in numbers)] for name in figures)]))
    gaps = [(name, gap) for name in figures if (gap := found.gap(name)) is not None]
    lines = [
        [name, gap.worst, gap.best, f"{gap.gap:.4g} [{gap.low:.3g}, {gap.high:.3g}]", number(gap.ratio), gap.verdict]
        for name, gap in gaps
    ]
    if lines:
        blocks.append(grid([["", "worst", "best", "gap [95 %]", "ratio", "verdict"], *lines]))
    if lines and (told := _parity_lines(found)):
        blocks.append(grid([["difference of", "demographic parity", "equal opportunity", "equalised odds"], *told]))
    return "\n\n".join([*blocks, *filter(None, ["\n".join(remarks(found))])])


def _parity_lines(found: ByGroup) -> list[list[str]]:
    return [
        [
            name,
            *(
                f"{number(value)} {verdict}"
                for value, verdict in zip(
                    (each.demographic_parity, each.equal_opportunity, each.equalised_odds), each.verdicts, strict=True
                )
            ),
        ]
        for name, each in parity(found).items()
    ]


def remarks(found: ByGroup) -> list[str]:
    """What a person should know of the groups, a line each."""
    what = "object" if found.objects else "example"
    empty = [name for name, n in zip(found.names, found.n, strict=True) if not n]
    few = [f"{name} ({n})" for name, n in zip(found.names, found.n, strict=True) if 0 < n < found.least]
    lines = []
    if few:
        lines.append(f"fewer than {amount(found.least, what)}, not ranked: {', '.join(few)}")
    if empty:
        lines.append(f"no {what}: {', '.join(empty)}")
    if found.without:
        lines.append(f"in no group: {amount(found.without, what)}")
    return lines


def cell(of: Estimate) -> str:
    """A figure and its interval; a dash where there is none."""
    if math.isnan(of.value):
        return "-"
    bounds = of.interval()
    return f"{of.value:.4g}" + ("" if math.isnan(bounds.low) else f" [{bounds.low:.3g}, {bounds.high:.3g}]")


def number(value: float) -> str:
    """A number, or a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def grid(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = []
    for first, *rest in lines:
        cells = (f"{each:>{width}}" for each, width in zip(rest, widths[1:], strict=True))
        told.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return "\n".join(told)


def csv_text(found: ByGroup) -> str:
    """Every figure of every group, a line each; empty where there is no number."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    ranked = set(found.ranked())
    for figure, estimates in found.figures.items():
        for place, (name, each) in enumerate(zip(found.names, estimates, strict=True)):
            cells = ("" if math.isnan(x) else repr(float(x)) for x in (each.value, *each.interval()))
            writer.writerow([figure, name, found.n[place], *cells, int(place in ranked)])
    return file.getvalue()


def plain(found: ByGroup) -> dict[str, Any]:
    """The figures as JSON data; what is not finite is None."""
    gaps = {name: gap for name in found.figures if (gap := found.gap(name)) is not None}
    return {
        "groups": dict(zip(found.names, found.n, strict=True)),
        "in_no_group": found.without,
        "ranked": [found.names[place] for place in found.ranked()],
        "figures": {
            name: {
                group: [_finite(x) for x in (each.value, *each.interval())]
                for group, each in zip(found.names, estimates, strict=True)
            }
            for name, estimates in found.figures.items()
        },
        "gaps": {name: {**_plain(gap._asdict()), "verdict": gap.verdict} for name, gap in gaps.items()},
        "parity": {name: _plain(each._asdict()) for name, each in parity(found).items()},
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _finite(value) if isinstance(value, float) else value for name, value in values.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

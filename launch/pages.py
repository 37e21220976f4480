"""A comparison as Markdown, LaTeX, CSV, JSON, and one HTML page that asks no other host for anything."""

import csv
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from launch.comparison import Compared
from launch.plan import Deciding
from launch.statistics import LEVEL, Difference

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d0d7de; text-align: right; }
th:first-child, td:first-child, td:last-child, th:last-child { text-align: left; }
th { border-bottom: 2px solid #57606a; }
.better { color: #1a7f37; font-weight: 600; } .worse { color: #b42318; font-weight: 600; } .undecided { color: #57606a; }
.note { color: #57606a; font-size: 13px; } svg { max-width: 100%; height: auto; }
@media (max-width: 40rem) { table { display: block; overflow-x: auto; } }
"""


class Report(NamedTuple):
    """All that a page says."""

    title: str
    deciding: Deciding
    compared: Sequence[Compared]
    notes: Sequence[str]
    """Sentences below the table."""
    charts: Sequence[tuple[str, str]] = ()
    """Caption and SVG."""
    fields: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """Values of the fields in which variants differ, by variant; none where they are changes of a baseline."""


class Table(NamedTuple):
    """A table as text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table(report: Report) -> Table:
    """A row a variant: its figure, the difference to the baseline with interval, the verdict, the cost."""
    several = any(each.test_set is not None for each in report.compared)
    baseline = any(each.verdict is not None for each in report.compared)
    header = ["variant", report.deciding.figure, "n"]
    if baseline:
        header += ["difference", "interval, other seeds"]
        header += ["interval, other images", "interval, both"] if several else []
        header += ["p (Holm)", "verdict"]
    rows = []
    for each in report.compared:
        row = [each.variant, spread(each.mean, each.deviation), str(len(each.values))]
        if baseline:
            row += [
                number(None if each.difference is None else each.difference.mean, sign=True),
                interval(each.difference),
            ]
            row += [interval(each.test_set), interval(each.both)] if several else []
            row += [number(each.adjusted), each.verdict or "baseline"]
        rows.append((*row, duration(each.seconds)))
    return Table((*header, "time"), tuple(rows))


def spread(mean: float, deviation: float) -> str:
    """A mean and its standard deviation; nothing where there is none."""
    if math.isnan(mean):
        return ""
    return number(mean) if math.isnan(deviation) else f"{number(mean)} ± {deviation:.2g}"


def number(value: float | None, sign: bool = False) -> str:
    """A number to four digits; nothing for none."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:+.4g}" if sign else f"{value:.4g}"


def interval(of: Difference | None) -> str:
    """`low to high`; nothing where there is none."""
    return "" if of is None or not math.isfinite(of.low) else f"{of.low:+.3g} to {of.high:+.3g}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def rules(report: Report) -> list[str]:
    """What the columns mean, as sentences."""
    count = sum(each.verdict is not None for each in report.compared)
    if not count:
        return []
    level = 1 - LEVEL / count
    return [
        f"{report.deciding.figure} decides ({report.deciding.better} is better); it was chosen before the first run. Other "
        "figures have no verdict.",
        f"Differences are paired by seed. {count} comparisons: intervals are Student's at {level:.1%} each (Bonferroni), "
        f"so that all of them hold with {1 - LEVEL:.0%}; p is Holm's; a verdict needs p ≤ {LEVEL}.",
    ]


def markdown(report: Report) -> str:
    """The report as Markdown."""
    found = table(report)
    lines = [f"# {report.title}", "", _row(found.header), _row(["---"] * len(found.header)), *map(_row, found.rows), ""]
    lines += [f"- {note}" for note in [*rules(report), *report.notes, *remarks(report)]]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def remarks(report: Report) -> list[str]:
    """What is to be said of each variant."""
    return [f"{each.variant}: {remark}" for each in report.compared for remark in each.remarks]


def latex(report: Report) -> str:
    """The table for a paper, with booktabs."""
    found = table(report)
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(found.header) - 1)}}}", "\\toprule"]
    lines += [" & ".join(map(_escaped, found.header)) + " \\\\", "\\midrule"]
    lines += [" & ".join(map(_escaped, row)) + " \\\\" for row in found.rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "±": "$\\pm$",
        "≤": "$\\le$",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
    }
    special |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
    return "".join(special.get(letter, letter) for letter in text)


def as_csv(report: Report) -> str:
    """A row a run: variant, seed, figure, and fields where variants are values of fields; numbers in full.

    A variant without a figure has a row without one.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(dict.fromkeys(name for fields in report.fields.values() for name in fields))
    writer.writerow(["variant", "seed", report.deciding.figure, *names])
    for each in report.compared:
        values = [report.fields.get(each.variant, {}).get(name) for name in names]
        for seed, value in (each.values or {None: None}).items():
            writer.writerow([each.variant, seed, "" if value is None else repr(value), *values])
    return text.getvalue()


def as_json(report: Report) -> str:
    """All of it as data; numbers that are not finite are null."""
    variants = [
        {
            "variant": each.variant,
            "values": {str(seed): value for seed, value in each.values.items()},
            "mean": each.mean,
            "deviation": each.deviation,
            "difference": _fields(each.difference),
            "test_set": _fields(each.test_set),
            "both": _fields(each.both),
            "p_holm": each.adjusted,
            "verdict": each.verdict,
            "seconds": each.seconds,
            "others": {name: {"mean": m, "deviation": d, "n": n} for name, (m, d, n) in each.others.items()},
            "remarks": list(each.remarks),
        }
        for each in report.compared
    ]
    data = {
        "title": report.title,
        "deciding": report.deciding._asdict(),
        "variants": variants,
        "notes": list(report.notes),
    }
    return json.dumps(_finite(data), indent=1, ensure_ascii=False) + "\n"


def _fields(of: Difference | None) -> dict | None:
    return None if of is None else of._asdict()


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def page(report: Report) -> str:
    """One HTML page with its style and charts inside."""
    found = table(report)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in found.header)
    body = "".join(
        "<tr>" + "".join(f"<td{_class(cell)}>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in found.rows
    )
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in [*rules(report), *report.notes, *remarks(report)])
    charts = "".join(f"<h2>{html.escape(caption)}</h2>\n{element}\n" for caption, element in report.charts)
    title = html.escape(report.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<table><thead><tr>{head}</tr></thead>\n"
        f'<tbody>{body}</tbody></table>\n<ul class="note">{notes}</ul>\n{charts}{_others(report)}</body></html>\n'
    )


def _class(cell: str) -> str:
    return f' class="{cell}"' if cell in ("better", "worse", "undecided") else ""


def _others(report: Report) -> str:
    """The figures that don't decide, as a table to unfold."""
    names = list(dict.fromkeys(name for each in report.compared for name in each.others))
    if not names:
        return ""
    head = "".join(f"<th>{html.escape(each.variant)}</th>" for each in report.compared)
    rows = []
    for name in names:
        cells = [each.others.get(name, (float("nan"), float("nan"), 0)) for each in report.compared]
        values = "".join(f"<td>{spread(mean, deviation)}</td>" for mean, deviation, _ in cells)
        rows.append(f"<tr><td>{html.escape(name)}</td>{values}</tr>\n")
    table = f"<table><thead><tr><th>figure</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<details><summary>Other figures, without verdict</summary>\n{table}</details>\n"

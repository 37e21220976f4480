"""Robustness as files: tables for programs and people, curves, and a sheet of what was shown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvision.draw.figure import save
from jaxvision.draw.sheet import sheet
from jaxvision.draw.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, RULE, VERMILLION
from jaxvision.errors import write_atomically
from jaxvision.trust.corrupted import corrupted, example
from jaxvision.trust.corruptions import COMMON, DEFORMATIONS, HELD_OUT, OCCLUSIONS
from jaxvision.trust.robustness import Robustness, Settings, summary, table
from jaxvision.types import Stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS: Mapping[str, Sequence[str]] = {
    "Noise": COMMON[:3],
    "Blur": COMMON[3:7],
    "Weather": COMMON[7:11],
    "Digital": COMMON[11:],
    "Held out": HELD_OUT,
    "Occlusion": OCCLUSIONS,
    "Deformation": DEFORMATIONS,
}
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)


def write(
    folder: Path, found: Robustness, metric: str, stream: Stream, settings: Settings, title: str, notes: Sequence[str]
) -> list[Path]:
    """Writes `robustness.json`, `.csv` and `.md`, `curves.png` and `sheet.png` into the folder; returns their paths.

    Args:
      folder: made if there is none.
      found: the measurements.
      metric: to judge by.
      stream: of the evaluation, whose first example is on the sheet.
      settings: that it was measured with.
      title: of tables and pictures.
      notes: lines below the table, on what was left out, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "robustness.json": as_json(found, metric, settings, notes),
        "robustness.csv": as_csv(found),
        "robustness.md": as_markdown(found, metric, title, notes),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    save(curves(found, metric, title), folder / "curves.png")
    save(contact_sheet(stream, settings, found, metric, title), folder / "sheet.png")
    return [folder / name for name in (*texts, "curves.png", "sheet.png")]


def as_json(found: Robustness, metric: str, settings: Settings, notes: Sequence[str]) -> str:
    """The summary and all metrics, JSON; what is not finite is null."""
    all_of = {
        name: {str(severity): _finite(found.corrupted[name, severity].metrics) for severity in found.severities}
        for name in found.names
    }
    data = {
        "metric": metric,
        "seed": settings.seed,
        "constants": settings.family,
        "summary": _finite(summary(found, metric)),
        "notes": list(notes),
        "clean": _finite(found.clean.metrics),
        "corrupted": all_of,
    }
    return json.dumps(data, indent=1) + "\n"


def _finite(metrics: Mapping[str, float]) -> dict[str, Any]:
    return {key: value if math.isfinite(value) else None for key, value in metrics.items()}


def as_csv(found: Robustness) -> str:
    """A line a measurement, a column a metric that is not of a single class; clean images have severity 0."""
    columns = [key for key in found.clean.metrics if "/" not in key]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["corruption", "severity", *columns])
    writer.writerow(["clean", 0, *(found.clean.metrics[key] for key in columns)])
    for (name, severity), each in found.corrupted.items():
        writer.writerow([name, severity, *(each.metrics[key] for key in columns)])
    return text.getvalue()


def as_markdown(found: Robustness, metric: str, title: str, notes: Sequence[str]) -> str:
    """The table of a metric and the summary, for a person."""
    head, *lines = table(found, metric)
    rows = [head, ("---", *["---:"] * (len(head) - 1)), *lines]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    told = "\n".join(f"- {key}: {value:.4f}" for key, value in summary(found, metric).items())
    below = "".join(f"\n{line}\n" for line in notes)
    return f"# {title}\n\n{metric} by severity.\n\n{text}\n\n{told}\n{below}"


def curves(found: Robustness, metric: str, title: str) -> Figure:
    """A panel a group of corruptions: the metric against the severity, clean images at 0."""
    from matplotlib.figure import Figure

    groups = {group: [n for n in names if n in found.names] for group, names in GROUPS.items()}
    groups = {group: names for group, names in groups.items() if names}
    columns = min(len(groups), 4)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(max(3.1 * columns, 5.2), 3.5 * rows + 0.4), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, weight="bold", color=INK, parse_math=False)
    fields = [figure.add_subplot(rows, columns, place + 1) for place in range(len(groups))]
    scores = found.scores(metric)
    for axes, (group, names) in zip(fields, groups.items(), strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            values = [found.clean.metrics[metric], *scores[name]]
            axes.plot(
                [0, *found.severities], values, "o-", color=colour, linewidth=1.6, markersize=3.5, label=_words(name)
            )
        _dress(axes, group, found.severities)
        axes.set_ylabel(metric if axes in fields[::columns] else "", fontsize=9, color=INK)
    low, high = zip(*(axes.get_ylim() for axes in fields), strict=True)
    for axes in fields:
        axes.set_ylim(min(low), max(high))
    return figure


def _words(name: str) -> str:
    return name.replace("_", " ").replace("jpeg", "JPEG")


def _dress(axes: Axes, title: str, severities: Sequence[int]) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    axes.set_xticks([0, *severities])
    axes.set_xlabel("severity", fontsize=9, color=INK)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, frameon=False)


def contact_sheet(stream: Stream, settings: Settings, found: Robustness, metric: str, title: str) -> Figure:
    """The first example as each corruption shows it, a line a corruption, a column a severity, with the metric below."""
    one = example(stream)
    alone = stream._replace(batches=lambda step, shard=None: iter([one]))
    images, captions = [], []
    for name in found.names:
        for severity in found.severities:
            shown = corrupted(
                alone,
                name,
                severity,
                settings.seed,
                family=settings.family,
                photographs=settings.photographs,
                donors=stream,
            )
            (batch,) = shown.batches(0)
            height, width = np.asarray(batch.size)[0]
            images.append(np.asarray(batch.image)[0, :height, :width])
            captions.append(
                f"{_words(name)} {severity}\n{metric} {found.corrupted[name, severity].metrics[metric]:.3f}"
            )
    clean = found.clean.metrics[metric]
    subtitle = f"{stream.about().name(int(one.index[0]))}; {metric} of all clean images {clean:.3f}"
    return sheet(images, captions, columns=len(found.severities), title=title, subtitle=subtitle)

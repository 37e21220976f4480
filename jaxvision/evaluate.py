"""Evaluation: every example exactly once, its row kept.

python -m jaxvision.evaluate --workdir=runs/quickstart [--checkpoint=best] [--eval=NAME] [--config.FIELD=VALUE ...]
python -m jaxvision.evaluate --workdir=runs/quickstart --by=ATTRIBUTE[,ATTRIBUTE] [--groups=FILE.csv]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from jaxvision import commands
from jaxvision.errors import write_atomically
from jaxvision.machine.output import result

if TYPE_CHECKING:
    from jaxvision.run.checkpoint import Which
    from jaxvision.run.evaluation import Results
    from jaxvision.train import Weights
    from jaxvision.trust.by_group import ByGroup


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    checkpoint: Which | None
    weights: Weights | None
    names: tuple[str, ...]
    output: Path | None
    report: Path | None
    fsdp: int
    traceback: bool
    by: tuple[tuple[str, ...], ...]
    groups: Path | None


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "evaluate",
        description="Evaluate a checkpoint of a run. The last line of the output is one JSON object.",
        epilog="--config.FIELD=VALUE sets a field of the run's config: other data to evaluate on, say.",
    )
    commands.add_run_flags(parser)
    parser.add_argument(
        "--eval", action="append", default=[], metavar="NAME", help="one evaluation, of all; may be repeated"
    )
    parser.add_argument(
        "--output",
        type=commands.output,
        metavar="FILE.json",
        help="write the JSON object there, too, with the metrics of each group of --by",
    )
    parser.add_argument(
        "--report",
        type=commands.output_folder,
        metavar="FOLDER",
        help="write the pictures of the evaluations into this folder",
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        type=commands.names,
        metavar="ATTRIBUTE",
        help="the metrics of each group by this attribute, or by several crossed, with commas between; may be repeated: "
        "class, brightness, size (of objects), one that the experiment names, or a column of --groups",
    )
    parser.add_argument(
        "--groups",
        type=commands.expanded,
        metavar="FILE.csv",
        help="groups of the images: the first column has their names, every other one is an attribute",
    )
    known, overrides = commands.parsed(parser, argv)
    if known.groups is not None and not known.by:
        parser.error("--groups needs --by=ATTRIBUTE, one of its columns")
    names = tuple(known.eval)
    return Flags(
        known.workdir,
        overrides,
        known.checkpoint,
        known.weights,
        names,
        known.output,
        known.report,
        known.fsdp,
        known.traceback,
        tuple(known.by),
        known.groups,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: report(flags), flags.traceback)


def report(flags: Flags) -> int:
    """Evaluates a checkpoint as the command line asks; returns the exit status."""
    from jaxvision import run
    from jaxvision.run import devices
    from jaxvision.trust import grouped

    devices.keep_compilations()
    commands.under_way(f"loading {flags.workdir}, then compiling: seconds to minutes")
    before = _pictures(flags.report)
    grouping = grouped.Grouping(flags.by, flags.groups)
    results = run.evaluate(
        flags.workdir,
        flags.checkpoint,
        weights=flags.weights,
        names=flags.names,
        overrides=flags.overrides,
        fsdp=flags.fsdp,
        report=flags.report,
        change=grouping.observing,
    )
    assert results.step is not None
    metrics = {name: each.metrics for name, each in results.evaluations.items()}
    path = flags.workdir / "checkpoints" / str(results.step)
    by_group = grouping.figures(results.evaluations)
    drawn = [file.name for file, written in _pictures(flags.report).items() if before.get(file) != written]
    pictures = f"\npictures in {flags.report}: {', '.join(drawn)}\n" if drawn else ""
    told = "".join(f"\n{each}\n" for each in grouped.texts(by_group))
    head = f"step {results.step:,} ({path}), {results.weights} weights"
    result(f"{head}\n{table(metrics)}\n{told}{pictures}{as_json(results, path)}")
    if flags.output is not None:
        write_atomically(flags.output, as_json(results, path, by_group) + "\n")
    if flags.report is not None:
        grouped.write(by_group, flags.report)
    return 0


def _pictures(folder: Path | None) -> dict[Path, int]:
    """When each picture in the folder was written."""
    return {} if folder is None else {file: file.stat().st_mtime_ns for file in sorted(folder.glob("*.png"))}


def as_json(
    results: Results, checkpoint: Path, by_group: Mapping[str, Sequence[ByGroup]] = MappingProxyType({})
) -> str:
    """The metrics of each evaluation, and those of groups, as one line of JSON; those that are not finite are null."""
    from jaxvision.trust import group_table

    finite = {
        name: {key: value if math.isfinite(value) else None for key, value in each.metrics.items()}
        for name, each in results.evaluations.items()
    }
    found = {"step": results.step, "checkpoint": str(checkpoint), "weights": results.weights, "evaluations": finite}
    if any(by_group.values()):
        found["by"] = {
            name: {each.attribute: group_table.plain(each) for each in all} for name, all in by_group.items()
        }
    return json.dumps(found)


def table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """A line a metric, a column an evaluation; below, for each evaluation, a line a class, a column a metric of classes.

    Lines without a value, NaN in each column, are left out; what AP lacks for each reason comes last.
    """
    whole = {name: {key: value for key, value in each.items() if "/" not in key} for name, each in metrics.items()}
    blocks = [_grid("", whole)]
    for name, each in metrics.items():
        classes: dict[str, dict[str, float]] = {}
        for key, value in each.items():
            metric, slash, of_class = key.partition("/")
            if slash:
                classes.setdefault(metric, {})[of_class] = value
        if classes:
            blocks.append(_grid(f"{name}, by class", classes))
    return "\n\n".join(blocks)


def _is_potential(metric: str) -> bool:
    return metric.startswith("dAP_")


def _grid(corner: str, columns: Mapping[str, Mapping[str, float]]) -> str:
    """Columns side by side, a line a key that has a value; empty where a column does not have it."""
    found = dict.fromkeys(key for column in columns.values() for key, value in column.items() if not math.isnan(value))
    keys = sorted(found, key=_is_potential)
    wide = max(map(len, [corner, *keys]))
    widths = {name: max(len(name), 10) for name in columns}
    lines = ["  ".join([f"{corner:<{wide}}", *(f"{name:>{width}}" for name, width in widths.items())])]
    for key in keys:
        cells = (f"{column[key]:.5g}" if key in column else "" for column in columns.values())
        cells = (f"{cell:>{width}}" for cell, width in zip(cells, widths.values(), strict=True))
        lines.append("  ".join([f"{key:<{wide}}", *cells]))
    return "\n".join(lines)


if __name__ == "__main__":
    commands.enter(main)

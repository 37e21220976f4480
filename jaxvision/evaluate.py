"""Evaluation: every example exactly once, its row kept.

python -m jaxvision.evaluate --workdir=runs/quickstart [--checkpoint=best] [--eval=NAME] [--config.FIELD=VALUE ...]
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands, errors
from jaxvision.errors import ConfigError, DataError, raised_as, write_atomically
from jaxvision.run import devices, restore
from jaxvision.run.checkpoint import Which
from jaxvision.run.devices import task_on
from jaxvision.run.evaluation import Evaluator
from jaxvision.types import Batch, Stream


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    checkpoint: Which | None
    names: tuple[str, ...]
    output: Path | None
    fsdp: int
    traceback: bool


def parse(argv: list[str]) -> Flags:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.evaluate",
        description="Evaluate a checkpoint of a run. The last line of the output is one JSON object.",
        epilog="--config.FIELD=VALUE sets a field of the run's config: other data to evaluate on, say.",
        allow_abbrev=False,
    )
    commands.add_run_flags(parser)
    parser.add_argument(
        "--eval", action="append", default=[], metavar="NAME", help="one evaluation, of all; may be repeated"
    )
    parser.add_argument("--output", type=commands.output, metavar="FILE.json", help="write the JSON object there, too")
    fields, rest = commands.split_overrides(argv, parser.error)
    known = parser.parse_args(rest)
    names = tuple(known.eval)
    return Flags(known.workdir, fields, known.checkpoint, names, known.output, known.fsdp, known.traceback)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(list(sys.argv[1:] if argv is None else argv))
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Evaluates a checkpoint as the command line asks; returns the exit status."""
    devices.keep_compilations()
    found = restore.restore(flags.workdir, flags.overrides)
    restore.check_evaluations(found, flags.names)
    names = flags.names or tuple(found.experiment.evaluations)
    if not names:
        raise DataError(f"the experiment of {flags.workdir} has no evaluation")
    with raised_as(ConfigError):
        mesh = devices.device_mesh(flags.fsdp)
    chosen = {name: found.experiment.evaluations[name] for name in names}
    with raised_as(DataError):
        for name, each in chosen.items():
            with errors.naming(f"evaluation {name}"):
                devices.check_divisible(each.stream.spec, mesh)
    restore.warn_of_other_data(found, [f"evaluation {name}" for name in names])
    saved = restore.load_checkpoint(found, flags.checkpoint, mesh)
    evaluator = Evaluator(task_on(mesh, found.experiment), chosen, devices.replicated(mesh))

    def feed(stream: Stream) -> Iterator[Batch]:
        return devices.ahead(errors.reading(stream.batches(0)), devices.placer(mesh))

    evaluator.evaluate(saved.state.averaged, feed)
    metrics = {name: result.metrics for name, result in evaluator.newest.items()}
    path = found.workdir.checkpoints / str(saved.step)
    text = as_json(saved.step, path, metrics)
    print(f"step {saved.step:,} ({path})\n{table(metrics)}\n{text}")
    if flags.output is not None:
        write_atomically(flags.output, text + "\n")
    return 0


def as_json(step: int, checkpoint: Path, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of each evaluation as one line of JSON; those that are not finite are null."""
    finite = {
        name: {key: value if math.isfinite(value) else None for key, value in each.items()}
        for name, each in metrics.items()
    }
    return json.dumps({"step": step, "checkpoint": str(checkpoint), "evaluations": finite})


def table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """A line a figure, a column an evaluation."""
    keys = list(dict.fromkeys(key for each in metrics.values() for key in each))
    wide = max(len(key) for key in keys)
    columns = {name: max(len(name), 10) for name in metrics}
    lines = ["  ".join([" " * wide, *(f"{name:>{width}}" for name, width in columns.items())])]
    for key in keys:
        cells = (f"{metrics[name][key]:.5g}" if key in metrics[name] else "" for name in metrics)
        cells = (f"{cell:>{width}}" for cell, width in zip(cells, columns.values(), strict=True))
        lines.append("  ".join([f"{key:<{wide}}", *cells]))
    return "\n".join(lines)


if __name__ == "__main__":
    commands.tell_errors_once()
    sys.exit(main())

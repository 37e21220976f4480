"""Evaluation: every example exactly once, its row kept.

python -m jaxvision.evaluate --workdir=runs/quickstart [--checkpoint=best] [--eval=NAME] [--config.FIELD=VALUE ...]
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from jaxvision import commands, parallel, rebuilt
from jaxvision.commands import DataProblem, Which, told_as
from jaxvision.experiment import ConfigError, Evaluation, task_on
from jaxvision.types import Batch, Metric, Prediction, Stream, Task, Variables
from jaxvision.workdir import write_atomically

BATCHES_UNDER_WAY = 3


class NoExamples(DataProblem):
    """None of the examples of an evaluation could be read."""


class Evaluated(NamedTuple):
    """The figures of an evaluation and the rows that they were computed from."""

    figures: dict[str, float]
    rows: Mapping[str, np.ndarray]
    """Columns over the valid examples in the order of `index`, which is one of them."""


Observe = Callable[[Variables, Batch], Mapping[str, jax.Array]]


def make_observe(
    predict: Callable[[Variables, Batch], Prediction], metric: Metric, everywhere: Sharding | None = None
) -> Observe:
    """The jitted function from variables and a batch to the rows of its examples.

    `everywhere` is a sharding that copies an array to all devices: so every one of several processes gets all rows.
    """

    def observe(variables: Variables, batch: Batch) -> Mapping[str, jax.Array]:
        rows = metric.observe(predict(variables, batch.replace(target=None)), batch)
        return {**rows, "index": batch.index, "valid": batch.valid}

    return jax.jit(observe, out_shardings=everywhere)


def evaluate(
    observe: Observe,
    variables: Variables,
    batches: Iterable[Batch],
    compute: Callable[[Mapping[str, np.ndarray]], dict[str, float]],
) -> Evaluated:
    """The figures over all batches.

    Args:
      observe: of `make_observe`; kept by the caller, so that it compiles once.
      variables: to predict with.
      batches: the whole evaluation data, on the device.
      compute: of the metric.

    Raises:
      NoExamples: if there is no valid example.
    """
    parts = []
    for batch in batches:
        parts.append(observe(variables, batch))
        jax.block_until_ready(parts[-BATCHES_UNDER_WAY:][0])
    rows = collect(parts)
    if not len(rows["index"]):
        raise NoExamples("there is no valid example to evaluate on")
    return Evaluated({name: float(value) for name, value in compute(rows).items()}, rows)


def collect(parts: list[Mapping[str, jax.Array]]) -> dict[str, np.ndarray]:
    """The rows of all batches as one table: padding dropped, ordered by the index of the example."""
    if not parts:
        return {"index": np.zeros(0, np.int32)}
    fetched = jax.device_get(parts)
    table = {name: np.concatenate([part[name] for part in fetched]) for name in fetched[0]}
    valid = table.pop("valid")
    table = {name: column[valid] for name, column in table.items()}
    order = np.argsort(table["index"], kind="stable")
    return {name: column[order] for name, column in table.items()}


class Examiner:
    """Runs the evaluations of an experiment, each compiled once, and keeps the newest rows for the report."""

    def __init__(self, task: Task, evaluations: Mapping[str, Evaluation], everywhere: Sharding | None = None):
        self.evaluations = evaluations
        self.observers = {
            name: make_observe(task.predict, each.metric, everywhere) for name, each in evaluations.items()
        }
        self.newest: dict[str, Evaluated] = {}

    def evaluate(self, variables: Variables, feed: Callable[[Stream], Iterable[Batch]]) -> dict[str, float]:
        """The figures of all evaluations, each name led by its evaluation's: `test/accuracy`.

        Args:
          variables: to predict with.
          feed: the batches of a stream, from first to last, on the devices.
        """
        figures = {}
        for name, (stream, metric, _) in self.evaluations.items():
            try:
                self.newest[name] = evaluate(self.observers[name], variables, feed(stream), metric.compute)
            except NoExamples as error:
                raise NoExamples(f"evaluation {name!r}: {error}") from None
            figures.update({f"{name}/{key}": value for key, value in self.newest[name].figures.items()})
        return figures


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
    parallel.keep_compilations()
    found = rebuilt.rebuild(flags.workdir, flags.overrides)
    rebuilt.check_evaluations(found, flags.names)
    names = flags.names or tuple(found.experiment.evaluations)
    if not names:
        raise DataProblem(f"the experiment of {flags.workdir} has no evaluation")
    with told_as(ConfigError):
        mesh = parallel.device_mesh(flags.fsdp)
    chosen = {name: found.experiment.evaluations[name] for name in names}
    with told_as(DataProblem):
        for name, each in chosen.items():
            with commands.naming(f"evaluation {name}"):
                parallel.check_divisible(each.stream.spec, mesh)
    rebuilt.warn_of_other_data(found, [f"evaluation {name}" for name in names])
    saved = rebuilt.load_checkpoint(found, flags.checkpoint, mesh)
    examiner = Examiner(task_on(mesh, found.experiment), chosen, parallel.replicated(mesh))

    def feed(stream: Stream) -> Iterator[Batch]:
        return parallel.ahead(commands.reading(stream.batches(0)), parallel.placer(mesh))

    examiner.evaluate(saved.state.averaged, feed)
    figures = {name: result.figures for name, result in examiner.newest.items()}
    path = found.workdir.checkpoints / str(saved.step)
    text = as_json(saved.step, path, figures)
    print(f"step {saved.step:,} ({path})\n{table(figures)}\n{text}")
    if flags.output is not None:
        write_atomically(flags.output, text + "\n")
    return 0


def as_json(step: int, checkpoint: Path, figures: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of each evaluation as one line of JSON; those that are not finite are null."""
    finite = {
        name: {key: value if math.isfinite(value) else None for key, value in each.items()}
        for name, each in figures.items()
    }
    return json.dumps({"step": step, "checkpoint": str(checkpoint), "evaluations": finite})


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """A line a figure, a column an evaluation."""
    keys = list(dict.fromkeys(key for each in figures.values() for key in each))
    wide = max(len(key) for key in keys)
    columns = {name: max(len(name), 10) for name in figures}
    lines = ["  ".join([" " * wide, *(f"{name:>{width}}" for name, width in columns.items())])]
    for key in keys:
        cells = (f"{figures[name][key]:.5g}" if key in figures[name] else "" for name in figures)
        cells = (f"{cell:>{width}}" for cell, width in zip(cells, columns.values(), strict=True))
        lines.append("  ".join([f"{key:<{wide}}", *cells]))
    return "\n".join(lines)


if __name__ == "__main__":
    commands.tell_errors_once()
    sys.exit(main())

"""Trains, or resumes, one experiment.

python -m jaxvision.main --config=experiments/quickstart.py --workdir=runs/quickstart [--config.FIELD=VALUE ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxvision.checkpoint import Checkpoints
    from jaxvision.evaluate import Evaluated
    from jaxvision.experiment import Experiment
    from jaxvision.train import Figures, NonFiniteLoss, Progress, TrainState, TrainStep
    from jaxvision.types import Batch, Stream, Variables
    from jaxvision.workdir import Workdir

INTERRUPTED = 75  # EX_TEMPFAIL: run the same command again


class Flags(NamedTuple):
    """The command line."""

    config: Path
    workdir: Path
    overrides: dict[str, str]
    fork: bool
    traceback: bool
    command: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(list(sys.argv[1:] if argv is None else argv))
    logging.basicConfig(format="jaxvision: %(message)s")
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every save, and errors that it raises as well
    try:
        return run(flags)
    except KeyboardInterrupt:
        print("jaxvision: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if flags.traceback or not isinstance(error, _problems()):
            raise
        print(f"jaxvision: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def tell_errors_once() -> None:
    """Where a file of a checkpoint fails, Orbax raises the error and its threads print it too."""

    def thread(args: threading.ExceptHookArgs) -> None:
        if getattr(args.thread, "_exception", None) is None:  # else the thread keeps it for the one who waits for it
            threading.__excepthook__(args)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        if str(args.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(args)

    threading.excepthook = thread
    sys.unraisablehook = unraisable


def parse(argv: list[str]) -> Flags:
    """The flags; imports nothing heavy, so that `--help` and a typo answer at once."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.main",
        description="Train one experiment, or go on with it: the same command resumes exactly where the run stopped.",
        epilog="Any field of the experiment's config can be set: --config.FIELD=VALUE (--config.SECTION.FIELD=VALUE).",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, type=_path, metavar="FILE", help="the experiment file")
    parser.add_argument("--workdir", required=True, type=_path, metavar="DIR", help="the folder of this run")
    parser.add_argument("--fork", action="store_true", help="go on from another experiment's run in the workdir")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, not only what it is")
    fields, rest = split_overrides(argv, parser.error)
    known = parser.parse_args(rest)
    command = ["python", "-m", "jaxvision.main", *argv]
    return Flags(known.config, known.workdir, fields, known.fork, known.traceback, command)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def split_overrides(argv: list[str], error) -> tuple[dict[str, str], list[str]]:
    """Takes `--config.FIELD=VALUE` and `--config.FIELD VALUE` out of the arguments."""
    fields, rest, arguments = {}, [], iter(argv)
    for argument in arguments:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        field, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = next(arguments, None)
            if value is None:
                error(f"--config.{field} needs a value")
        fields[field] = value
    return fields, rest


def _problems() -> tuple[type[Exception], ...]:
    """The errors that are the user's to mend: told in one line."""
    from jaxvision.checkpoint import CheckpointError
    from jaxvision.evaluate import NoExamples
    from jaxvision.experiment import ConfigError
    from jaxvision.train import NonFiniteLoss
    from jaxvision.workdir import WorkdirError

    return (ConfigError, WorkdirError, CheckpointError, NonFiniteLoss, NoExamples, DataProblem, OSError)


class DataProblem(ValueError):
    """The data can't be opened or read."""


@contextmanager
def told_as(kind: type[Exception]) -> Iterator[None]:
    """Inside this block a ValueError or OSError is a problem of this kind, told without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise kind(str(error)) from error


def run(flags: Flags) -> int:
    """Trains the experiment to its end; returns the exit status. Writes nothing before all that can be checked is."""
    from jaxvision import experiment, parallel
    from jaxvision.checkpoint import Checkpoints
    from jaxvision.workdir import Workdir, WorkdirError

    parallel.keep_compilations()
    module = experiment.load(flags.config)
    config = experiment.configure(module.get_config(), flags.overrides)
    mesh = parallel.data_mesh()
    with told_as(experiment.ConfigError):
        parallel.resolve_precision(config)
        chosen = module.build(config)
    with told_as(DataProblem):
        data = open_data(chosen, mesh)
    with told_as(experiment.ConfigError):
        step, like = traced(chosen, mesh)
    workdir = Workdir(flags.workdir)
    with workdir.held():
        if workdir.newest_step() > chosen.steps:
            raise WorkdirError(
                f"the run in {workdir.path} is at step {workdir.newest_step():,}, past the {chosen.steps:,} asked for"
            )
        workdir.open(experiment.as_json(config), flags.config, data, flags.command, flags.fork)
        with Checkpoints(workdir.checkpoints, chosen.keep) as checkpoints:
            return train_and_report(chosen, workdir, checkpoints, step, like, mesh)


def open_data(chosen: Experiment, mesh: Mesh) -> dict[str, str]:
    """Opens the data of all streams; their fingerprints by the name of the stream."""
    from jaxvision import parallel

    streams = {"train": chosen.train, **{f"evaluation {n}": each.stream for n, each in chosen.evaluations.items()}}
    for stream in streams.values():
        parallel.check_divisible(stream.spec, mesh)
    return {name: stream.about().fingerprint for name, stream in streams.items()}


def traced(chosen: Experiment, mesh: Mesh) -> tuple[TrainStep, TrainState]:
    """The jitted training step, known to trace, and the shapes and shardings of the state."""
    import jax

    from jaxvision import checkpoint, experiment, parallel, train

    checkpoint.check(chosen.keep)
    train.check_intervals(chosen.every)
    if chosen.keep.by is not None and chosen.keep.by.partition("/")[0] not in chosen.evaluations:
        raise ValueError(
            f"keep.by is {chosen.keep.by!r}; the evaluations are: {', '.join(chosen.evaluations) or 'none'}"
        )
    step = jax.jit(experiment.train_step_of(chosen), donate_argnums=0)
    shapes = jax.eval_shape(lambda: experiment.first_state_of(chosen, start=False))
    step.eval_shape(shapes, chosen.train.spec)
    everywhere = parallel.replicated(mesh)
    return step, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)


def first_progress(chosen: Experiment, checkpoints: Checkpoints, like: TrainState) -> tuple[Progress, int]:
    """The run as its newest readable checkpoint has it, or before its first step, and how many rows its log had."""
    import jax

    from jaxvision import experiment, train

    saved = checkpoints.newest(like)
    if saved is not None:
        return train.Progress(saved.state, saved.notes["history"], saved.notes["interval"]), saved.notes["rows"]
    return train.Progress(jax.device_put(experiment.first_state_of(chosen), like.step.sharding)), 0


def train_and_report(
    chosen: Experiment, workdir: Workdir, checkpoints: Checkpoints, step: TrainStep, like: TrainState, mesh: Mesh
) -> int:
    """Trains from the newest checkpoint on, then draws the report."""
    from jaxvision import evaluate, log, parallel, train

    progress, rows = first_progress(chosen, checkpoints, like)
    first = int(progress.state.step)
    metrics, timing, clock = log.JsonLines(workdir.metrics), log.JsonLines(workdir.timing), log.Clock()
    metrics.cut(rows)
    terminal = log.Terminal(chosen.steps, first, chosen.train.spec.image.shape[0])
    place = parallel.placer(mesh)
    examiner = evaluate.Examiner(chosen.task, chosen.evaluations)
    if first < chosen.steps:
        terminal.say("compiling the training step")
    if first:
        terminal.say(f"going on from step {first:,} of {chosen.steps:,} ({workdir.path})")

    def feed(stream: Stream) -> Iterator[Batch]:
        return parallel.ahead(reading(stream.batches(0)), place)

    def write(step: int, figures: Figures) -> None:
        metrics.write(step, figures)
        timing.write(step, clock.figures())

    def examine(variables: Variables) -> Figures:
        figures = examiner.evaluate(variables, feed)
        if figures:
            terminal.say(f"step {terminal.done:,}: {summary(figures)}")
        return figures

    def save(progress: Progress, figures: Figures | None) -> None:
        rows = len(metrics.read())
        notes = {"history": list(progress.history), "interval": list(progress.interval), "rows": rows}
        metrics.sync()
        checkpoints.save(int(progress.state.step), progress.state, notes, figures)
        check_measured(chosen.keep.by, figures)

    with Interruption() as interruption:
        hooks = train.Hooks(write, examine, save, chosen.stop, interruption.requested, terminal.step)
        batches = parallel.ahead(reading(chosen.train.batches(first)), place)
        try:
            progress = train.fit(
                step, progress, batches, steps=chosen.steps, every=chosen.every, hooks=hooks, clock=clock
            )
        except train.NonFiniteLoss as error:
            explain(error, chosen, workdir)
            raise
        finally:
            terminal.close()
        with clock("checkpoint"):
            checkpoints.wait()
    done = int(progress.state.step)
    if interruption.requested() and done < chosen.steps:
        print(
            f"stopped by {interruption.name} at step {done:,} of {chosen.steps:,}; saved in {workdir.checkpoints}. "
            "The same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED
    with clock("report"):
        if not examiner.newest:
            examiner.evaluate(progress.state.averaged, feed)
        draw_report(chosen, workdir, metrics.read(), examiner.newest)
    timing.write(done, clock.figures())
    early = f", stopped early, of {chosen.steps:,}" if done < chosen.steps else ""
    print(f"done: {done:,} steps{early}, in {clock.table()}")
    print(f"{workdir.path}: metrics.jsonl, checkpoints/ {checkpoints.steps}, report/")
    return 0


def check_measured(by: str | None, figures: Figures | None) -> None:
    """Raises ConfigError if there are figures, but not the one that tells which checkpoint is best."""
    from jaxvision.experiment import ConfigError

    if figures is not None and by is not None and by not in figures:
        names = ", ".join(name for name in figures if name.count("/") < 2)
        raise ConfigError(f"keep.by is {by!r}; the evaluations give: {names}")


def reading(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; a fault of the data becomes a `DataProblem`."""
    while True:
        with told_as(DataProblem):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def summary(figures: Figures) -> str:
    """The figures as one line, without those of single classes and the micro averages."""
    told = {name: value for name, value in figures.items() if name.count("/") < 2 and not name.endswith("_micro")}
    return "  ".join(f"{name} {value:.4g}" for name, value in told.items())


def draw_report(chosen: Experiment, workdir: Workdir, rows: list, results: Mapping[str, Evaluated]) -> None:
    """Writes the pictures of the run into `report/`."""
    from jaxvision.draw.curves import curves
    from jaxvision.draw.figure import save

    workdir.report.mkdir(exist_ok=True)
    if rows:
        save(curves(rows), workdir.report / "curves.png")
    for name, evaluation in chosen.evaluations.items():
        if evaluation.report is not None:
            evaluation.report(workdir.report, name, results[name].rows, evaluation.stream)


def explain(error: NonFiniteLoss, chosen: Experiment, workdir: Workdir) -> None:
    """Adds to the error the names of the examples behind it, and where their batch and the state before it are saved."""
    from jaxvision import train

    batch = next(chosen.train.batches(error.step))
    state = error.progress.state.replace(failed_step=error.progress.state.failed_step * 0 - 1)
    good = train.example_finite(chosen.task, chosen.augment)(state, batch)
    error.remarks.append(blame([int(i) for i in batch.index], good, chosen.train.about().name))
    folder = workdir.path / "nonfinite"
    try:
        save_fault(folder, error.step, state, batch)
        error.remarks.append(f"the batch and the state before it are in {folder}")
    except Exception as trouble:
        error.remarks.append(f"its batch and state could not be saved: {trouble}")
    error.remarks.append("nonfinite='skip' in the experiment goes on without such a step")


def blame(index: Sequence[int], good: Sequence[bool], name: Callable[[int], str]) -> str:
    """Which examples, each alone, have a loss or a gradient that is not finite; none is named where that tells nothing."""
    bad = [name(i) for i, fine in zip(index, good, strict=True) if not fine]
    if not bad:
        return f"each of its {len(good)} examples alone is finite"
    if len(bad) == len(good) > 1:
        return f"every one of its {len(good)} examples alone is not finite"
    return f"not finite for {', '.join(bad[:5])}" + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")


def save_fault(folder: Path, step: int, state: TrainState, batch: Batch) -> None:
    """Saves the batch as `batch_<step>.npz` and the state as a checkpoint, in place of an earlier fault's."""
    import jax
    import numpy as np

    from jaxvision.checkpoint import Checkpoints

    if folder.is_dir():
        shutil.rmtree(folder)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(step, state, {"history": [], "interval": [], "rows": 0}, None)
    leaves = {jax.tree_util.keystr(path).strip("."): x for path, x in jax.tree_util.tree_leaves_with_path(batch)}
    np.savez(folder / f"batch_{step}.npz", **leaves)


class Interruption:
    """Notes SIGTERM and SIGINT inside a `with` block instead of dying of them; a second one kills as usual."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._before = {}

    def requested(self) -> bool:
        """Whether one of the signals came."""
        return self.name is not None

    def _note(self, number: int, frame) -> None:
        self.name = signal.Signals(number).name
        signal.signal(number, self._before[number])
        os.write(2, f"\n{self.name}: saving a checkpoint, then ending (again to end at once)\n".encode())

    def __enter__(self) -> Interruption:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    tell_errors_once()
    sys.exit(main())

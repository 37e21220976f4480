"""Trains, or resumes, one experiment.

python -m jaxvision.main --config=experiments/quickstart.py --workdir=runs/quickstart [--config.FIELD=VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxvision.checkpoint import Checkpoints
    from jaxvision.evaluate import Evaluated
    from jaxvision.experiment import Experiment
    from jaxvision.train import Figures, Progress, TrainState, TrainStep
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
    fsdp: int
    meeting: tuple[str | None, int | None, int | None, int] | None
    """For a run of several processes: coordinator, processes, number of this one, seconds to wait."""
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
        status = 130
    except Exception as error:
        told = message(error, several=flags.meeting is not None)
        if flags.traceback or told is None:
            if not flags.meeting:
                raise
            traceback.print_exc()
            status = 1
        else:
            print(f"jaxvision: {told}", file=sys.stderr)
            status = 2
    if flags.meeting:
        from jaxvision import processes

        processes.leave(status)
    return status


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
    devices = parser.add_argument_group("devices")
    devices.add_argument("--fsdp", type=int, default=1, metavar="N", help="split parameters over N of the devices")
    devices.add_argument(
        "--distributed", action="store_true", help="one of several processes, as SLURM, Open MPI or Cloud TPU tell"
    )
    devices.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where nobody tells")
    devices.add_argument("--processes", type=int, metavar="N", help="how many there are")
    devices.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    devices.add_argument("--patience", type=int, default=300, metavar="SECONDS", help="how long to wait for the others")
    fields, rest = split_overrides(argv, parser.error)
    known = parser.parse_args(rest)
    command = ["python", "-m", "jaxvision.main", *argv]
    meeting = meeting_of(known, parser.error)
    return Flags(known.config, known.workdir, fields, known.fork, known.traceback, known.fsdp, meeting, command)


def meeting_of(known: argparse.Namespace, error) -> tuple[str | None, int | None, int | None, int] | None:
    """How this process meets the others, if it is one of several."""
    given = (known.coordinator, known.processes, known.process)
    if all(part is None for part in given):
        return (None, None, None, known.patience) if known.distributed else None
    if any(part is None for part in given):
        error("--coordinator, --processes and --process belong together")
    if not 0 <= known.process < known.processes:
        error(f"--process={known.process}: with --processes={known.processes}, allowed are 0 to {known.processes - 1}")
    return (*given, known.patience)


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


def message(error: Exception, several: bool) -> str | None:
    """What to say of an error in place of a traceback; None where that would hide a fault of the program."""
    if isinstance(error, _problems()):
        return " ".join(str(error).split())
    lost = ("Connection closed", "Connection reset", "Broken pipe", "heartbeat", "DEADLINE_EXCEEDED")
    if several and any(sign in str(error) for sign in lost):
        return f"another process has ended; its own message says why ({str(error).splitlines()[0]})"
    return None


def _problems() -> tuple[type[Exception], ...]:
    """The errors that are the user's to mend: told in one line."""
    from jaxvision.checkpoint import CheckpointError
    from jaxvision.evaluate import NoExamples
    from jaxvision.experiment import ConfigError
    from jaxvision.processes import AnotherProcessFailed
    from jaxvision.train import NonFiniteLoss
    from jaxvision.workdir import WorkdirError

    told = (ConfigError, WorkdirError, CheckpointError, NonFiniteLoss, NoExamples, DataProblem, OSError)
    return (*told, AnotherProcessFailed)


class DataProblem(ValueError):
    """The data can't be opened or read."""


@contextmanager
def told_as(kind: type[Exception]) -> Iterator[None]:
    """Inside this block a ValueError or OSError is a problem of this kind, told without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise kind(str(error)) from error


class Plan(NamedTuple):
    """All that a run needs, known to fit together."""

    chosen: Experiment
    config: dict
    data: dict[str, str]
    """The fingerprint of the data of each stream."""
    mesh: Mesh
    step: TrainStep
    like: TrainState
    """The shapes and shardings of the state."""


def run(flags: Flags) -> int:
    """Trains the experiment to its end; returns the exit status. Writes nothing before all that can be checked is."""
    from jaxvision import parallel, processes
    from jaxvision.checkpoint import Checkpoints
    from jaxvision.experiment import ConfigError
    from jaxvision.workdir import Workdir

    if flags.meeting is not None:
        with told_as(ConfigError):
            processes.meet(processes.Meeting(*flags.meeting))
    parallel.keep_compilations()
    with processes.together():
        plan = prepare(flags)
    processes.check_same("config and data", json.dumps([plan.config, plan.data], sort_keys=True))
    workdir = Workdir(flags.workdir)
    with ExitStack() as stack:
        with processes.together():
            if processes.is_first():
                stack.enter_context(workdir.held())
                enter(workdir, plan, flags)
        checkpoints = stack.enter_context(Checkpoints(workdir.checkpoints, plan.chosen.keep))
        return train_and_report(plan, workdir, checkpoints)


def prepare(flags: Flags) -> Plan:
    """Reads and checks the experiment, opens its data, traces its training step."""
    from jaxvision import experiment, parallel

    module = experiment.load(flags.config)
    config = experiment.configure(module.get_config(), flags.overrides)
    with told_as(experiment.ConfigError):
        parallel.resolve_precision(config)
        mesh = parallel.device_mesh(flags.fsdp)
        chosen = module.build(config)
    with told_as(DataProblem):
        data = open_data(chosen, mesh)
    with told_as(experiment.ConfigError):
        step, like = traced(chosen, mesh)
    return Plan(chosen, experiment.as_json(config), data, mesh, step, like)


def enter(workdir: Workdir, plan: Plan, flags: Flags) -> None:
    """Writes down in the workdir what this run is, or finds it there; refuses another run's."""
    from jaxvision.workdir import WorkdirError

    if workdir.newest_step() > plan.chosen.steps:
        raise WorkdirError(
            f"the run in {workdir.path} is at step {workdir.newest_step():,}, past the {plan.chosen.steps:,} asked for"
        )
    workdir.open(plan.config, flags.config, plan.data, flags.command, flags.fork)


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
    like = parallel.with_layout(mesh, jax.eval_shape(lambda: experiment.first_state_of(chosen, start=False)))
    shared = chosen._replace(task=parallel.gathering(chosen.task, mesh))
    step = jax.jit(
        experiment.train_step_of(shared),
        donate_argnums=0,
        out_shardings=(parallel.layout(mesh, like), parallel.replicated(mesh)),
    )
    step.eval_shape(like, chosen.train.spec)
    return step, like


def first_progress(plan: Plan, checkpoints: Checkpoints) -> tuple[Progress, int]:
    """The run as its newest readable checkpoint has it, or before its first step, and how many rows its log had."""
    from functools import partial

    from jaxvision import experiment, parallel, train

    saved = checkpoints.newest(plan.like)
    if saved is not None:
        return train.Progress(saved.state, saved.notes["history"], saved.notes["interval"]), saved.notes["rows"]
    state = experiment.first_state_of(plan.chosen, layout=partial(parallel.layout, plan.mesh))
    return train.Progress(state), 0


def train_and_report(plan: Plan, workdir: Workdir, checkpoints: Checkpoints) -> int:
    """Trains from the newest checkpoint on, then draws the report."""
    from jaxvision import evaluate, fault, log, parallel, processes, train

    chosen, mesh, writes = plan.chosen, plan.mesh, processes.is_first()
    progress, rows = first_progress(plan, checkpoints)
    first = int(progress.state.step)
    metrics, timing, clock = log.JsonLines(workdir.metrics), log.JsonLines(workdir.timing), log.Clock()
    if writes:
        metrics.cut(rows)
    terminal = log.Terminal(chosen.steps, first, chosen.train.spec.image.shape[0], quiet=not writes)
    place, share = parallel.placer(mesh), processes.share()
    examiner = evaluate.Examiner(parallel.gathering(chosen.task, mesh), chosen.evaluations, parallel.replicated(mesh))
    if first < chosen.steps:
        terminal.say("compiling the training step")
    if first:
        terminal.say(f"going on from step {first:,} of {chosen.steps:,} ({workdir.path})")

    def feed(stream: Stream, step: int = 0) -> Iterator[Batch]:
        return parallel.ahead(reading(stream.batches(step, share)), place)

    def write(step: int, figures: Figures) -> None:
        if writes:
            metrics.write(step, figures)
            timing.write(step, clock.figures())

    def examine(variables: Variables) -> Figures:
        figures = examiner.evaluate(variables, feed)
        if figures:
            terminal.say(f"step {terminal.done:,}: {summary(figures)}")
        return figures

    def save(progress: Progress, figures: Figures | None) -> None:
        rows = len(metrics.read()) if writes else 0
        notes = {"history": list(progress.history), "interval": list(progress.interval), "rows": rows}
        metrics.sync()
        checkpoints.save(int(progress.state.step), progress.state, notes, figures)
        check_measured(chosen.keep.by, figures)

    with Interruption() as interruption:
        hooks = train.Hooks(write, examine, save, chosen.stop, interruption.requested, terminal.step)
        try:
            progress = train.fit(
                plan.step,
                progress,
                feed(chosen.train, first),
                steps=chosen.steps,
                every=chosen.every,
                hooks=hooks,
                clock=clock,
            )
        except train.NonFiniteLoss as error:
            fault.explain(error, chosen, mesh, workdir.path / "nonfinite")
            raise
        finally:
            terminal.close()
        with clock("checkpoint"):
            checkpoints.wait()
    done = int(progress.state.step)
    if interruption.name and done < chosen.steps:
        print(
            f"stopped by {interruption.name} at step {done:,} of {chosen.steps:,}; saved in {workdir.checkpoints}. "
            "The same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED
    with clock("report"):
        if not examiner.newest:
            examiner.evaluate(progress.state.averaged, feed)
        if writes:
            draw_report(chosen, workdir, metrics.read(), examiner.newest)
    if writes:
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


class Interruption:
    """Notes SIGTERM and SIGINT inside a `with` block instead of dying of them; a second one kills as usual.

    Where a run has several processes, JAX notes SIGTERM and makes them agree on the step.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before = {}

    def requested(self, step: int) -> bool:
        """Whether one of the signals came; of several processes, to any of them, and told to all after the same step."""
        from jaxvision import processes

        if processes.asked_to_stop(step):
            self.name = "SIGTERM"
        return self.name is not None

    def _note(self, number: int, frame) -> None:
        self.name = signal.Signals(number).name
        signal.signal(number, self._before[number])
        os.write(2, f"\n{self.name}: saving a checkpoint, then ending (again to end at once)\n".encode())

    def __enter__(self) -> Interruption:
        from jaxvision import processes

        for number in () if processes.several() else (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    tell_errors_once()
    sys.exit(main())

"""Trains, or resumes, one experiment.

python -m jaxvision.main --config=experiments/quickstart.py --workdir=runs/quickstart [--config.FIELD=VALUE ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxvision.commands import status_of, tell_errors_once
from jaxvision.errors import DataError, naming, raised_as, reading
from jaxvision.flags import Flags, parse

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxvision.experiment import Experiment
    from jaxvision.run.checkpoint import Checkpoints
    from jaxvision.run.evaluation import Evaluated, Examiner
    from jaxvision.run.logbook import Logbook, Wishes
    from jaxvision.run.processes import Interruption
    from jaxvision.run.workdir import Workdir
    from jaxvision.train import Figures, Hooks, Progress, TrainState, TrainStep
    from jaxvision.types import About, Batch, Stream, Variables

INTERRUPTED = 75  # EX_TEMPFAIL: run the same command again


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(list(sys.argv[1:] if argv is None else argv))
    return status_of(lambda: run(flags), flags.traceback, several=flags.meeting is not None)


class Plan(NamedTuple):
    """All that a run needs, known to fit together."""

    chosen: Experiment
    config: dict
    data: dict[str, About]
    """What is known of the data of each stream."""
    mesh: Mesh
    step: TrainStep
    like: TrainState
    """The shapes and shardings of the state."""


def run(flags: Flags) -> int:
    """Trains the experiment to its end; returns the exit status. Writes nothing before all that can be checked is."""
    from jaxvision.errors import ConfigError
    from jaxvision.run import devices, processes, watch
    from jaxvision.run.checkpoint import Checkpoints
    from jaxvision.run.logbook import Wishes
    from jaxvision.run.workdir import Workdir

    with raised_as(ConfigError):
        wishes = Wishes(flags.wandb, None if flags.profile is None else watch.parse_steps(flags.profile))

    if flags.meeting is not None:
        with raised_as(ConfigError):
            processes.meet(processes.Meeting(*flags.meeting))
    devices.keep_compilations()
    if flags.preflight:
        return preflight(flags)
    with processes.together():
        plan = prepare(flags)
    settings = json.dumps([plan.config, fingerprints(plan), flags.fsdp], sort_keys=True)
    processes.check_same("config, data or --fsdp", settings)
    workdir = Workdir(flags.workdir)
    with ExitStack() as stack:
        with processes.together():
            if processes.is_first():
                stack.enter_context(workdir.held())
                enter(workdir, plan, flags)
        checkpoints = stack.enter_context(Checkpoints(workdir.checkpoints, plan.chosen.keep))
        return train_and_report(plan, workdir, checkpoints, wishes)


def built(flags: Flags) -> tuple[Experiment, dict, Mesh]:
    """The experiment of the command line, its config as JSON data, the devices."""
    from jaxvision.errors import ConfigError
    from jaxvision.run import devices
    from jaxvision.run.config import as_json, configure, load

    module = load(flags.config)
    config = configure(module.get_config(), flags.overrides)
    with raised_as(ConfigError):
        devices.resolve_precision(config)
        mesh = devices.device_mesh(flags.fsdp)
        return module.build(config), as_json(config), mesh


def preflight(flags: Flags) -> int:
    """Checks the experiment without training it; returns the exit status."""
    from functools import partial

    from jaxvision.run.preflight.check import check
    from jaxvision.run.workdir import Workdir

    chosen, config, mesh = built(flags)
    taken = partial(check_free, Workdir(flags.workdir), chosen, config, flags)
    findings = check(chosen, mesh, flags.workdir / "preflight", taken)
    print(findings.report, end="")
    return 2 if findings.problems else 0


def prepare(flags: Flags) -> Plan:
    """Reads and checks the experiment, opens its data, traces its training step."""
    from jaxvision import experiment, train
    from jaxvision.errors import ConfigError
    from jaxvision.run import devices

    chosen, config, mesh = built(flags)
    with raised_as(DataError):
        abouts = open_data(chosen, mesh)
    with raised_as(ConfigError):
        experiment.check_names(chosen)
        experiment.check_kept(chosen)
        for name, evaluation in chosen.evaluations.items():
            with naming(where := f"evaluation {name}"):
                experiment.check_classes(evaluation.metric, abouts[where])
        train.check_intervals(chosen.every)
        step, like = devices.step_on(mesh, chosen)
    return Plan(chosen, config, abouts, mesh, step, like)


def enter(workdir: Workdir, plan: Plan, flags: Flags) -> None:
    """Writes down in the workdir what this run is, or finds it there; refuses another run's."""
    check_free(workdir, plan.chosen, plan.config, flags)
    classes = {name: about.classes for name, about in plan.data.items()}
    workdir.open(plan.config, flags.config, fingerprints(plan), flags.command, classes=classes, fork=flags.fork)


def check_free(workdir: Workdir, chosen: Experiment, config: dict, flags: Flags) -> None:
    """Raises WorkdirError if the workdir holds another run, or one that is past the last step."""
    from jaxvision import experiment
    from jaxvision.errors import WorkdirError

    data = {name: stream.about().fingerprint for name, stream in experiment.streams(chosen).items()}
    if workdir.newest_step() > chosen.steps:
        raise WorkdirError(
            f"the run in {workdir.path} is at step {workdir.newest_step():,}, past the {chosen.steps:,} asked for"
        )
    workdir.check(config, flags.config, data, flags.fork)


def open_data(chosen: Experiment, mesh: Mesh) -> dict[str, About]:
    """Opens the data of all streams."""
    from jaxvision import experiment
    from jaxvision.run import devices

    streams = experiment.streams(chosen)
    for name, stream in streams.items():
        with naming(name):
            devices.check_divisible(stream.spec, mesh)
    return {name: stream.about() for name, stream in streams.items()}


def fingerprints(plan: Plan) -> dict[str, str]:
    """What changes when the data of a stream do."""
    return {name: about.fingerprint for name, about in plan.data.items()}


def first_progress(plan: Plan, checkpoints: Checkpoints) -> tuple[Progress, int]:
    """The run as its newest readable checkpoint has it, or before its first step, and how many rows its log had."""
    from functools import partial

    from jaxvision import experiment, train
    from jaxvision.errors import ConfigError
    from jaxvision.run import devices

    saved = checkpoints.newest(plan.like)
    if saved is not None:
        return train.Progress(saved.state, saved.notes["history"], saved.notes["interval"]), saved.notes["rows"]
    with raised_as(ConfigError):
        state = experiment.first_state_of(plan.chosen, layout=partial(devices.layout, plan.mesh))
    return train.Progress(state), 0


def train_and_report(plan: Plan, workdir: Workdir, checkpoints: Checkpoints, wishes: Wishes) -> int:
    """Trains from the newest checkpoint on, then draws the report."""
    from jaxvision import train
    from jaxvision.run import devices, nonfinite, processes
    from jaxvision.run.logbook import Logbook
    from jaxvision.run.processes import Interruption

    chosen = plan.chosen
    progress, rows = first_progress(plan, checkpoints)
    first = int(progress.state.step)
    book = Logbook(
        workdir.path,
        plan.config,
        first=first,
        rows=rows,
        steps=chosen.steps,
        batch_size=chosen.train.spec.image.shape[0],
        every=chosen.every.log,
        process=processes.share().index,
        wishes=wishes,
    )
    place, share = devices.placer(plan.mesh), processes.share()

    def feed(stream: Stream, step: int = 0) -> Iterator[Batch]:
        return devices.ahead(reading(stream.batches(step, share)), place)

    with book, Interruption() as interruption:
        if first < chosen.steps:
            book.say("compiling the training step")
        if first:
            book.say(f"going on from step {first:,} of {chosen.steps:,} ({workdir.path})")
        examiner, hooks = hooked(plan, book, checkpoints, feed, interruption)
        try:
            progress = train.fit(
                book.watched(plan.step),
                progress,
                feed(chosen.train, first),
                steps=chosen.steps,
                every=chosen.every,
                hooks=hooks,
                clock=book.clock,
            )
        except train.NonFiniteLoss as error:
            with book.paused():
                nonfinite.explain(error, chosen, plan.mesh, workdir.path / "nonfinite")
            raise
        book.trained()
        done = int(progress.state.step)
        with book.paused():
            with book.clock("checkpoint"):
                checkpoints.wait()
            if interruption.name and not finished(chosen, progress):
                return told_interrupted(interruption.name, done, chosen.steps, workdir)
            if not examiner.newest:
                examiner.evaluate(progress.state.averaged, feed)
            book.report(lambda rows: draw_report(chosen, workdir, rows, examiner.newest), done)
    if book.writes:
        early = f", stopped early, of {chosen.steps:,}" if done < chosen.steps else ""
        print(f"done: {done:,} steps{early}, in {book.clock.table()}")
        print(f"{workdir.path}: metrics.jsonl, checkpoints/ {checkpoints.steps}, report/")
    return 0


def hooked(
    plan: Plan,
    book: Logbook,
    checkpoints: Checkpoints,
    feed: Callable[[Stream], Iterator[Batch]],
    interruption: Interruption,
) -> tuple[Examiner, Hooks]:
    """What the loop calls, and the examiner that evaluates for it."""
    from jaxvision import train
    from jaxvision.errors import ConfigError
    from jaxvision.run import devices, evaluation, processes

    chosen = plan.chosen
    task = devices.task_on(plan.mesh, chosen)
    examiner = evaluation.Examiner(task, chosen.evaluations, devices.replicated(plan.mesh))

    evaluating = False

    def examine(variables: Variables) -> Figures:
        nonlocal evaluating
        evaluating = True
        with book.paused():
            figures = examiner.evaluate(variables, feed)
        evaluating = False
        if figures:
            book.say(f"step {book.terminal.done:,}: {summary(figures)}")
        return figures

    def save(progress: Progress, figures: Figures | None) -> None:
        if evaluating and processes.several():
            return  # it failed here, while the others wait in it: no save that takes all can succeed
        with book.paused():
            history, interval = list(progress.history), list(progress.interval)
            notes = {"history": history, "interval": interval, "rows": book.synced()}
            checkpoints.save(int(progress.state.step), progress.state, notes, figures)
        check_measured(chosen.keep.by, figures)

    def stop(history: Sequence[Figures]) -> bool:
        with raised_as(ConfigError):
            return chosen.stop(history)

    return examiner, train.Hooks(book.write, examine, save, stop, interruption.requested, book.stepped)


def finished(chosen: Experiment, progress: Progress) -> bool:
    """Whether the last step is done and evaluated."""
    last = progress.history[-1]["step"] if progress.history else None
    return int(progress.state.step) == chosen.steps and (not chosen.evaluations or last == chosen.steps)


def told_interrupted(name: str, done: int, steps: int, workdir: Workdir) -> int:
    """Says where an interrupted run stands; returns the exit status."""
    print(
        f"stopped by {name} at step {done:,} of {steps:,}; saved in {workdir.checkpoints}. "
        "The same command goes on from there.",
        file=sys.stderr,
    )
    return INTERRUPTED


def check_measured(by: str | None, figures: Figures | None) -> None:
    """Raises ConfigError if there are figures, but not the one that tells which checkpoint is best."""
    from jaxvision.errors import ConfigError

    if figures is not None and by is not None and by not in figures:
        names = ", ".join(name for name in figures if name.count("/") < 2)
        raise ConfigError(f"keep.by is {by!r}; the evaluations give: {names}")


def summary(figures: Figures) -> str:
    """The figures as one line, without those of single classes and the micro averages."""
    told = {name: value for name, value in figures.items() if name.count("/") < 2 and not name.endswith("_micro")}
    return "  ".join(f"{name} {value:.4g}" for name, value in told.items())


def draw_report(
    chosen: Experiment, workdir: Workdir, rows: Sequence[Mapping], results: Mapping[str, Evaluated]
) -> Path:
    """Writes the pictures of the run into `report/`; returns that folder."""
    from jaxvision.draw.curves import curves
    from jaxvision.draw.figure import save

    workdir.report.mkdir(exist_ok=True)
    if rows:
        save(curves(rows), workdir.report / "curves.png")
    for name, evaluation in chosen.evaluations.items():
        if evaluation.report is not None:
            evaluation.report(workdir.report, name, results[name].rows, evaluation.stream)
    return workdir.report


if __name__ == "__main__":
    tell_errors_once()
    sys.exit(main())

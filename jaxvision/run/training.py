"""Training: an `Experiment` into a workdir, from its first step or from where the workdir stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvision import experiment as experiments
from jaxvision import train as loop
from jaxvision.errors import CheckpointError, ConfigError, DataError, WorkdirError, naming, raised_as, reading
from jaxvision.experiment import Experiment
from jaxvision.machine import leaving
from jaxvision.machine.signals import Stopped
from jaxvision.run import agreement, devices, lines, nonfinite, peers, processes, remains
from jaxvision.run.checkpoint import Checkpoints, Saved
from jaxvision.run.evaluation import Evaluator, Results, draw_curves, draw_evaluations
from jaxvision.run.interruption import Interruption
from jaxvision.run.lease import Held
from jaxvision.run.log import Mark
from jaxvision.run.logbook import Logbook
from jaxvision.run.remarks import check_head, head_mismatch, remarks
from jaxvision.run.skipped import SkippedImages
from jaxvision.run.trackers import OpenTracker
from jaxvision.run.transfer import FromRun
from jaxvision.run.workdir import Recipe, Workdir
from jaxvision.train import Metrics, Progress, TrainState, TrainStep
from jaxvision.types import About, Batch, Stream, Variables

logger = logging.getLogger(__name__)

Feed = Callable[..., Iterator[Batch]]
"""`(stream, step=0)`: the batches of a stream from this step on, on the devices."""
StepOn = Callable[[Mesh, Experiment], tuple[TrainStep, TrainState]]
"""The compiled training step over the devices, and the shapes and shardings of its state; `devices.step_on` is one."""


class Trained(NamedTuple):
    """Where a run stands."""

    workdir: Path
    step: int
    """Steps done."""
    steps: int
    """Steps asked for."""
    interrupted: str | None
    """The signal that ended it early, such as "SIGTERM": train again, and it goes on from there."""
    metrics: Metrics
    """Metrics of the last evaluation, named as in "test/accuracy"; empty where there was none."""
    checkpoints: tuple[int, ...]
    """The steps of the checkpoints that are kept."""
    seconds: str
    """The time of each part, as one line."""


class Plan(NamedTuple):
    """All that a run needs, known to fit together."""

    experiment: Experiment
    data: Mapping[str, About]
    """What is known of the data of each stream."""
    mesh: Mesh
    step: TrainStep
    like: TrainState
    """The shapes and shardings of the state."""
    remarks: Sequence[str]
    """What a person should know of the data, a line each."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """What changes when the data of a stream do."""
        return {name: about.fingerprint for name, about in self.data.items()}


def train(
    experiment: Experiment,
    workdir: str | Path,
    recipe: Recipe | None = None,
    *,
    fsdp: int = 1,
    fork: bool = False,
    trackers: Sequence[OpenTracker] = (),
    profile: range | None = None,
    report: bool = True,
    step_on: StepOn = devices.step_on,
) -> Trained:
    """Trains the experiment to its end, from the newest checkpoint in the workdir if there is one.

    Nothing is written before all that can be checked is. SIGTERM and SIGINT save a checkpoint and end it, if it is called
    in the main thread. Of several processes (`processes.meet`) each calls it with the same arguments.

    Args:
      experiment: to train.
      workdir: the folder of the run; made if there is none.
      recipe: the experiment file and config that the experiment was built from (`config.build`): the workdir keeps them,
        and alone is then enough for `load` and `evaluate`. Without it they must be given the experiment.
      fsdp: split parameters over this number of devices.
      fork: go on from the run in the workdir, even if it is of another recipe or other data.
      trackers: beside TensorBoard, such as `partial(WeightsAndBiases, "project")`.
      profile: the steps to trace.
      report: draw `report/` at the end: the curves, and what each evaluation draws.
      step_on: makes the compiled training step: one that serves other runs too, say.

    Raises:
      ConfigError: if parts of the experiment don't fit together, or don't fit the devices.
      DataError: if the data can't be opened or read.
      WorkdirError: if the workdir can't be written, is in use, or holds another run and `fork` is not set.
      CheckpointError: if a checkpoint can't be written or read.
      NonFiniteLoss: if a step is not finite and the experiment does not skip such.
    """
    lease = None
    with peers.naming_lost(), ExitStack() as stack:
        with processes.together():
            plan = prepare(experiment, fsdp, step_on)
        config = {} if recipe is None else recipe.config
        processes.check_same(agreement.settings(experiment, plan.fingerprints, plan.like, recipe, fsdp))
        place = Workdir(workdir)
        with processes.together():
            if processes.is_first():
                stack.enter_context(place.held())
                enter(place, plan, recipe, fork)
                lease = stack.enter_context(Held(place.path, experiment.steps))
                stack.enter_context(leaving.saying(lease.left))
        stack.enter_context(peers.naming_lost())  # once more, so that the lease says which process was lost
        processes.check_reached(place.path)
        if step_on is devices.step_on:
            plan = stack.enter_context(compiling(plan, place))
        checkpoints = stack.enter_context(Checkpoints(place.checkpoints, experiment.keep))
        progress, mark = first_progress(plan, checkpoints)
        book = Logbook(
            place.path,
            config,
            mark=mark,
            steps=experiment.steps,
            batch_size=experiment.train.spec.image.shape[0],
            every=experiment.every.log,
            process=processes.shard().index,
            trackers=trackers,
            profile=profile,
        )
        trained = go_on(plan, place, checkpoints, progress, book, report)
        if lease is not None:
            lease.ended(trained.step, trained.interrupted)
        return trained


def prepare(experiment: Experiment, fsdp: int = 1, step_on: StepOn = devices.step_on) -> Plan:
    """Checks the experiment, opens its data, traces its training step.

    Raises:
      ConfigError: if parts of it don't fit together, or don't fit the devices.
      DataError: if the data can't be opened.
    """
    with raised_as(ConfigError):
        mesh = devices.device_mesh(fsdp)
    with raised_as(DataError):
        abouts = open_data(experiment, mesh)
    with raised_as(ConfigError):
        experiments.check_seed(experiment)
        experiments.check_steps(experiment)
        experiments.check_names(experiment)
        experiments.check_kept(experiment)
        for name, evaluation in experiment.evaluations.items():
            with naming(where := f"evaluation {name}"):
                experiments.check_classes(evaluation.metric, abouts[where])
        loop.check_intervals(experiment.every)
        step, like = step_on(mesh, experiment)
        devices.check_memory(mesh, like)
        return Plan(experiment, abouts, mesh, step, like, remarks_on(experiment, abouts, mesh, like))


@contextmanager
def compiling(plan: Plan, workdir: Workdir) -> Iterator[Plan]:
    """The plan with a step that is compiled while the first state and the data get ready.

    It is compiled when it is called where there is no step to do, or where weights are still to be read: an error in them is
    told at once.
    """
    experiment = plan.experiment
    if experiment.start is not None or workdir.newest_step() >= experiment.steps:
        yield plan
        return
    batch = devices.batch_on(plan.mesh, experiment.train.spec)
    with devices.compiling(plan.step, plan.like, batch) as step:
        yield plan._replace(step=step)


def remarks_on(experiment: Experiment, abouts: Mapping[str, About], mesh: Mesh, like: TrainState) -> list[str]:
    """What a person should know of the data before the first step, a line each.

    Raises ValueError if a classifier tells fewer classes apart than the training data have.
    """
    found = remarks(abouts)
    for evaluation in list(experiment.evaluations.values())[:1]:
        spec = devices.batch_on(mesh, evaluation.stream.spec.replace(target=None))
        prediction = jax.eval_shape(devices.task_on(mesh, experiment).predict, like.averaged, spec)
        with naming("train"):
            check_head(prediction, abouts["train"])
        mismatch = head_mismatch(prediction, abouts["train"])
        found += [] if mismatch is None else [f"train: {mismatch}"]
    return found


def open_data(experiment: Experiment, mesh: Mesh) -> dict[str, About]:
    """Opens the data of all streams, by name. Raises ValueError or OSError where that fails."""
    streams = experiments.streams(experiment)
    for name, stream in streams.items():
        with naming(name):
            devices.check_divisible(stream.spec, mesh)
    return {name: stream.about() for name, stream in streams.items()}


def enter(workdir: Workdir, plan: Plan, recipe: Recipe | None, fork: bool) -> None:
    """Writes down in the workdir what this run is, or finds it there; refuses another run's."""
    check_free(workdir, plan.experiment, recipe, fork)
    classes = {name: about.classes for name, about in plan.data.items()}
    start = plan.experiment.start
    parent = start.workdir if isinstance(start, FromRun) else None
    workdir.open(recipe, plan.fingerprints, classes=classes, fork=fork, parent=parent)


def check_free(workdir: Workdir, experiment: Experiment, recipe: Recipe | None, fork: bool) -> None:
    """Raises WorkdirError if the workdir holds another run, or one that is past the last step."""
    data = {name: stream.about().fingerprint for name, stream in experiments.streams(experiment).items()}
    if workdir.newest_step() > experiment.steps:
        raise WorkdirError(
            f"the run in {workdir.path} is at step {workdir.newest_step():,}, past the {experiment.steps:,} asked for"
        )
    workdir.check(recipe, data, fork)


def first_progress(plan: Plan, checkpoints: Checkpoints) -> tuple[Progress, Mark]:
    """The run as its newest readable checkpoint has it, or before its first step, and how far its log had come."""
    saved = checkpoints.newest(plan.like)
    if saved is not None:
        return _progress_of(saved, checkpoints.folder)
    return Progress(first_state(plan)), Mark()


def first_state(plan: Plan) -> TrainState:
    """The state before the first step, on the devices."""
    with raised_as(ConfigError):
        return experiments.first_state_of(plan.experiment, layout=partial(devices.layout, plan.mesh))


def _progress_of(saved: Saved, folder: Path) -> tuple[Progress, Mark]:
    """Raises CheckpointError for a checkpoint that something else than a run has saved."""
    notes, step = saved.notes, int(saved.state.step)
    if step != saved.step:
        raise CheckpointError(
            f"checkpoint {folder / str(saved.step)} is that of step {step}, copied or renamed: remove it"
        )
    try:
        progress = Progress(saved.state, notes["history"], notes["interval"])
        return progress, Mark(step, notes["rows"], notes.get("log"))
    except KeyError as error:
        raise CheckpointError(
            f"checkpoint {folder / str(saved.step)} is none of a run: its notes lack {error}"
        ) from None


def go_on(
    plan: Plan, workdir: Workdir, checkpoints: Checkpoints, progress: Progress, book: Logbook, report: bool
) -> Trained:
    """Trains from where `progress` stands to the end, then draws the report."""
    experiment = plan.experiment
    feed = feeder(plan.mesh)
    evaluator = Evaluator(devices.task_on(plan.mesh, experiment), experiment.evaluations, devices.replicated(plan.mesh))
    first = int(progress.state.step)
    with book, Interruption(first) as interruption:
        for line in plan.remarks:
            book.say(line)
        book.say(lines.overview(experiment, plan.data, plan.mesh, plan.like))
        skipped = SkippedImages(experiment.train, book.say)
        hooks = hooked(plan, workdir, book, checkpoints, evaluator, feed, interruption, skipped, progress.history)
        try:
            book.say(lines.standing(first, experiment.steps, workdir.path))
            if first == 0:
                remains.note_parameters(workdir, "first", progress.state)
            progress = fitted(plan, workdir, book, progress, feed, hooks, interruption)
        except Stopped:
            if report:
                book.curves(partial(draw_curves, folder=workdir.report, by=experiment.keep.by))
            return trained(workdir.path, first, experiment, interruption.name, progress, checkpoints, book)
        skipped.total()
        with book.paused():
            with book.clock("checkpoint"):
                checkpoints.wait()
            workdir.check_there()
            interrupted = None if finished(experiment, progress) else interruption.name
            if interrupted is None:
                try:
                    remains.leave(workdir, evaluator, progress.state, partial(awaited, interruption, feed))
                    if report:
                        reported(plan, workdir, book, checkpoints, evaluator, progress, feed, interruption)
                except Stopped as signal:
                    interrupted = signal.name
            elif report:
                book.curves(partial(draw_curves, folder=workdir.report, by=experiment.keep.by))
        step = int(progress.state.step)
        return trained(workdir.path, step, experiment, interrupted, progress, checkpoints, book)


def trained(
    path: Path,
    step: int,
    experiment: Experiment,
    interrupted: str | None,
    progress: Progress,
    checkpoints: Checkpoints,
    book: Logbook,
) -> Trained:
    """Where the run stands."""
    metrics = {name: x for name, x in progress.history[-1].items() if name != "step"} if progress.history else {}
    kept = tuple(checkpoints.steps)
    return Trained(path, step, experiment.steps, interrupted, metrics, kept, book.clock.table())


def reported(
    plan: Plan,
    workdir: Workdir,
    book: Logbook,
    checkpoints: Checkpoints,
    evaluator: Evaluator,
    progress: Progress,
    feed: Feed,
    interruption: Interruption,
) -> None:
    """Draws the report, evaluating first where that has not been done; raises `Stopped` where a signal comes meanwhile."""
    feed = partial(awaited, interruption, feed)
    shown = shown_at_the_end(plan, checkpoints, evaluator, progress.state, feed)
    draw = partial(draw_report, plan.experiment, workdir.report, shown)
    with interruption.at_once():
        book.report(draw, int(progress.state.step))


def awaited(interruption: Interruption, feed: Feed, stream: Stream) -> Iterator[Batch]:
    """The batches of an evaluation, which a signal ends at the same one on all processes."""
    return interruption.awaited(feed(stream), checked=True)


def feeder(mesh: Mesh) -> Feed:
    """What reads the batches of a stream, this process's shard of each, onto the devices."""
    place, shard = devices.placer(mesh), processes.shard()

    def feed(stream: Stream, step: int = 0) -> Iterator[Batch]:
        return devices.ahead(reading(stream.batches(step, shard)), place)

    return feed


def shown_at_the_end(
    plan: Plan, checkpoints: Checkpoints, evaluator: Evaluator, state: TrainState, feed: Feed
) -> Results:
    """What the report shows: the checkpoint that `predict` takes, the best where the run keeps one, else the last state."""
    experiment, last = plan.experiment, int(state.step)
    step = last
    if experiment.keep.by is not None and experiment.keep.best:
        step = best_of(checkpoints, last)
    weights = "current" if state.ema is None else "averaged"
    for known in (evaluator.newest, evaluator.best):
        if known.step == step and known.results:
            return Results(step, weights, known.results)
    if step != last:
        try:
            state = checkpoints.load(step, plan.like).state
        except CheckpointError as error:
            step = last
            logger.warning("the report is of the last step, not of the best: %s", error)
    evaluator.evaluate(state.averaged, feed, step)
    return Results(step, weights, evaluator.newest.results)


def best_of(checkpoints: Checkpoints, last: int) -> int:
    """The step of the best checkpoint; the last where there is none, or it can't be known."""
    try:
        best = checkpoints.best_step()
    except CheckpointError as error:
        logger.warning("the report is of the last step, not of the best: %s", error)
        return last
    return last if best is None else best


def fitted(
    plan: Plan,
    workdir: Workdir,
    book: Logbook,
    progress: Progress,
    feed: Feed,
    hooks: loop.Hooks,
    interruption: Interruption,
) -> Progress:
    """The run after its last step; an error of a step that is not finite names the examples behind it."""
    experiment = plan.experiment
    try:
        progress = loop.fit(
            book.watched(plan.step),
            progress,
            interruption.awaited(feed(experiment.train, int(progress.state.step))),
            steps=experiment.steps,
            every=experiment.every,
            hooks=hooks,
            clock=book.clock,
        )
    except loop.NonFiniteLoss as error:
        with book.paused():
            nonfinite.explain(error, experiment, plan.mesh, workdir.path / "nonfinite")
        raise
    book.trained()
    return progress


def hooked(
    plan: Plan,
    workdir: Workdir,
    book: Logbook,
    checkpoints: Checkpoints,
    evaluator: Evaluator,
    feed: Feed,
    interruption: Interruption,
    skipped: SkippedImages,
    history: Sequence[Metrics],
) -> loop.Hooks:
    """What the loop calls; `history` has the evaluations of earlier starts."""
    experiment = plan.experiment
    evaluating = False
    measured = list(history)

    def evaluate(variables: Variables) -> Metrics:
        nonlocal evaluating
        evaluating = True
        step = book.terminal.done
        with book.paused():
            try:
                metrics = evaluator.evaluate(variables, partial(awaited, interruption, feed), step)
            except Stopped:
                evaluating = False  # at the same batch on all processes
                raise
        evaluating = False
        if lines.is_best(metrics, experiment.keep, measured):
            evaluator.best = evaluator.newest
        for line in lines.evaluation_lines(metrics, experiment.keep, measured):
            book.say(f"step {step:,}: {line}")
        measured.append({"step": step, **metrics})
        return metrics

    def save(progress: Progress, metrics: Metrics | None) -> None:
        if evaluating and processes.several():
            return  # it failed here, while the others wait in it: no save that takes all can succeed
        workdir.check_there()
        with book.paused():
            history, interval = list(progress.history), list(progress.interval)
            mark = book.marked(int(progress.state.step))
            notes = {"history": history, "interval": interval, "rows": mark.rows, "log": mark.checksum}
            checkpoints.save(mark.step, progress.state, notes, metrics)
            if book.writes:
                workdir.note_saved(mark.step)
        check_measured(experiment.keep.by, metrics)

    def stop(history: Sequence[Metrics]) -> bool:
        with raised_as(ConfigError):
            return experiment.stop(history)

    def write(step: int, metrics: Metrics) -> None:
        workdir.check_there()
        if not of_evaluation(metrics):
            skipped.interval()
        book.write(step, metrics if of_evaluation(metrics) else {**scalars_at(experiment, step), **metrics})

    return loop.Hooks(write, evaluate, save, stop, interruption.requested, book.stepped)


def of_evaluation(metrics: Metrics) -> bool:
    """Whether the metrics are those of evaluations, whose names have a slash, and not those of training steps."""
    return all("/" in name for name in metrics)


def scalars_at(experiment: Experiment, step: int) -> dict[str, float]:
    """The scalars of the last step of these, the one before which `step - 1` were done."""
    return {name: float(np.asarray(value_of(step - 1))) for name, value_of in experiment.scalars.items()}


def finished(experiment: Experiment, progress: Progress) -> bool:
    """Whether the last step is done and evaluated."""
    last = progress.history[-1]["step"] if progress.history else None
    return int(progress.state.step) == experiment.steps and (not experiment.evaluations or last == experiment.steps)


def check_measured(by: str | None, metrics: Metrics | None) -> None:
    """Raises ConfigError if there are metrics, but not the one by which the best checkpoint is chosen."""
    if metrics is not None and by is not None and by not in metrics:
        names = ", ".join(name for name in metrics if name.count("/") < 2)
        raise ConfigError(f"keep.by is {by!r}; the evaluations give: {names}")


def draw_report(experiment: Experiment, folder: Path, shown: Results, rows: Sequence[Mapping]) -> Path:
    """Writes the pictures of the run into the folder; returns it."""
    draw_curves(rows, folder, experiment.keep.by)
    draw_evaluations(experiment.evaluations, shown, folder)
    return folder

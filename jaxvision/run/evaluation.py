"""Evaluation: every example exactly once, its row kept."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from jaxvision.draw.curves import curves
from jaxvision.draw.figure import save
from jaxvision.errors import ConfigError, DataError, NoExamples, amount, naming, raised_as, reading
from jaxvision.experiment import Evaluation, Experiment
from jaxvision.run import devices, restore
from jaxvision.run.checkpoint import Which
from jaxvision.run.log import JsonLines
from jaxvision.run.prediction import Model
from jaxvision.train import Weights
from jaxvision.types import Batch, Metric, Prediction, Rows, Stream, Task, Variables

BATCHES_UNDER_WAY = 3


class Evaluated(NamedTuple):
    """The metrics of an evaluation and the rows that they were computed from."""

    metrics: dict[str, float]
    rows: Mapping[str, np.ndarray]
    """Columns over the valid examples in the order of `index`, which is one of them."""


Observe = Callable[[Variables, Batch], Rows]


def make_observe(
    predict: Callable[[Variables, Batch], Prediction], metric: Metric, everywhere: Sharding | None = None
) -> Observe:
    """The jitted function from variables and a batch to the rows of its examples.

    `everywhere` is a sharding that copies an array to all devices: so every one of several processes gets all rows.
    """

    def observe(variables: Variables, batch: Batch) -> Rows:
        rows = metric.observe(predict(variables, batch.replace(target=None)), batch)
        return {**rows, "index": batch.index, "valid": batch.valid}

    return jax.jit(observe, out_shardings=everywhere)


def measure(observe: Observe, variables: Variables, batches: Iterable[Batch], metric: Metric) -> Evaluated:
    """The metrics over all batches.

    Args:
      observe: of `make_observe`; kept by the caller, so that it compiles once.
      variables: to predict with.
      batches: the whole evaluation data, on the device.
      metric: that `observe` was made of.

    Raises:
      NoExamples: if there is no valid example.
    """
    rows = table(observed(observe, variables, batches, metric.condense))
    if not len(rows["index"]):
        raise NoExamples("there is no valid example to evaluate on")
    return Evaluated({name: float(value) for name, value in metric.compute(rows).items()}, rows)


Condense = Callable[[Rows], Mapping[str, np.ndarray]]


def observed(
    observe: Observe, variables: Variables, batches: Iterable[Batch], condense: Condense | None = None
) -> Iterator[Mapping[str, np.ndarray]]:
    """The rows of the valid examples of each batch that has any, fetched and condensed while the next ones are under way."""
    waiting: deque[Rows] = deque()
    for batch in batches:
        waiting.append(observe(variables, batch))
        if len(waiting) == BATCHES_UNDER_WAY:
            yield from _fetched(waiting.popleft(), condense)
    while waiting:
        yield from _fetched(waiting.popleft(), condense)


def _fetched(rows: Rows, condense: Condense | None) -> Iterator[Mapping[str, np.ndarray]]:
    """The rows of the valid examples of one batch on the host, condensed; nothing where none is valid."""
    fetched = dict(jax.device_get(rows))
    valid = fetched.pop("valid")
    if not valid.any():
        return
    kept = jax.tree.map(lambda column: column[valid], fetched)
    yield kept if condense is None else _condensed(kept, condense)


def _condensed(rows: Rows, condense: Condense) -> Mapping[str, np.ndarray]:
    """What `condense` makes of the rows. Raises ValueError where that is not a row an example, or has no index."""
    columns = condense(rows)
    wrong = {name: len(column) for name, column in columns.items() if len(column) != len(rows["index"])}
    if wrong or "index" not in columns:
        name, count = next(iter(wrong.items()), ("index", 0))
        raise ValueError(f"condense gave {count} rows of {name!r} for {amount(len(rows['index']), 'example')}")
    return columns


def table(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of all batches as one table, ordered by the index of the example."""
    listed = list(parts)
    if not listed:
        return {"index": np.zeros(0, np.int32)}
    order = np.argsort(np.concatenate([part["index"] for part in listed]), kind="stable")
    return {name: np.concatenate([part[name] for part in listed])[order] for name in listed[0]}


class Kept(NamedTuple):
    """The evaluations of one step."""

    step: int = -1
    results: Mapping[str, Evaluated] = MappingProxyType({})


class Evaluator:
    """Runs the evaluations of an experiment, each compiled once, and keeps rows for the report."""

    def __init__(self, task: Task, evaluations: Mapping[str, Evaluation], everywhere: Sharding | None = None):
        self.evaluations = evaluations
        self.observers = {
            name: make_observe(task.predict, each.metric, everywhere) for name, each in evaluations.items()
        }
        self.newest = Kept()
        self.best = Kept()
        """The evaluations of the best step so far, as whoever calls `evaluate` says."""

    def evaluate(
        self, variables: Variables, feed: Callable[[Stream], Iterable[Batch]], step: int = -1
    ) -> dict[str, float]:
        """The metrics of all evaluations, each name led by its evaluation's: `test/accuracy`.

        Args:
          variables: to predict with.
          feed: the batches of a stream, from first to last, on the devices.
          step: that the variables are of.
        """
        metrics, found = {}, {}
        for name, each in self.evaluations.items():
            try:
                found[name] = measure(self.observers[name], variables, feed(each.stream), each.metric)
            except NoExamples as error:
                raise NoExamples(f"evaluation {name!r}: {error}") from None
            metrics.update({f"{name}/{key}": value for key, value in found[name].metrics.items()})
        self.newest = Kept(step, found)
        return metrics


class Results(NamedTuple):
    """What `evaluate` found."""

    step: int | None
    """Step of the checkpoint; None for weights of no run."""
    weights: Weights | None
    """Whether the variables are the averaged or the current ones; None for weights of no run."""
    evaluations: Mapping[str, Evaluated]


def evaluate(
    source: str | Path | Model,
    checkpoint: Which | None = None,
    *,
    weights: Weights | None = None,
    names: Sequence[str] = (),
    evaluations: Mapping[str, Evaluation] | None = None,
    experiment: Experiment | None = None,
    overrides: Mapping[str, str] = MappingProxyType({}),
    fsdp: int = 1,
    report: Path | None = None,
    change: Callable[[Mapping[str, Evaluation]], Mapping[str, Evaluation]] = lambda chosen: chosen,
) -> Results:
    """The metrics of a run or a model, every example seen exactly once, and their rows.

    Args:
      source: the folder of a run, or a model of `load`; of the latter, only `names` and `evaluations` say more.
      checkpoint: `"best"`, `"latest"`, a step, or None: the best if the experiment keeps one, else the latest.
      weights: `"averaged"`, `"current"`, or None: averaged where the run keeps such.
      names: of the evaluations; none for all.
      evaluations: in place of those of the run, such as published weights need, which have none.
      experiment: of a workdir that holds no experiment file.
      overrides: dotted names of fields of the run's config to texts: other data to evaluate on, say.
      fsdp: split parameters over this number of devices.
      report: a folder for the pictures of the evaluations and the curves of the run, made if there is none.
      change: makes others of the chosen evaluations: with metrics by group, say. Other streams are to be of the same size.

    Raises:
      WorkdirError: if the folder holds no run.
      ConfigError: for a name that is no evaluation, overrides that are not allowed, averaged weights of a run without.
      CheckpointError: if there is no such checkpoint, or it can't be read.
      DataError: if the data can't be opened or read, or there is no evaluation.
    """
    if isinstance(source, Model):
        known = source.evaluations if evaluations is None else evaluations
        restore.check_evaluations("the model", known, names)
        chosen = change(_chosen(known, names, "the model"))
        _check_divisible(chosen, source.mesh)
        measured = _measured(source.task, source.variables, chosen, source.mesh)
        results = Results(source.step, source.weights, measured)
        draw_evaluations(chosen, results, report)
        return results
    found = opened(
        source,
        checkpoint,
        weights=weights,
        names=names,
        evaluations=evaluations,
        experiment=experiment,
        overrides=overrides,
        fsdp=fsdp,
        change=change,
    )
    measured = _measured(found.task, found.variables, found.evaluations, found.mesh)
    results = Results(found.step, found.weights, measured)
    draw_evaluations(found.evaluations, results, report)
    if report is not None:
        draw_curves(JsonLines(found.run.workdir.metrics).read(), report, found.run.experiment.keep.by)
    return results


class Opened(NamedTuple):
    """A checkpoint of a run on the devices, and the evaluations of it that were asked for."""

    run: restore.Restored
    step: int
    weights: Weights
    task: Task
    variables: Variables
    mesh: Mesh
    evaluations: Mapping[str, Evaluation]

    def measuring(self, name: str) -> Callable[[Stream], Evaluated]:
        """A function from a stream to its metrics: those of the evaluation of this name, compiled once for all streams."""
        metric = self.evaluations[name].metric
        observe = make_observe(self.task.predict, metric, devices.replicated(self.mesh))
        return lambda stream: measure(observe, self.variables, _fed(stream, self.mesh), metric)


def opened(
    source: str | Path,
    checkpoint: Which | None = None,
    *,
    weights: Weights | None = None,
    names: Sequence[str] = (),
    evaluations: Mapping[str, Evaluation] | None = None,
    experiment: Experiment | None = None,
    overrides: Mapping[str, str] = MappingProxyType({}),
    fsdp: int = 1,
    change: Callable[[Mapping[str, Evaluation]], Mapping[str, Evaluation]] = lambda chosen: chosen,
) -> Opened:
    """A run, to evaluate; arguments and errors are those of `evaluate`."""
    found = restore.restore(source, overrides, experiment)
    known = found.experiment.evaluations if evaluations is None else evaluations
    restore.check_evaluations(str(found.workdir.path), known, names)
    chosen = change(_chosen(known, names, f"the experiment of {source}"))
    with raised_as(ConfigError):
        mesh = devices.device_mesh(fsdp)
    _check_divisible(chosen, mesh)
    if evaluations is None:
        restore.warn_of_other_data(found, [f"evaluation {name}" for name in chosen])
    saved = restore.load_checkpoint(found, checkpoint, mesh)
    which, variables = restore.chosen_weights(found, saved.state, weights)
    return Opened(found, saved.step, which, devices.task_on(mesh, found.experiment), variables, mesh, chosen)


def draw_curves(rows: Sequence[Mapping], folder: Path, by: str | None) -> None:
    """Writes the curves of the rows of a log into the folder, which is made if there is none; nothing without a row."""
    if rows:
        save(curves(rows, by), folder / "curves.png")


def draw_evaluations(evaluations: Mapping[str, Evaluation], shown: Results, folder: Path | None) -> None:
    """Writes the pictures of these evaluations into the folder, which is made if there is none; None: draws nothing."""
    if folder is None:
        return
    folder.mkdir(exist_ok=True)
    of = "" if shown.step is None else f"step {shown.step:,}, {shown.weights} weights"
    for name, evaluation in evaluations.items():
        if evaluation.report is not None:
            evaluation.report(folder, name, shown.evaluations[name].rows, evaluation.stream, of)


def _chosen(known: Mapping[str, Evaluation], names: Sequence[str], what: str) -> dict[str, Evaluation]:
    chosen = {name: known[name] for name in names or known}
    if not chosen:
        raise DataError(f"{what} has no evaluation")
    return chosen


def _check_divisible(evaluations: Mapping[str, Evaluation], mesh: Mesh) -> None:
    with raised_as(DataError):
        for name, each in evaluations.items():
            with naming(f"evaluation {name}"):
                devices.check_divisible(each.stream.spec, mesh)


def _measured(
    task: Task, variables: Variables, evaluations: Mapping[str, Evaluation], mesh: Mesh
) -> Mapping[str, Evaluated]:
    evaluator = Evaluator(task, evaluations, devices.replicated(mesh))
    evaluator.evaluate(variables, lambda stream: _fed(stream, mesh))
    return evaluator.newest.results


def _fed(stream: Stream, mesh: Mesh) -> Iterator[Batch]:
    """The batches of the stream, from first to last, on the devices."""
    return devices.ahead(reading(stream.batches(0)), devices.placer(mesh))

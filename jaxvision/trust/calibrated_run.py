"""Calibrated runs: a workdir made from another one, with calibrated scores, that all commands read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvision.errors import ConfigError, DataError, raised_as
from jaxvision.experiment import Evaluation, Experiment
from jaxvision.metrics.calibration_error import classifier_calibration, detector_calibration
from jaxvision.metrics.together import together
from jaxvision.run import devices, restore
from jaxvision.run.checkpoint import Which
from jaxvision.run.evaluation import evaluate
from jaxvision.run.records import SETS
from jaxvision.run.restore import Restored
from jaxvision.train import TrainState, Weights
from jaxvision.trust import derived_run, prediction_sets
from jaxvision.trust.calibrated import COLLECTION, Numbers, apply, calibrated
from jaxvision.trust.conformal import Conformal, check_coverage, conformal
from jaxvision.trust.fitted_on import FittedOn, left_out
from jaxvision.trust.fitting import Method, check_method, fit
from jaxvision.trust.prediction_sets import with_sets
from jaxvision.types import About, ClassScores, Detections, Metric

ORIGINAL = "uncalibrated"
"""Name of the module that keeps the experiment file of the other run."""


class Fitting(NamedTuple):
    """How to calibrate."""

    evaluation: str
    """Whose data to fit on."""
    method: Method
    per_class: bool = False
    fraction: float = 1.0
    seed: int = 0
    coverage: float | None = None
    """Wanted of conformal sets, which a classifier may have."""


class Calibrated(NamedTuple):
    """A calibration of a run."""

    numbers: Numbers
    fitted_on: FittedOn
    examples: int
    """How many it was fitted on."""
    metric: Metric
    before: Mapping[str, np.ndarray]
    """Rows of the metric that it was not fitted on; none where it was fitted on all."""
    after: Mapping[str, np.ndarray]
    """Those rows with calibrated scores."""
    step: int
    weights: Weights
    conformal: Conformal | None
    """Threshold of the scores as they were, on the examples of the fit.

    Calibrated scores of these are not exchangeable with those of other examples any more.
    """


def calibrated_experiment(
    experiment: Experiment, numbers: Numbers, fitted_on: FittedOn, metric: Metric, sets: bool = False
) -> Experiment:
    """The experiment with its task calibrated; evaluations have the metrics of calibration, too.

    What the calibration was fitted on is left out of every evaluation (`fitted_on.left_out`). With `sets` predictions of a
    classifier have conformal sets, those of the scores as they were.
    """
    task, output = (with_sets(experiment.task), SETS) if sets else (experiment.task, None)
    evaluations = {
        name: each._replace(
            stream=left_out(each.stream, fitted_on),
            metric=together(each.metric, metric),
            output=each.output or output,
        )
        for name, each in experiment.evaluations.items()
    }
    return experiment._replace(task=calibrated(task, numbers), evaluations=evaluations)


def calibrate(
    folder: str | Path,
    fitting: Fitting,
    output: Path,
    checkpoint: Which | None = None,
    *,
    weights: Weights | None = None,
    overrides: Mapping[str, str] = MappingProxyType({}),
    fsdp: int = 1,
    command: Sequence[str] = (),
) -> Calibrated:
    """Fits a calibration to rows of one evaluation of a run, and writes a workdir of the calibrated run.

    Args:
      folder: of the run, which is left as it is.
      fitting: how.
      output: folder of the new run; not there, or empty.
      checkpoint: as for `run.evaluate`; it is the only one of the new run.
      weights: as for `run.evaluate`; in the new run they are the current and the averaged ones.
      overrides: of the run's config, for the data to fit on; the new run has the config as it was.
      fsdp: split parameters over this number of devices.
      command: the command line, which the new run keeps.

    Raises:
      WorkdirError: if the folder holds no run, or one without an experiment file; if the output is there already.
      ConfigError: for an evaluation that is not there, a method that is none, a run that is calibrated.
      DataError: if the data can't be read, or are those that the run was trained on.
      CheckpointError: if the checkpoint can't be read or written.
    """
    derived_run.check_new(output, "calibrated")
    run = restore.restore(folder, overrides)
    restore.check_evaluations(str(run.workdir.path), run.experiment.evaluations, [fitting.evaluation])
    about = _held_out(run, fitting.evaluation)
    with raised_as(ConfigError):
        mesh = devices.device_mesh(fsdp)
    detector = _detects(run, fitting.evaluation, mesh)
    check_method(fitting.method, fitting.per_class, detector)
    if fitting.coverage is not None:
        check_coverage(fitting.coverage, detector)
    metric = (detector_calibration if detector else classifier_calibration)(about.classes)
    fitted_on = FittedOn(about.fingerprint, fitting.evaluation, fitting.fraction, fitting.seed)
    chosen = fitted_on.rows(about.examples)
    stream = run.experiment.evaluations[fitting.evaluation].stream
    found = evaluate(
        folder,
        checkpoint,
        weights=weights,
        evaluations={fitting.evaluation: Evaluation(stream, metric)},
        overrides=overrides,
        fsdp=fsdp,
    )
    rows = found.evaluations[fitting.evaluation].rows
    fitted = np.isin(rows["index"], chosen)
    held, rest = ({name: column[of] for name, column in rows.items()} for of in (fitted, ~fitted))
    numbers = fit(held, fitting.method, len(about.classes), per_class=fitting.per_class)
    made = Calibrated(
        numbers,
        fitted_on,
        int(fitted.sum()),
        metric,
        rest,
        rows_after(numbers, rest),
        cast(int, found.step),
        cast(Weights, found.weights),
        None if fitting.coverage is None else conformal(held, fitting.coverage),
    )
    _write(restore.restore(folder), made, output, about.classes, detector, mesh, command)
    return made


def _held_out(run: Restored, name: str) -> About:
    """What is known of the data; raises DataError if they are those that the run was trained on."""
    with raised_as(DataError):
        about = run.experiment.evaluations[name].stream.about()
    if about.fingerprint == run.fingerprints.get("train"):
        raise DataError(
            f"the data of evaluation {name!r} are those that {run.workdir.path} was trained on, where it is surer than "
            "elsewhere: calibrate it on others (--data=EVALUATION, or --config.FIELD=VALUE)"
        )
    return about


def _detects(run: Restored, name: str, mesh: Mesh) -> bool:
    """Whether the run is of a detector, else of a classifier. Raises ConfigError for another, and for a calibrated one."""
    with raised_as(ConfigError):
        like = devices.state_on(mesh, run.experiment)
    if COLLECTION in like.collections:
        raise ConfigError(f"{run.workdir.path} is calibrated already: calibrate the run that it was made from")
    spec = devices.batch_on(mesh, run.experiment.evaluations[name].stream.spec.replace(target=None))
    prediction = jax.eval_shape(devices.task_on(mesh, run.experiment).predict, like.averaged, spec)
    if not isinstance(prediction, ClassScores | Detections):
        raise ConfigError(
            f"{run.workdir.path} predicts {type(prediction).__name__}; what can be calibrated: ClassScores, Detections"
        )
    return isinstance(prediction, Detections)


def rows_after(numbers: Numbers, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of a metric of calibration as they are of the calibrated task, but for the order of detections."""
    if "scores" not in rows:
        logits = apply(numbers, ClassScores(jnp.asarray(rows["log_probabilities"]))).logits
        return {**rows, "log_probabilities": np.asarray(jax.nn.log_softmax(logits))}
    boxes, labels, scores, valid = (jnp.asarray(rows[name]) for name in ("boxes", "labels", "scores", "detected"))
    found = Detections(boxes, labels, scores, valid)
    after = apply(numbers, found)
    columns = {"boxes": after.boxes, "labels": after.labels, "scores": after.scores, "detected": after.valid}
    return {**rows, **{name: np.asarray(each) for name, each in columns.items()}}


def _write(
    run: Restored,
    made: Calibrated,
    output: Path,
    classes: Sequence[str],
    detector: bool,
    mesh: Mesh,
    command: Sequence[str],
) -> None:
    """The new workdir, whole or not at all."""
    saved = restore.load_checkpoint(run, made.step, mesh)
    _, variables = restore.chosen_weights(run, saved.state, made.weights)
    state = _with_numbers(saved.state, variables, made, mesh)
    text = lambda original: experiment_text(made, classes, detector, original)
    derived_run.write(run, saved, output, ORIGINAL, text, lambda experiment: state, command)


def _with_numbers(state: TrainState, variables: Mapping, made: Calibrated, mesh: Mesh) -> TrainState:
    """The state with these variables, averaged ones too, and the numbers as collections."""
    collections = {name: value for name, value in variables.items() if name != "params"}
    ema = None if state.ema is None else {name: variables[name] for name in state.ema}
    more: dict = {COLLECTION: dict(made.numbers)}
    if made.conformal is not None:
        more[prediction_sets.COLLECTION] = {"threshold": np.float32(made.conformal.threshold)}
    placed, key = jax.device_put((more, state.key), devices.replicated(mesh))
    return state.replace(params=variables["params"], collections={**collections, **placed}, ema=ema, key=key)


def experiment_text(made: Calibrated, classes: Sequence[str], detector: bool, original: str = ORIGINAL) -> str:
    """The experiment file of a calibrated run."""
    groups, *knots = np.shape(next(iter(made.numbers.values())))
    numbers = f"steps({knots[0]}, {groups})" if knots else f"scaling({groups})"
    metric = "detector_calibration" if detector else "classifier_calibration"
    sets = "" if made.conformal is None else ", sets=True"
    return f'''"""The experiment of code/{original}.py with calibrated scores, made by `python -m jaxvision.calibrate`.

The numbers of the calibration are in the checkpoint, in the collection `{COLLECTION}`.
"""

import {original}

from jaxvision.metrics.calibration_error import {metric}
from jaxvision.trust.calibrated import {numbers.partition("(")[0]}
from jaxvision.trust.calibrated_run import calibrated_experiment
from jaxvision.trust.fitted_on import FittedOn

CLASSES = {tuple(classes)!r}
FITTED_ON = {made.fitted_on!r}


def get_config():
    return {original}.get_config()


def build(config):
    return calibrated_experiment({original}.build(config), {numbers}, FITTED_ON, {metric}(CLASSES){sets})
'''

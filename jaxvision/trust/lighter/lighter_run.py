"""Lighter runs: a workdir made from another one by a method, and the metrics of both."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax

from jaxvision import optimize
from jaxvision.errors import write_atomically
from jaxvision.experiment import Experiment
from jaxvision.run import devices, restore
from jaxvision.run.checkpoint import Saved, Which
from jaxvision.run.evaluation import evaluate
from jaxvision.train import TrainState, Weights
from jaxvision.trust import derived_run
from jaxvision.trust.lighter import methods
from jaxvision.trust.lighter.method import Given, Lighter
from jaxvision.types import Variables

ORIGINAL = "heavier"
"""Name of the module that keeps the experiment file of the other run."""


class Lightened(NamedTuple):
    """A run that was made lighter."""

    made: Lighter
    step: int
    weights: Weights
    before: Mapping[str, Mapping[str, float]]
    """Metrics of the run as it was, by evaluation."""
    after: Mapping[str, Mapping[str, float]]


def lighten(
    folder: str | Path,
    method: str,
    output: Path,
    options: Mapping[str, object] = MappingProxyType({}),
    checkpoint: Which | None = None,
    *,
    weights: Weights | None = None,
    evaluations: Sequence[str] = (),
    command: Sequence[str] = (),
) -> Lightened:
    """Writes a workdir of a lighter run, and evaluates both.

    Args:
      folder: of the run, which is left as it is.
      method: of `METHODS`.
      output: folder of the new run; not there, or empty.
      options: of the method.
      checkpoint: as for `run.evaluate`; it is the only one of the new run.
      weights: as for `run.evaluate`; in the new run they are the current and the averaged ones.
      evaluations: whose metrics to compare; none for all.
      command: the command line, which the new run keeps.

    Raises:
      WorkdirError: if the folder holds no run, or one without an experiment file; if the output is there already.
      ConfigError: for a method, an option or an evaluation that is not there; for a run that the method can't be used on.
      DataError: if the data can't be read.
      CheckpointError: if the checkpoint can't be read or written.
    """
    methods.check(method, options)
    derived_run.check_new(output, "lighter")
    run, mesh = restore.restore(folder), devices.device_mesh(1)
    restore.check_evaluations(str(run.workdir.path), run.experiment.evaluations, evaluations)
    saved = restore.load_checkpoint(run, checkpoint, mesh)
    which, variables = restore.chosen_weights(run, saved.state, weights)
    made = methods.METHODS[method](Given(run, saved, optimize.whole(variables), which, mesh), **options)
    derived_run.write(
        run,
        saved,
        output,
        ORIGINAL,
        lambda original: experiment_text(made, method, original),
        lambda experiment: state_of(experiment, made.variables, saved),
        command,
    )
    before, after = {}, {}
    if run.experiment.evaluations:
        before = _metrics(folder, saved.step, which, evaluations)
        after = _metrics(output, saved.step, None, evaluations)
    done = Lightened(made, saved.step, which, before, after)
    _write_report(output, method, done)
    return done


def _metrics(folder: str | Path, step: int, weights: Weights | None, names: Sequence[str]) -> dict[str, dict]:
    found = evaluate(folder, step, weights=weights, names=names)
    return {name: each.metrics for name, each in found.evaluations.items()}


def state_of(experiment: Experiment, variables: Variables, saved: Saved) -> TrainState:
    """The state of a new run at the step of a checkpoint: these variables, averaged ones too, the optimizer as it begins."""
    variables = optimize.split(variables, experiment.frozen)
    params = variables["params"]
    collections = {name: value for name, value in variables.items() if name != "params"}
    state = TrainState(
        saved.state.step,
        params,
        collections,
        jax.jit(experiment.optimizer.init)(params),
        saved.state.key,
        experiment.average.init(variables) if experiment.average else None,
    )
    return jax.device_put(state, devices.replicated(devices.device_mesh(1)))


def experiment_text(made: Lighter, method: str, original: str = ORIGINAL) -> str:
    """The experiment file of a lighter run."""
    imports = "\n".join(made.imports)
    return f'''"""The experiment of code/{original}.py, made lighter by `python -m jaxvision.lighten --method={method}`."""

import {original}

{imports}


def get_config():
    return {original}.get_config()


def build(config):
    experiment = {original}.build(config)
    return {made.experiment}
'''


def _write_report(output: Path, method: str, done: Lightened) -> None:
    """Writes what was counted and measured, `report/lighter.json`."""
    path = output / "report" / "lighter.json"
    path.parent.mkdir(exist_ok=True)
    content = {"method": method, "step": done.step, "weights": done.weights, "notes": list(done.made.notes)}
    content |= {"figures": dict(done.made.figures), "before": done.before, "after": done.after}
    write_atomically(path, json.dumps(content, indent=1) + "\n")

"""A run from its workdir alone: its experiment, its classes, a checkpoint of it. Nothing there is changed."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision.errors import ConfigError, DataError, UserError, WorkdirError, raised_as
from jaxvision.experiment import Evaluation, Experiment, streams
from jaxvision.run import devices, first_use, reader
from jaxvision.run.checkpoint import Saved, Which
from jaxvision.run.config import as_json, configure, here, load, restored
from jaxvision.run.damage import json_object
from jaxvision.run.devices import state_on
from jaxvision.run.remarks import remarks
from jaxvision.run.workdir import Recipe, Workdir
from jaxvision.train import TrainState, Weights
from jaxvision.types import Variables

logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A run as its workdir has it."""

    workdir: Workdir
    experiment: Experiment
    fingerprints: Mapping[str, str]
    """Fingerprints of the data that it was trained and evaluated on, by the name of the stream."""
    classes: Mapping[str, tuple[str, ...]]
    """By the name of the stream."""


def restore(
    folder: str | Path,
    overrides: Mapping[str, str] = MappingProxyType({}),
    experiment: Experiment | None = None,
) -> Restored:
    """The run in a workdir, from its `experiment.py` and `config.json`; opens no data.

    Args:
      folder: the workdir.
      overrides: of its config, as for `config.configure`.
      experiment: as it was trained, for a workdir that holds no file of it; the overrides are then left aside.

    Raises:
      WorkdirError: if the folder holds no run, or one of its files can't be read.
      ConfigError: if the two don't fit, for overrides that are not allowed, or if the experiment can't be built.
    """
    workdir = Workdir(folder)
    if not workdir.path.is_dir():
        raise WorkdirError(f"there is no workdir {workdir.path}")
    if experiment is None:
        experiment = _built(workdir, overrides)
    else:
        workdir.check_unchanged(code=False)
    if not workdir.classes.exists():
        logger.warning("warning: %s is gone: the classes are those of the data", workdir.classes)
    classes = json_object(workdir.classes) if workdir.classes.exists() else {}
    named = {name: tuple(names) for name, names in classes.items()}
    return Restored(workdir, experiment, workdir.fingerprints(), named)


def _built(workdir: Workdir, overrides: Mapping[str, str]) -> Experiment:
    """The experiment as its file and config in the workdir have it."""
    missing = [path.name for path in (workdir.source, workdir.config) if not path.is_file()]
    if missing:
        raise WorkdirError(
            f"{workdir.path} holds no run: it has no {' and no '.join(missing)} (a run of an experiment that was built "
            "without a file is opened with that experiment)"
        )
    workdir.check_unchanged()
    if first_use.note(workdir.source):
        logger.warning(
            "%s is run as a program, and was not trained here: is it from someone you trust?", workdir.source
        )
    module, config = _configured(workdir, overrides)
    try:
        return module.build(here(config))
    except (ValueError, OSError) as error:
        raise ConfigError(f"the experiment of {workdir.path} can't be built: {error}") from error


def _configured(workdir: Workdir, overrides: Mapping[str, str]) -> tuple[ModuleType, ConfigDict]:
    """The experiment file of a workdir, and the config of the run with these fields changed, precision resolved."""
    module = _loaded(workdir.source)
    try:
        config = restored(module.get_config(), json_object(workdir.config))
    except ConfigError as error:
        raise ConfigError(f"{workdir.config} does not fit the experiment.py beside it: {error}") from None
    config = configure(config, overrides)
    with raised_as(ConfigError):
        devices.resolve_precision(config)
    return module, config


def recipe(
    folder: str | Path, overrides: Mapping[str, str] = MappingProxyType({}), command: Sequence[str] = ()
) -> Recipe:
    """What the run in a workdir was built from, to run it again.

    Args:
      folder: the workdir.
      overrides: of its config, as for `config.configure`.
      command: the command line that runs it again.

    Raises:
      WorkdirError, ConfigError: as `restore`.
    """
    workdir = Workdir(folder)
    _, config = _configured(workdir, overrides)
    return Recipe(workdir.source, as_json(config), command)


def _loaded(source: Path) -> ModuleType:
    """The experiment file of a workdir, which ran when the run began."""
    try:
        return load(source)
    except UserError:
        raise
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise ConfigError(
            f"{source}, or a module of it in code/, can't be loaded: {type(error).__name__}: {text}"
        ) from error


def load_checkpoint(run: Restored, which: Which | None, mesh: Mesh) -> Saved:
    """A checkpoint of the run, on all devices.

    Args:
      run: as restored.
      which: `"best"`, `"latest"`, a step, or None: the best if the run has one, else the latest.
      mesh: of the devices.

    Raises:
      CheckpointError: if there is none such, or it doesn't fit the experiment.
    """
    keep = run.experiment.keep
    with raised_as(ConfigError):
        like = state_on(mesh, run.experiment)
    return reader.load_only(run.workdir.checkpoints, which, keep, like)


def chosen_weights(run: Restored, state: TrainState, weights: Weights | None) -> tuple[Weights, Variables]:
    """The averaged variables of a checkpoint or the current ones, and which of them; None: averaged where there are some.

    Raises:
      ConfigError: for averaged ones of a run that keeps none.
    """
    if weights == "averaged" and state.ema is None:
        raise ConfigError(f"{run.workdir.path} keeps no averaged weights; there are: current")
    if weights == "current" or state.ema is None:
        return "current", state.current
    return "averaged", state.averaged


def check_evaluations(what: str, known: Mapping[str, Evaluation], names: Iterable[str]) -> None:
    """Raises ConfigError for a name that is no evaluation of the run or model, which the message calls `what`."""
    for name in names:
        if name not in known:
            raise ConfigError(f"{what} has no evaluation {name!r}; there are: {', '.join(known) or 'none'}")


def warn_of_other_data(run: Restored, names: Iterable[str]) -> None:
    """Opens the data of these streams; logs remarks on them, and a warning for those that are not the data of the run.

    Raises:
      DataError: if they can't be opened.
    """
    for name in names:
        with raised_as(DataError):
            about = streams(run.experiment)[name].about()
        if run.fingerprints.get(name) not in (None, about.fingerprint):
            logger.warning("warning: the data of %r are not those that %s was made with", name, run.workdir.path)
        if run.classes.get(name) not in (None, about.classes):
            logger.warning(
                "warning: the classes of %r are now %s; they were %s", name, about.classes, run.classes[name]
            )
        for line in remarks({name: about}):
            logger.warning("%s", line)


def class_names(run: Restored, name: str) -> tuple[str, ...]:
    """The classes of a stream: as the workdir has them, or else from the data.

    Raises:
      DataError: if the data can't be opened.
    """
    if name in run.classes:
        return run.classes[name]
    with raised_as(DataError):
        return streams(run.experiment)[name].about().classes

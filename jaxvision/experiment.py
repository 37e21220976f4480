"""An experiment is a file of plain calls: `get_config()` is its data, `build(config)` its wiring."""

import ast
import contextlib
import difflib
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from jaxvision import checkpoint, optimize, parallel
from jaxvision.checkpoint import Keep
from jaxvision.gradient import Gradient, mean_gradient
from jaxvision.train import Average, Every, Figures, NonFinite, TrainState, TrainStep, init_state, make_train_step
from jaxvision.types import About, Augment, Metric, Rows, Stream, Task, Variables

Report = Callable[[Path, str, Rows, Stream], None]
"""Draws an evaluation's pictures into a folder: `(folder, name, rows, stream)`."""


class Evaluation(NamedTuple):
    """Data to evaluate on, what to measure, and what to draw of it at the end."""

    stream: Stream
    metric: Metric
    report: Report | None = None


class Experiment(NamedTuple):
    """All that a run needs; every field a value or a pure function."""

    task: Task
    optimizer: optax.GradientTransformation
    steps: int
    train: Stream
    augment: Augment | None = None
    evaluations: Mapping[str, Evaluation] = MappingProxyType({})
    start: Callable[[Variables], Variables] | None = None
    """Pretrained weights into fresh variables of the same structure; called only where there is no checkpoint."""
    frozen: Sequence[str] = ()
    """Patterns of the names of parameters that are not trained (`optimize.freeze`)."""
    gradient: Gradient = mean_gradient
    average: Average | None = None
    stop: Callable[[Sequence[Figures]], bool] = lambda history: False
    """Early stopping: from the history of evaluations, once there is one, whether to end."""
    seed: int = 0
    every: Every = Every()
    keep: Keep = Keep()
    nonfinite: NonFinite = "stop"


def streams(experiment: Experiment) -> dict[str, Stream]:
    """All streams of an experiment, by the names under which a workdir knows their data."""
    return {"train": experiment.train, **{f"evaluation {n}": each.stream for n, each in experiment.evaluations.items()}}


def task_of(experiment: Experiment) -> Task:
    """The task with the frozen parameters out of the optimizer's way: what training and evaluation run."""
    return optimize.freeze(experiment.task, experiment.frozen)


def train_step_of(experiment: Experiment) -> TrainStep:
    """The training step of an experiment, not jitted."""
    return make_train_step(
        task_of(experiment),
        experiment.optimizer,
        augment=experiment.augment,
        gradient=experiment.gradient,
        average=experiment.average,
        nonfinite=experiment.nonfinite,
    )


def first_state_of(
    experiment: Experiment, start: bool = True, layout: Callable[[PyTree], PyTree] = lambda shapes: None
) -> TrainState:
    """The state before the first step; `start=False` leaves out the pretrained weights, for shapes alone.

    `layout` gives the sharding of each array from the tree of their shapes (`train.init_state`).
    """
    return init_state(
        task_of(experiment),
        experiment.optimizer,
        jax.random.key(experiment.seed),
        experiment.train.spec,
        start=_start_of(experiment) if start else None,
        average=experiment.average,
        layout=layout,
    )


def step_on(mesh: Mesh, experiment: Experiment) -> tuple[TrainStep, TrainState]:
    """The jitted training step over the devices, known to trace, and the shapes and shardings of its state.

    Raises:
      ValueError: for parts of the experiment that don't fit together.
    """
    like = state_on(mesh, experiment)
    step = jax.jit(
        train_step_of(_gathering(mesh, experiment)),
        donate_argnums=0,
        out_shardings=(parallel.layout(mesh, like), parallel.replicated(mesh)),
    )
    step.eval_shape(like, parallel.batch_on(mesh, experiment.train.spec))
    return step, like


def task_on(mesh: Mesh, experiment: Experiment) -> Task:
    """`task_of`, for variables that lie on the devices as `state_on` has it."""
    return task_of(_gathering(mesh, experiment))


def _gathering(mesh: Mesh, experiment: Experiment) -> Experiment:
    return experiment._replace(task=parallel.gathering(experiment.task, mesh))


def state_on(mesh: Mesh, experiment: Experiment) -> TrainState:
    """The shapes of the state, and where its arrays lie on the devices."""
    return parallel.with_layout(mesh, jax.eval_shape(lambda: first_state_of(experiment, start=False)))


def check_names(experiment: Experiment) -> None:
    """Raises ValueError for a name that no evaluation can have."""
    for name in experiment.evaluations:
        if name == "train" or "/" in name:
            raise ValueError(f"an evaluation is named {name!r}; 'train' and names with a '/' are not allowed")


def check_keep(experiment: Experiment) -> None:
    """Raises ValueError for values of `keep` that are not allowed."""
    checkpoint.check(experiment.keep)
    by = experiment.keep.by
    if by is not None and by.partition("/")[0] not in experiment.evaluations:
        raise ValueError(f"keep.by is {by!r}; the evaluations are: {', '.join(experiment.evaluations) or 'none'}")


def check_classes(metric: Metric, about: About) -> None:
    """Raises ValueError if a metric is of more or fewer classes than the data, or of the same in another order."""
    if metric.classes is None:
        return
    told = f"the metric has the classes {_some(metric.classes)}, the data have {_some(about.classes)}"
    if len(metric.classes) != len(about.classes):
        raise ValueError(f"{told}: {len(metric.classes)} and {len(about.classes)}")
    if metric.classes != about.classes and sorted(metric.classes) == sorted(about.classes):
        raise ValueError(f"{told}: in another order")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _start_of(experiment: Experiment) -> Callable[[Variables], Variables] | None:
    """`start`, which sees the variables whole, for variables whose frozen ones are split off."""
    start, frozen = experiment.start, experiment.frozen
    if start is None:
        return None
    return lambda variables: optimize.split(start(optimize.whole(variables)), frozen)


class ConfigError(ValueError):
    """The experiment file or a value given for its config is wrong; one line says which and what is allowed."""


def load(path: str | Path) -> ModuleType:
    """The experiment file as a module with `get_config()` and `build(config)`.

    Raises:
      ConfigError: if there is no such file, or it lacks one of the two functions.
    """
    path = Path(path)
    if not path.is_file():
        near = _nearest(path.name, [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        raise ConfigError(f"no experiment file {path}{near}")
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no Python file: an experiment is a .py file with get_config() and build(config)")
    name = f"experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for name in ("get_config", "build"):
        if not callable(getattr(module, name, None)):
            raise ConfigError(f"{path} has no function {name}(): an experiment file has get_config() and build(config)")
    return module


class _FromSource(importlib.machinery.SourceFileLoader):
    """Neither reads compiled code nor writes any beside the file."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def configure(config: ConfigDict, overrides: Mapping[str, str]) -> ConfigDict:
    """The config with the values given on the command line, locked.

    Args:
      config: of `get_config()`; left as it is.
      overrides: dotted field name to the text given for it.

    Raises:
      ConfigError: for an unknown field (the nearest one is named) or a value of another type.
    """
    config = config.copy_and_resolve_references()
    for field, text in overrides.items():
        *sections, last = field.split(".")
        place = config
        for section in sections:
            place = _section(place, section, field, config)
        if last not in place:
            raise ConfigError(f"config has no field {field!r}{_nearest(field, _fields(config))}")
        default = place[last]
        if isinstance(default, ConfigDict):
            raise ConfigError(f"config.{field} is a section; its fields: {', '.join(_fields(default))}")
        with place.unlocked():
            place[last] = parse_value(field, text, default)
    return config.lock()


def restored(config: ConfigDict, saved: Mapping[str, Any]) -> ConfigDict:
    """The config with the values of `as_json`, locked.

    A list becomes a tuple where the default is one, or None.

    Args:
      config: of `get_config()`; left as it is.
      saved: a value for every field.

    Raises:
      ConfigError: for unknown and missing fields, and a value of another type.
    """
    config = config.copy_and_resolve_references()
    ours, theirs = set(_fields(config)), set(_fields(ConfigDict(saved)))
    wrong = [f"the experiment file has no field {name!r}" for name in sorted(theirs - ours)]
    wrong += [f"there is no value for {name!r}" for name in sorted(ours - theirs)]
    if wrong:
        raise ConfigError("; ".join(wrong))
    _put(config, saved)
    return config.lock()


def _put(config: ConfigDict, saved: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in saved.items():
        default = config[name]
        if isinstance(default, ConfigDict):
            _put(default, value, f"{prefix}{name}.")
            continue
        try:
            with config.unlocked():
                config[name] = _typed(value, default)
        except TypeError as error:
            raise ConfigError(
                f"config.{prefix}{name} is of type {type(default).__name__} (default {default!r}), not {value!r}"
            ) from error


def _typed(value: Any, default: Any) -> Any:
    """A value of JSON, its lists as the default has them."""
    if not isinstance(value, list):
        return value
    kind = list if isinstance(default, list) else tuple
    likes = default if isinstance(default, list | tuple) and default else (kind(),)
    return kind(_typed(each, likes[min(i, len(likes) - 1)]) for i, each in enumerate(value))


def _section(place: ConfigDict, section: str, field: str, config: ConfigDict) -> ConfigDict:
    found = place.get(section)
    if not isinstance(found, ConfigDict):
        raise ConfigError(f"config has no field {field!r}{_nearest(field, _fields(config))}")
    return found


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    names = []
    for name, value in config.items():
        names += _fields(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return names


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(sorted(known))}" if known else ""


def parse_value(field: str, text: str, default: Any) -> Any:
    """The text as a value of the type of `default`.

    Raises:
      ConfigError: if it is none.
    """
    if isinstance(default, str):
        return text
    value = _literal(text)
    if isinstance(default, float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return float(text)
    if isinstance(default, tuple | list) and isinstance(value, tuple | list):
        return type(default)(value)
    if default is None or type(value) is type(default):
        return value
    raise ConfigError(f"config.{field} is of type {type(default).__name__} (default {default!r}), not {text!r}")


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def as_json(config: ConfigDict) -> dict:
    """The config as JSON data.

    Raises:
      ConfigError: if it holds something else than numbers, texts, booleans, None, lists, tuples and sections.
    """
    try:
        return json.loads(json.dumps(config.to_dict()))
    except TypeError as error:
        raise ConfigError(f"the config holds something that is not data: {error}") from error

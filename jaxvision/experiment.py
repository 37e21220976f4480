"""An experiment is a file of plain calls: `get_config()` is its data, `build(config)` its wiring."""

import ast
import contextlib
import difflib
import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from jaxvision.checkpoint import Keep
from jaxvision.gradient import Gradient, mean_gradient
from jaxvision.train import Average, Every, Figures, NonFinite, TrainState, TrainStep, init_state, make_train_step
from jaxvision.types import Augment, Metric, Rows, Stream, Task, Variables

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock on the workdir
    fcntl = None

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
    gradient: Gradient = mean_gradient
    average: Average | None = None
    stop: Callable[[Sequence[Figures]], bool] = lambda history: False
    """Early stopping: from the history of evaluations, once there is one, whether to end."""
    seed: int = 0
    every: Every = Every()
    keep: Keep = Keep()
    nonfinite: NonFinite = "stop"


def train_step_of(experiment: Experiment) -> TrainStep:
    """The training step of an experiment, not jitted."""
    return make_train_step(
        experiment.task,
        experiment.optimizer,
        augment=experiment.augment,
        gradient=experiment.gradient,
        average=experiment.average,
        nonfinite=experiment.nonfinite,
    )


def first_state_of(experiment: Experiment, start: bool = True) -> TrainState:
    """The state before the first step; `start=False` leaves out the pretrained weights, for shapes alone."""
    return init_state(
        experiment.task,
        experiment.optimizer,
        jax.random.key(experiment.seed),
        experiment.train.spec,
        start=experiment.start if start else None,
        average=experiment.average,
    )


class ConfigError(ValueError):
    """The experiment file or a value given for its config is wrong; one line says which and what is allowed."""


class WorkdirError(RuntimeError):
    """The folder of the run can't be used."""


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
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for name in ("get_config", "build"):
        if not callable(getattr(module, name, None)):
            raise ConfigError(f"{path} has no function {name}(): an experiment file has get_config() and build(config)")
    return module


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


class Workdir:
    """The folder of one run, from which alone it can be rebuilt."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.source = self.path / "experiment.py"
        self.data = self.path / "data.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.report = self.path / "report"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and keeps every other process from running in it.

        Raises:
          WorkdirError: if it can't be made or written, or another process holds it.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("w")
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise WorkdirError(f"the workdir {self.path} is in use by another process") from None
            yield

    def open(
        self, config: Mapping, source: Path, data: Mapping[str, str], command: Sequence[str], fork: bool = False
    ) -> None:
        """Writes down what this run is, or finds it there from an earlier start of the same run.

        Args:
          config: as JSON data.
          source: the experiment file.
          data: name of a stream to the fingerprint of its data.
          command: the command line.
          fork: go on from the run in the folder, even if it is another one.

        Raises:
          WorkdirError: if it can't be written, or holds another run and `fork` is not set; nothing is changed then.
        """
        text = source.read_text(encoding="utf-8")
        differences = self.differences(config, source, data) if self.has_run() else []
        if differences and not fork:
            raise WorkdirError(
                f"{self.path} holds another run: {'; '.join(differences)}. Choose another --workdir, or give --fork to go on "
                "from that run's newest checkpoint with this experiment"
            )
        with self._writing():
            if differences:
                self._archive()
            if differences or not self.has_run():
                write_atomically(self.source, text)
                write_atomically(self.data, json.dumps(data, indent=2) + "\n")
                write_atomically(self.path / "versions.json", json.dumps(versions(), indent=2) + "\n")
                write_atomically(self.config, json.dumps(config, indent=2) + "\n")
            with (self.path / "command.txt").open("a", encoding="utf-8") as file:
                file.write(shlex.join(command) + "\n")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkdirError(
                f"can't write the workdir {self.path}: {error.strerror or error} ({error.filename})"
            ) from error

    def has_run(self) -> bool:
        """Whether the folder holds anything of a run that would be lost."""
        return self.metrics.exists() or self.newest_step() > 0

    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        names = [path.name for path in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def differences(self, config: Mapping, source: Path, data: Mapping[str, str]) -> list[str]:
        """What differs between the run in the folder and this one, a text each."""
        ours, theirs = _flat(self._read(self.config)), _flat(config)
        lines = [
            f"config.{name} is {ours.get(name, 'absent')} there and {theirs.get(name, 'absent')} here"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]
        known = self._read(self.data)
        lines += [
            f"the data of {name!r} have changed"
            for name in sorted({*known, *data})
            if known.get(name) != data.get(name)
        ]
        if not self.source.exists() or not same_code(self.source, source):
            lines.append(f"the code of {source} is not that of {self.source}")
        return lines

    def _read(self, path: Path) -> dict:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise WorkdirError(f"{self.path} holds a run, but its {path.name} can't be read: {error}") from error

    def _archive(self) -> None:
        """Keeps a copy of what the forked run was, under the next free number."""
        number = next(n for n in range(1, 10**6) if not (self.path / f"config.{n}.json").exists())
        for path in (self.source, self.data, self.config):
            shutil.copyfile(path, path.with_suffix(f".{number}{path.suffix}"))


def write_atomically(path: Path, text: str) -> None:
    """The file has the whole text or is as it was."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def same_code(a: Path, b: Path) -> bool:
    """Whether two Python files are the same but for comments, layout and docstrings."""
    return _code(a) == _code(b)


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _flat(config: Mapping, prefix: str = "") -> dict[str, str]:
    """Each field of the config, as the JSON text of its value."""
    flat = {}
    for name, value in config.items():
        more = isinstance(value, Mapping)
        flat.update(_flat(value, f"{prefix}{name}.") if more else {prefix + name: json.dumps(value)})
    return flat


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    names = ("jaxvision", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "ml_collections")
    names += ("tensorflow", "tensorflow-cpu", "tensorflow-datasets")
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

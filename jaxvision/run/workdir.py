"""The folder of a run: what it keeps, so that the run can be restored from it alone.

- `metrics.jsonl`: a row every few steps (means since the last one), a row an evaluation; metrics only.
- `timing.jsonl`: seconds since this process started, in all and by part (data, step, evaluation, checkpoint), and the speed
  of training alone, in seconds a step and images a second.
- `checkpoints/`: the latest ones, and the best by a metric of your choice; written in the background.
- `report/`: learning curves, also after an interruption; at the end the pictures of each evaluation, of the checkpoint that
  `predict` takes: confusion matrix, a sample of predictions, mistakes.
- `tensorboard/`: the same metrics, pictures and hyper-parameters, for `tensorboard --logdir=runs`.
- `code/`: modules that the experiment file imports from its own folder.
- `config.json`, `experiment.py`, `data.json`, `classes.json`: what the run is; `data.json` has a fingerprint of the data.
- `provenance.json`, `versions.json`, `git.patch`, `command.txt`, `starts.jsonl`: what made it: devices, drivers, packages,
  commit and uncommitted changes, every start of it.
- `preflight/`, `nonfinite/`, `stacks.txt`, `profile/`: where a preflight, a step that was not finite, one that took too long,
  or `--profile` wrote some.
- `tmp/`: temporary files, where the machine has no folder for them.

A workdir that holds another run (other settings, code or data), or that another process uses, is refused.
"""

import ast
import contextlib
import json
import logging
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxvision.errors import WorkdirError, write_atomically
from jaxvision.machine.folders import local
from jaxvision.run import provenance
from jaxvision.run.own_modules import KEPT, own_modules
from jaxvision.run.provenance import Provenance

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock on the workdir
    fcntl = None


logger = logging.getLogger(__name__)
MOST_DIFFERENCES = 20
"""Differences between two runs that a refusal names."""


class Recipe(NamedTuple):
    """What an experiment was built from: a workdir that keeps it is enough to restore the run."""

    source: Path
    """The experiment file."""
    config: dict[str, Any]
    """Config as JSON data (`config.as_json`)."""
    command: Sequence[str] = ()
    """The command line, if there is one."""


class Workdir:
    """The folder of one run, from which alone it can be restored."""

    def __init__(self, path: str | Path):
        """Names it; raises WorkdirError for an address such as gs://bucket/run, and a name that is no Unicode text."""
        try:
            self.path = local(path)
            str(self.path).encode()
        except UnicodeEncodeError:
            raise WorkdirError(
                f"the workdir can't be used: its name is no text in this locale: {str(path)!r}"
            ) from None
        except ValueError as error:
            raise WorkdirError(f"the workdir can't be used: {error}") from None
        self.config = self.path / "config.json"
        self.source = self.path / "experiment.py"
        self.data = self.path / "data.json"
        self.classes = self.path / "classes.json"
        self.versions = self.path / "versions.json"
        self.provenance = self.path / "provenance.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.report = self.path / "report"
        self._held: os.stat_result | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and keeps every other process from running in it.

        Raises:
          WorkdirError: if it can't be made or written, or another process holds it.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a")
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise WorkdirError(f"the workdir {self.path} is in use by another process") from None
                except OSError as error:
                    logger.warning("no lock on %s (%s): let no other process train there", self.path, error.strerror)
            self._held = os.fstat(lock.fileno())
            yield

    def check_there(self) -> None:
        """Raises WorkdirError if the folder that this process holds has been moved or removed."""
        try:
            in_place = self._held is None or os.path.samestat(self._held, (self.path / "lock").stat())
        except OSError:
            in_place = False
        if not in_place:
            raise WorkdirError(f"the workdir {self.path} was moved or removed while the run was in it")

    def open(
        self,
        recipe: Recipe | None,
        data: Mapping[str, str],
        *,
        classes: Mapping[str, Sequence[str]] = MappingProxyType({}),
        fork: bool = False,
    ) -> None:
        """Writes down what this run is, or finds it there from an earlier start of the same run.

        Args:
          recipe: what the experiment was built from; None for one that was built by a program.
          data: name of a stream to the fingerprint of its data.
          classes: name of a stream to the names of its classes.
          fork: go on from the run in the folder, even if it is another one.

        Raises:
          WorkdirError: if it can't be written, or holds another run and `fork` is not set; nothing is changed then.
        """
        text = "" if recipe is None else recipe.source.read_text(encoding="utf-8")
        differences = self.check(recipe, data, fork)
        made_with = provenance.take(None if recipe is None else recipe.source)
        with self._writing():
            if differences:
                self._archive()
            if differences or not self.has_run():
                self._keep_code(recipe, text)
                write_atomically(self.data, _json_text(data))
                write_atomically(self.classes, _json_text({name: list(names) for name, names in classes.items()}))
                write_atomically(self.versions, _json_text(made_with.versions))
                write_atomically(self.provenance, _json_text(made_with.as_json()))
            self._note_start(shlex.join(recipe.command if recipe is not None else ()), made_with)

    def _keep_code(self, recipe: Recipe | None, text: str) -> None:
        """The experiment file and its config; neither, for an experiment that has none."""
        if recipe is None:
            self.source.unlink(missing_ok=True)
            self.config.unlink(missing_ok=True)
        else:
            write_atomically(self.source, text)
            write_atomically(self.config, _json_text(recipe.config))
            for name, file in own_modules(recipe.source).items():
                copy = self._copy_of(name, file)
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(copy, file.read_bytes())

    def _copy_of(self, name: str, file: Path) -> Path:
        """Where the workdir keeps the file of a module of the experiment's own."""
        path = self.path.joinpath(KEPT, *name.split("."))
        return path / file.name if file.name == "__init__.py" else path.with_name(f"{path.name}.py")

    def check(self, recipe: Recipe | None, data: Mapping[str, str], fork: bool = False) -> list[str]:
        """What differs between the run in the folder, if there is one, and this one; changes nothing.

        Raises:
          WorkdirError: if something does and `fork` is not set.
        """
        differences = self.differences(recipe, data) if self.has_run() else []
        if differences and not fork:
            raise WorkdirError(
                f"{self.path} holds another run: {'; '.join(_first(differences))}. Choose another workdir, or fork (--fork) "
                "to go on from that run's newest checkpoint with this experiment"
            )
        return differences

    def _note_start(self, command: str, made_with: Provenance) -> None:
        """Adds a line to `command.txt` and a row to `starts.jsonl`: when, where and with what the run was started."""
        row = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "host": socket.gethostname(),
            "devices": made_with.machine["devices"],
            "git": made_with.commits(),
            "patch": self._keep_patch(made_with.patch()),
            "versions_changed": _changes(self.versions, made_with.versions),
        }
        for name, line in (("command.txt", command), ("starts.jsonl", json.dumps(row))):
            if not line:
                continue
            with (self.path / name).open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(line + "\n")

    def _keep_patch(self, patch: str) -> str | None:
        """The name of the file that holds this patch: `git.patch`, or for another at a later start `git.1.patch`, ..."""
        if not patch:
            return None
        for number in range(10**6):
            path = self.path / (f"git.{number}.patch" if number else "git.patch")
            if not path.exists():
                write_atomically(path, patch)
            if path.read_bytes() == patch.encode():
                return path.name

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

    def differences(self, recipe: Recipe | None, data: Mapping[str, str]) -> list[str]:
        """What differs between the run in the folder and this one, a text each."""
        lines = self._other_recipe(recipe)
        known = self._read(self.data)
        return lines + [
            f"the data of {name!r} have changed"
            for name in sorted({*known, *data})
            if known.get(name) != data.get(name)
        ]

    def _other_recipe(self, recipe: Recipe | None) -> list[str]:
        """What differs between the experiment of the run in the folder and this one."""
        if recipe is None:
            return [f"it was built from {self.source.name}, this one from none"] if self.source.exists() else []
        ours, theirs = _flat(self._read(self.config)), _flat(recipe.config)
        lines = [
            f"config.{name} is {ours.get(name, 'absent')} there and {theirs.get(name, 'absent')} here"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]
        if not self.source.exists() or not same_code(self.source, recipe.source):
            lines.append(f"the code of {recipe.source} is not that of {self.source}")
        for name, file in own_modules(recipe.source).items():
            copy = self._copy_of(name, file)
            if not copy.exists() or not same_code(copy, file):
                lines.append(f"the code of {file} is not that of {copy}")
        return lines

    def _read(self, path: Path) -> dict:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise WorkdirError(f"{self.path} holds a run, but its {path.name} can't be read: {error}") from error

    def _archive(self) -> None:
        """Keeps a copy of what the forked run was, under the next free number."""
        number = next(n for n in range(1, 10**6) if not (self.path / f"config.{n}.json").exists())
        for path in (self.source, self.data, self.classes, self.versions, self.provenance, self.config):
            if path.exists():
                shutil.copyfile(path, path.with_suffix(f".{number}{path.suffix}"))
        if (self.path / KEPT).is_dir():
            shutil.copytree(self.path / KEPT, self.path / f"{KEPT}.{number}")


def _first(differences: Sequence[str]) -> list[str]:
    """The first differences, and how many more there are."""
    more = len(differences) - MOST_DIFFERENCES
    return [*differences[:MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]


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


def _json_text(value: Mapping) -> str:
    return json.dumps(value, indent=2) + "\n"


def _changes(path: Path, versions: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Which packages have another version than in the file: what it was and what it is, None for a missing one."""
    try:
        first = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    names = sorted({*first, *versions})
    return {name: (first.get(name), versions.get(name)) for name in names if first.get(name) != versions.get(name)}

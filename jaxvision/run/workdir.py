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
- `checksums.json`: checksums of these, and whether a checkpoint was saved.
- `provenance.json`, `versions.json`, `git.patch`, `command.txt`, `starts.jsonl`: what made it: devices, drivers, packages,
  commit and uncommitted changes, every start of it.
- `preflight/`, `nonfinite/`, `stacks.txt`, `profile/`: where a preflight, a step that was not finite, one that took too long,
  or `--profile` wrote some.
- `rows/`: what the metrics of the last evaluation were computed from, a row an example; `parameters.json`: hashes of the
  first and the last parameters.
- `robustness/`: what `jaxvision.robustness` measured on corrupted images.
- `tmp/`: temporary files, where the machine has no folder for them.

A workdir that holds another run (other settings, code or data), or that another process uses, is refused; so is one whose
files that say what the run is were changed or damaged. Other files that can't be read are kept under another name.
"""

import ast
import contextlib
import json
import logging
import os
import shlex
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxvision.errors import WorkdirError, no_link, sweep, write_atomically
from jaxvision.machine.folders import local
from jaxvision.run import checksums, provenance
from jaxvision.run.checksums import Checksums
from jaxvision.run.damage import cut_torn_end, is_log, json_object, reason, set_aside
from jaxvision.run.digest import sha256
from jaxvision.run.own_modules import KEPT, own_modules, parsed
from jaxvision.run.provenance import Provenance

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock on the workdir
    fcntl = None


logger = logging.getLogger(__name__)
PARAMETERS = "parameters.json"
IN_USE = "is in use by another process"
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
        self.rows = self.path / "rows"
        self.parameters = self.path / PARAMETERS
        self._held: os.stat_result | None = None
        self._checksums: Checksums | None = None

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
                    raise WorkdirError(f"the workdir {self.path} {IN_USE}") from None
                except OSError as error:
                    logger.warning("no lock on %s (%s): let no other process train there", self.path, error.strerror)
            self._held = os.fstat(lock.fileno())
            for folder in (self.path, self.report, self.path / "tensorboard"):
                sweep(folder)
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
        parent: Path | None = None,
    ) -> None:
        """Writes down what this run is, or finds it there from an earlier start of the same run.

        Args:
          recipe: what the experiment was built from; None for one that was built by a program.
          data: name of a stream to the fingerprint of its data.
          classes: name of a stream to the names of its classes.
          fork: go on from the run in the folder, even if it is another one.
          parent: workdir of the run whose weights this one starts from.

        Raises:
          WorkdirError: if it can't be written, or holds another run and `fork` is not set; nothing is changed then.
        """
        kept = self._identity(recipe, data, classes)
        differences = self.check(recipe, data, fork)
        made_with = provenance.take(None if recipe is None else recipe.source)
        with self._writing():
            self._put_unreadable_aside()
            if differences:
                self._archive()
            if differences or not self.has_run():
                self._write_identity(kept, recipe)
            self._keep_provenance(made_with, anew=bool(differences) or not self.has_run())
            command = shlex.join(recipe.command if recipe is not None else ())
            self._note_start(command, made_with, {"parent": parent and str(parent.absolute()), "forked": differences})
            self._checksums = self._readable_checksums()
            if self._checksums is None:
                self._checksums = self._adopted(kept)

    def _identity(
        self, recipe: Recipe | None, data: Mapping[str, str], classes: Mapping[str, Sequence[str]]
    ) -> dict[str, bytes]:
        """The files that say what the run is: their content, by their path in the workdir."""
        named = {name: list(names) for name, names in classes.items()}
        files = {self.data.name: _json_text(data).encode(), self.classes.name: _json_text(named).encode()}
        if recipe is None:
            return files
        files |= {self.source.name: recipe.source.read_bytes(), self.config.name: _json_text(recipe.config).encode()}
        modules = own_modules(recipe.source)
        return files | {self._name_of(module, file): file.read_bytes() for module, file in modules.items()}

    def _write_identity(self, kept: Mapping[str, bytes], recipe: Recipe | None) -> None:
        """Writes them, their checksums last: a process that dies before leaves none, and no wrong one."""
        if (self.path / checksums.NAME).is_dir():
            set_aside(self.path / checksums.NAME)
        (self.path / checksums.NAME).unlink(missing_ok=True)
        if recipe is None:
            self.source.unlink(missing_ok=True)
            self.config.unlink(missing_ok=True)
        for name, data in kept.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / name, data)
        self._sealed(kept)

    def _sealed(self, kept: Mapping[str, bytes]) -> Checksums:
        """Writes the checksums of these files, as they are in the workdir; returns them."""
        found = {name: sha256((self.path / name).read_bytes()) for name in kept}
        sealed = Checksums(found, self.newest_step() or None)
        checksums.write(self.path, sealed)
        return sealed

    def _adopted(self, kept: Mapping[str, bytes]) -> Checksums:
        """Checksums for a workdir that has none: its files are known to be those of this run, but for the classes."""
        if (self.path / checksums.NAME).exists():
            set_aside(self.path / checksums.NAME)
        if not self.classes.is_file() or self.classes.read_bytes() != kept[self.classes.name]:
            if self.classes.exists():
                logger.warning("%s is not that of this run; kept as %s", self.classes, set_aside(self.classes).name)
            write_atomically(self.classes, kept[self.classes.name])
        return self._sealed(kept)

    def note_saved(self, step: int) -> None:
        """Notes the first checkpoint: should the folder of them be gone later, the run is not begun anew."""
        if self._checksums is not None and self._checksums.saved is None:
            self._checksums = self._checksums._replace(saved=step)
            with self._writing():
                checksums.write(self.path, self._checksums)

    def _put_unreadable_aside(self) -> None:
        """Keeps files that only inform under another name, where they can't be read or written on; says so."""
        for path in (self.report, self.rows, self.path / "tensorboard"):
            if path.exists() and not path.is_dir():
                logger.warning("%s is no folder; kept as %s", path, set_aside(path).name)
        logs = (self.timing, self.path / "starts.jsonl")
        for path in (self.versions, self.provenance, self.parameters, *logs, self.path / "command.txt"):
            fault = _fault(path)
            if not fault and path in logs:
                cut_torn_end(path)
            if fault:
                logger.warning("%s can't be read (%s); kept as %s", path, fault, set_aside(path).name)

    def _keep_provenance(self, made_with: Provenance, anew: bool) -> None:
        """What the run was made with at its first start; of this start, where that is lost."""
        for path, content in ((self.versions, made_with.versions), (self.provenance, made_with.as_json())):
            if anew or not path.exists():
                write_atomically(path, _json_text(content))

    def _name_of(self, module: str, file: Path) -> str:
        """The path in the workdir of the copy of a module of the experiment's own."""
        path = "/".join((KEPT, *module.split(".")))
        return f"{path}/{file.name}" if file.name == "__init__.py" else f"{path}.py"

    def check_unchanged(self, code: bool = True) -> None:
        """Raises WorkdirError if a file that a restored run is made of was changed or damaged since the run began.

        Args:
          code: whether the experiment file, its modules and its config are among them, beside the classes.
        """
        sealed = self._readable_checksums()
        if sealed is None:
            return
        classes = [self.classes.name] if self.classes.exists() else []  # or else the data have them
        others = {self.classes.name, self.data.name}
        names = [*classes, *(name for name in sealed.files if code and name not in others)]
        found = checksums.faults(self.path, sealed, names)
        if found:
            raise WorkdirError(
                f"{'; '.join(found.values())}: put it back, or remove {checksums.NAME} to take the files as they are"
            )

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the data, by stream; none, and a warning, where they were changed or damaged."""
        fault, known = self._faults().get(self.data.name), {}
        try:
            known = json_object(self.data)
        except WorkdirError as error:
            fault = fault or str(error)
        if fault:
            logger.warning("warning: %s: whether the data are still the same is not checked", fault)
        return {} if fault else known

    def _readable_checksums(self, quiet: bool = False) -> Checksums | None:
        """The checksums that the run wrote down; None, and a line that says so, where they can't be had."""
        try:
            found = checksums.read(self.path)
            why = f"{self.path} has no {checksums.NAME}"
        except WorkdirError as error:
            found, why = None, str(error)
        if found is None and not quiet and self.has_run():
            logger.warning("%s: whether its files are as the run wrote them is not checked", why)
        return found

    def check(self, recipe: Recipe | None, data: Mapping[str, str], fork: bool = False) -> list[str]:
        """What differs between the run in the folder, if there is one, and this one; changes nothing.

        Raises:
          WorkdirError: if something does and `fork` is not set.
        """
        if not self.has_run():
            return []
        self._check_checkpoints_there()
        faults = self._faults()
        differences = [*faults.values(), *self.differences(recipe, data, set(faults))]
        if differences and not fork:
            what, remedy = f"{self.path} holds another run: ", "Choose another workdir"
            if faults:
                what, remedy = "", "Put it back"
            raise WorkdirError(
                f"{what}{'; '.join(_first(differences))}. {remedy}, or fork (--fork) to go on from that run's newest "
                "checkpoint with this experiment"
            )
        return differences

    def _faults(self) -> dict[str, str]:
        """What is wrong with the files that say what the run is, by name; nothing where there are no checksums."""
        sealed = self._readable_checksums(quiet=True)
        return {} if sealed is None else checksums.faults(self.path, sealed, sealed.files)

    def _check_checkpoints_there(self) -> None:
        """Raises WorkdirError if the run has saved checkpoints, and none is there: it would begin anew."""
        sealed = self._readable_checksums(quiet=True)
        if sealed is not None and sealed.saved is not None and not self.newest_step():
            raise WorkdirError(
                f"{self.checkpoints} has no checkpoint, but this run has saved some, the first at step {sealed.saved:,}: put "
                "them back, or choose another workdir to begin anew"
            )

    def _note_start(self, command: str, made_with: Provenance, came_from: Mapping[str, Any]) -> None:
        """Adds a line to `command.txt` and a row to `starts.jsonl`: when, where and with what the run was started."""
        row = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": self.newest_step(),
            "command": command,
            "host": socket.gethostname(),
            "devices": made_with.machine["devices"],
            "git": made_with.commits(),
            "patch": self._keep_patch(made_with.patch()),
            "versions_changed": _changes(self.versions, made_with.versions),
            **came_from,
        }
        for name, line in (("command.txt", command), ("starts.jsonl", json.dumps(row))):
            if not line:
                continue
            with open(self.path / name, "a", encoding="utf-8", errors="surrogateescape", opener=no_link) as file:
                file.write(line + "\n")

    def _keep_patch(self, patch: str) -> str | None:
        """The name of the file that holds this patch: `git.patch`, or for another at a later start `git.1.patch`, ..."""
        if not patch:
            return None
        for number in range(10**6):
            path = self.path / (f"git.{number}.patch" if number else "git.patch")
            if not path.exists():
                write_atomically(path, patch)
            if path.is_file() and path.read_bytes() == patch.encode():
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
        """The step of the newest checkpoint, one that is being replaced included; 0 if there is none."""
        folders = (self.checkpoints, self.checkpoints.with_name(self.checkpoints.name + ".replaced"))
        names = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def differences(self, recipe: Recipe | None, data: Mapping[str, str], faulty: Collection[str] = ()) -> list[str]:
        """What differs between the run in the folder and this one, a text each; files named in `faulty` are passed over."""
        return [*self._other_recipe(recipe, faulty), *([] if self.data.name in faulty else self._other_data(data))]

    def _other_data(self, data: Mapping[str, str]) -> list[str]:
        try:
            known = json_object(self.data)
        except WorkdirError as error:
            return [str(error)]
        return [
            f"the data of {name!r} have changed"
            for name in sorted({*known, *data})
            if known.get(name) != data.get(name)
        ]

    def _other_recipe(self, recipe: Recipe | None, faulty: Collection[str]) -> list[str]:
        """What differs between the experiment of the run in the folder and this one."""
        if recipe is None:
            return [f"it was built from {self.source.name}, this one from none"] if self.source.exists() else []
        lines = [] if self.config.name in faulty else self._other_config(recipe.config)
        copies = {self.source.name: recipe.source}
        copies |= {self._name_of(module, file): file for module, file in own_modules(recipe.source).items()}
        return lines + [
            f"the code of {file} is not that of {self.path / name}"
            for name, file in copies.items()
            if name not in faulty and not same_code(self.path / name, file)
        ]

    def _other_config(self, config: Mapping[str, Any]) -> list[str]:
        try:
            ours, theirs = fields(json_object(self.config)), fields(config)
        except WorkdirError as error:
            return [str(error)]
        return [
            f"config.{name} is {ours.get(name, 'absent')} there and {theirs.get(name, 'absent')} here"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]

    def _archive(self) -> None:
        """Keeps a copy of what the forked run was, under the next free number; says what of it is damaged."""
        files = (self.source, self.data, self.classes, self.versions, self.provenance, self.config)
        copy_of = lambda path, number: path.with_suffix(f".{number}{path.suffix}")
        number = next(n for n in range(1, 10**6) if not any(copy_of(path, n).exists() for path in files))
        for text in self._faults().values():
            logger.warning("forked although %s; what there was is kept with the number %d in its name", text, number)
        for path in files:
            if path.is_dir():
                path.rename(copy_of(path, number))
            elif path.exists():
                shutil.copyfile(path, copy_of(path, number))
        if (self.path / KEPT).is_dir():
            (self.path / KEPT).rename(self.path / f"{KEPT}.{number}")


def _fault(path: Path) -> str:
    """Why a file that only informs can't be read or written on; empty where it can."""
    if not path.exists():
        return ""
    try:
        data = path.read_bytes()
        if path.suffix == ".json":
            json_object(path)
    except OSError as error:
        return reason(error)
    except WorkdirError:
        return "it holds no JSON object"
    if path.suffix == ".jsonl":
        return "" if is_log(data) else "a line holds no JSON object"
    return "it is no text" if b"\0" in data else ""


def _first(differences: Sequence[str]) -> list[str]:
    """The first differences, and how many more there are."""
    more = len(differences) - MOST_DIFFERENCES
    return [*differences[:MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]


def same_code(a: Path, b: Path) -> bool:
    """Whether two Python files are the same but for comments, layout and docstrings; one that can't be read is no other's."""
    try:
        return code_of(a) == code_of(b)
    except (OSError, ValueError, SyntaxError):
        return False


def code_of(path: Path) -> str:
    """The code of a Python file but for comments, layout and docstrings, as text."""
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def fields(config: Mapping, prefix: str = "") -> dict[str, str]:
    """Each field of the config, as the JSON text of its value."""
    flat = {}
    for name, value in config.items():
        more = isinstance(value, Mapping)
        flat.update(fields(value, f"{prefix}{name}.") if more else {prefix + name: json.dumps(value)})
    return flat


def _json_text(value: Mapping) -> str:
    return json.dumps(value, indent=2) + "\n"


def _changes(path: Path, versions: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Which packages have another version than in the file: what it was and what it is, None for a missing one."""
    try:
        first = json_object(path)
    except WorkdirError:
        return {}
    names = sorted({*first, *versions})
    return {name: (first.get(name), versions.get(name)) for name in names if first.get(name) != versions.get(name)}

"""What a search is: its experiment, space, sampler and figure, written down before its first trial."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxvision.errors import ConfigError, WorkdirError, creating
from launch import plan
from launch.plan import Deciding
from launch.space import Space

FILE = "search.json"
FORMAT = 1


class Search(NamedTuple):
    """What makes a search this one."""

    experiment: Path
    code: str
    """Fingerprint of the experiment's code."""
    overrides: dict[str, str]
    """Texts of fields that are set for all trials."""
    space: Space
    deciding: Deciding
    sampler: str = "tpe"
    seed: int = 0
    prune: str = "none"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's word for what is better."""
        return "maximize" if self.deciding.better == "higher" else "minimize"


def require(sampler: str) -> None:
    """Imports Optuna, which then logs problems alone; raises ConfigError where it, or what a sampler needs, is missing."""
    for package in ("optuna", *(("cmaes",) if sampler == "cmaes" else ())):
        try:
            __import__(package)
        except ImportError:
            raise ConfigError(
                f"a search needs the package {package}, which is not installed: pip install 'jaxvision[search]'"
            ) from None
    from optuna import logging

    logging.set_verbosity(logging.WARNING)


def write(search: Search, folder: Path) -> None:
    """Writes down what the search is, in its folder, or finds the same there.

    Raises:
      WorkdirError: if the folder holds another search, or the plan of a sweep, or can't be written.
    """
    path = folder / FILE
    if (folder / plan.FILE).exists() and not path.exists():
        raise WorkdirError(f"{folder} holds the plan of a sweep, not of a search; choose another folder")
    data = _described(search)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with creating(path) as partial:
            partial.write_text(json.dumps({**data, "sha256": _checksum(data)}, indent=1) + "\n", encoding="utf-8")
    except FileExistsError:
        _check_same(read(folder), data, path)
    except OSError as error:
        raise WorkdirError(f"can't write {path}: {error.strerror or error}") from error


def read(folder: Path) -> dict[str, Any]:
    """What the search in a folder is.

    Raises:
      WorkdirError: if its file can't be read, or was changed since it was written.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        checksum = data.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WorkdirError(f"{path} can't be read: {error}") from error
    if data.get("format") != FORMAT:
        raise WorkdirError(f"{path} is of format {data.get('format')!r}; this version reads {FORMAT}")
    if checksum != _checksum(data):
        raise WorkdirError(f"{path} was changed by hand or damaged; begin the search anew in another folder")
    return data


def _described(search: Search) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "code": search.code,
        "config": search.overrides,
        "search": search.space.texts(),
        "decide": f"{search.deciding.figure}:{search.deciding.better}",
        "sampler": search.sampler,
        "seed": search.seed,
        "prune": search.prune,
    }


def _checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], path: Path) -> None:
    """Raises WorkdirError that names the first thing in which two searches differ."""
    if theirs["code"] != ours["code"]:
        raise WorkdirError(f"{path} is of other code: the experiment has changed since; choose another folder")
    flat = [plan.flat(each) for each in (theirs, ours)]
    for name in sorted({*flat[0], *flat[1]}):
        known, given = (each.get(name, "not set") for each in flat)
        if known != given:
            raise WorkdirError(
                f"{path} is another search: --{name} is {known} there, {given} here; choose another folder"
            )


def notes(folder: Path) -> list[str]:
    """What a report says of the search in a folder, as sentences; none where it holds none."""
    if not (folder / FILE).exists():
        return []
    data = read(folder)
    fields = "; ".join(f"{field}: {of}" for field, of in data["search"].items())
    pruned = "" if data["prune"] == "none" else f", pruned by {data['prune']}"
    return [f"Trials of a search by {data['sampler']}, seed {data['seed']}{pruned}, over {fields}."]

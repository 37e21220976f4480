"""What differs between two runs: settings, code, data, packages, machine, parameters, log, figures; from their workdirs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxvision.errors import WorkdirError, cut
from jaxvision.run import hashes
from jaxvision.run.damage import json_object
from jaxvision.run.log import JsonLines
from jaxvision.run.own_modules import KEPT
from jaxvision.run.workdir import Workdir, fields, same_code
from launch.state import starts

Of = Literal["config", "code", "data", "package", "machine", "start", "parameters", "log", "figure"]
ABSENT = "absent"
LONGEST = 60


class Difference(NamedTuple):
    """Something in which two runs differ."""

    of: Of
    name: str
    values: tuple[str, str]
    """What the one run has, and the other."""

    @property
    def is_cause(self) -> bool:
        """Whether it can make the runs compute other numbers; parameters, log and figures are what they computed."""
        return self.of not in ("parameters", "log", "figure")

    def line(self) -> str:
        """Name and both values as one line."""
        return f"{self.of} {self.name}: {cut(self.values[0], LONGEST)} | {cut(self.values[1], LONGEST)}"


def between(one: Path, other: Path) -> list[Difference]:
    """All differences between two runs, causes first.

    Raises:
      WorkdirError: if a folder holds no run, or a file that says what a run is can't be read.
    """
    places = [Workdir(one), Workdir(other)]
    for place in places:
        if not (place.data.is_file() or place.metrics.is_file()):
            raise WorkdirError(f"{place.path} holds no run: it has no {place.data.name} and no {place.metrics.name}")
    return [*causes(*places), *_computed(*places)]


def causes(one: Workdir, other: Workdir) -> list[Difference]:
    """What the runs were made with, where it differs."""
    return [
        *_of("config", *(_config(place) for place in (one, other))),
        *_code(one, other),
        *_of("data", *(_object(place.data) for place in (one, other))),
        *_of("package", *(_object(place.versions) for place in (one, other))),
        *_of("machine", *(_flat(_machine(place)) for place in (one, other))),
        *_of("start", *(_starts(place) for place in (one, other))),
    ]


def _of(kind: Of, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(kind, name, (str(one.get(name, ABSENT)), str(other.get(name, ABSENT))))
        for name in sorted({*one, *other})
        if one.get(name, ABSENT) != other.get(name, ABSENT)
    ]


def _object(path: Path) -> dict[str, Any]:
    return json_object(path) if path.is_file() else {}


def _config(place: Workdir) -> dict[str, str]:
    return fields(_object(place.config))


def _code(one: Workdir, other: Workdir) -> list[Difference]:
    """Files of the experiment that are not the same code, comments and layout aside."""
    names = sorted({path.relative_to(place.path) for place in (one, other) for path in _sources(place)})
    found = []
    for name in names:
        files = [place.path / name for place in (one, other)]
        if not same_code(*files):
            first, second = ("there" if file.is_file() else ABSENT for file in files)
            found.append(Difference("code", str(name), (first, second if second == ABSENT else "other code")))
    return found


def _sources(place: Workdir) -> Iterable[Path]:
    return [path for path in (place.source, *sorted((place.path / KEPT).rglob("*.py"))) if path.is_file()]


def _machine(place: Workdir) -> dict[str, Any]:
    """Devices, processor, environment; of the repositories, the commit and whether it was changed."""
    found = _object(place.provenance)
    repositories = found.pop("git", [])
    commits = {
        Path(each["root"]).name: f"{each['commit']}{', changed' if each['dirty'] else ''}" for each in repositories
    }
    return {**found, "git": commits}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _starts(place: Workdir) -> dict[str, Any]:
    """The run that it started from, changes of packages at later starts, and whether it was forked from another."""
    changed: dict[str, Any] = {}
    for row in starts(place.path):
        if row.get("parent"):
            changed["parent"] = row["parent"]
        for name, versions in row.get("versions_changed", {}).items():
            changed[f"{name} at step {row.get('step')}"] = f"{versions[0]} became {versions[1]}"
    forks = len(list(place.path.glob("config.*.json")))
    return {**changed, **({"forked from another run": f"{forks} times"} if forks else {})}


def _computed(one: Workdir, other: Workdir) -> list[Difference]:
    found = [hashes.read(place.path) for place in (one, other)]
    written = [
        {name: f"{each.sha256[:16]} after step {each.step:,}" for name, each in known.items()} for known in found
    ]
    logs = [JsonLines(place.metrics).read() if place.metrics.is_file() else [] for place in (one, other)]
    return [*_of("parameters", *written), *first_row(*logs), *_of("figure", *map(figures, logs))]


def first_row(one: list[dict], other: list[dict]) -> list[Difference]:
    """The first row of two logs that is not the same, and a column of it."""
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            column = next(name for name in {**ours, **theirs} if ours.get(name, ABSENT) != theirs.get(name, ABSENT))
            values = (str(ours.get(column, ABSENT)), str(theirs.get(column, ABSENT)))
            step = min(ours["step"], theirs["step"])
            return [Difference("log", f"{column}, first in the row of step {step}", values)]
    if len(one) != len(other):
        return [Difference("log", "rows", (f"{len(one):,}", f"{len(other):,}"))]
    return []


def figures(log: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of the last evaluation in a log, by name."""
    rows = [{name: value for name, value in row.items() if "/" in name} for row in log]
    return next((row for row in reversed(rows) if row), {})

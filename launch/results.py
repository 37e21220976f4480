"""What the runs of a plan gave: figures by seed, curves, cost, rows of the last evaluation; read from their workdirs."""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.errors import ConfigError, WorkdirError, nearest
from jaxvision.run import rows
from jaxvision.run.log import JsonLines
from launch.plan import Member, Plan
from launch.state import State, state

logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """One run as far as it went."""

    member: Member
    state: State
    curve: tuple[tuple[int, dict[str, float]], ...]
    """Step and figures of each evaluation."""
    seconds: float
    """Time of all its starts together."""
    workdir: Path

    def figure(self, name: str) -> float | None:
        """A figure of its last evaluation if it is done and the figure finite; else None."""
        value = self.state.figures.get(name) if self.state.kind == "done" else None
        return value if value is not None and math.isfinite(value) else None

    def rows_of(self, evaluation: str) -> dict[str, np.ndarray] | None:
        """The rows of an evaluation; None where the run left none, or none that can be read, which is logged."""
        try:
            table = rows.read(self.workdir, evaluation)
        except WorkdirError as error:
            logger.warning("%s: left out of what is said of other test images", error)
            return None
        return None if table is None else table.columns


def collect(plan: Plan, folder: Path) -> list[Result]:
    """The results of all members of a plan, in its order."""
    return [_result(member, folder / member.name) for member in plan.members]


def _result(member: Member, workdir: Path) -> Result:
    log = JsonLines(workdir / "metrics.jsonl").read() if workdir.is_dir() else []
    curve = tuple(
        (int(row["step"]), {name: value for name, value in row.items() if "/" in name and value is not None})
        for row in log
        if any("/" in name for name in row)
    )
    return Result(member, state(workdir), curve, seconds(workdir / "timing.jsonl"), workdir)


def seconds(timing: Path) -> float:
    """Seconds that a run took, all its starts together: the clock of `timing.jsonl` begins anew at each."""
    total, last, begun = 0.0, 0.0, None
    for row in JsonLines(timing).read():
        now = float(row.get("seconds", 0.0))
        if now < last or row.get("begun") != begun:
            total, begun = total + last, row.get("begun")
        last = now
    return total + last


def check_figure(results: Iterable[Result], name: str) -> None:
    """Raises ConfigError if runs are done and none of them has the figure."""
    known = {figure for result in results if result.state.kind == "done" for figure in result.state.figures}
    if known and name not in known:
        raise ConfigError(f"no evaluation gives the figure {name!r}{nearest(name, sorted(known))}")


def by_variant(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results of each variant, in the order of the plan."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.member.variant, []).append(result)
    return found


def by_seed(results: Iterable[Result], figure: str) -> dict[int | None, float]:
    """The figure of each seed that has one."""
    values = {result.member.seed: result.figure(figure) for result in results}
    return {seed: value for seed, value in values.items() if value is not None}


def changed_fields(results: Iterable[Result]) -> dict[str, list]:
    """The fields of the config in which the members differ, but for the seed, and their values, in order."""
    from launch.plan import SEED, flat

    configs: list[Mapping] = [flat(result.member.config) for result in results]
    names = sorted({name for config in configs for name in config} - {SEED})
    columns = {name: [config.get(name) for config in configs] for name in names}
    return {name: values for name, values in columns.items() if len({json.dumps(value) for value in values}) > 1}

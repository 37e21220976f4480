"""The state of each member of a plan, from its workdir alone."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from jaxvision.run import lease
from jaxvision.run.log import JsonLines
from launch.plan import Plan

Kind = Literal["waiting", "running", "done", "interrupted", "failed", "lost"]
KINDS: tuple[Kind, ...] = ("done", "running", "interrupted", "failed", "lost", "waiting")


class State(NamedTuple):
    """Where a run stands."""

    kind: Kind
    step: int = 0
    steps: int = 0
    figures: dict[str, float] = {}  # noqa: RUF012  (never changed)
    """Figures of its last evaluation."""
    detail: str = ""
    """The last line of its error, the signal that ended it, or the host it runs on."""

    @property
    def to_start(self) -> bool:
        """Whether there is something left to do that no process does."""
        return self.kind in ("waiting", "interrupted", "failed", "lost")


def state(workdir: Path) -> State:
    """Where the run in a workdir stands: done, running, interrupted, failed, lost (its process is gone), or waiting."""
    held = lease.read(workdir)
    rows = JsonLines(workdir / "metrics.jsonl").read() if workdir.is_dir() else []
    _, figures = last_evaluation(rows)
    if held is None:
        return State("lost" if rows else "waiting", _newest(rows), 0, figures, "no lease.json" if rows else "")
    at = State(held.state, max(held.step, _newest(rows)), held.steps, figures, held.detail)
    if held.state == "running":
        where = f"{held.host}, process {held.process}"
        return at._replace(kind="running" if lease.alive(workdir, held) else "lost", detail=where)
    return at


def last_evaluation(rows: Iterable[dict[str, float]]) -> tuple[int, dict[str, float]]:
    """Step and figures of the last evaluation in a log; 0 and none where there was none."""
    found: tuple[int, dict[str, float]] = (0, {})
    for row in rows:
        figures = {name: value for name, value in row.items() if "/" in name}
        if figures:
            found = int(row["step"]), figures
    return found


def _newest(rows: list[dict[str, float]]) -> int:
    return int(rows[-1]["step"]) if rows else 0


def starts(workdir: Path) -> list[dict]:
    """What `starts.jsonl` says of every start of a run."""
    try:
        lines = (workdir / "starts.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):  # torn by a kill
            found.append(json.loads(line))
    return found


def states(plan: Plan, folder: Path) -> dict[str, State]:
    """The state of every member by its name, in the order of the plan."""
    return {member.name: state(folder / member.name) for member in plan.members}


def table(of: Mapping[str, State], figure: str | None = None) -> str:
    """A line a member, and a last line with the count of each state."""
    width = max(map(len, of), default=0)
    lines = []
    for name, at in of.items():
        steps = f"{at.step:,}/{at.steps:,}" if at.steps else f"{at.step:,}"
        value = at.figures.get(figure) if figure else None
        shown = "" if value is None else f"{figure} {value:.4g}"
        lines.append(f"{name:{width}}  {at.kind:11}  {steps:>15}  {shown}  {at.detail}".rstrip())
    found = [at.kind for at in of.values()]
    counts = ", ".join(f"{found.count(kind)} {kind}" for kind in KINDS if kind in found)
    return "\n".join([*lines, f"{len(of)} runs: {counts}"])

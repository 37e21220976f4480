"""The command of one run, the same for every backend."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from launch.plan import Member, Plan


class Resources(NamedTuple):
    """What a run asks of a scheduler."""

    nodes: int = 1
    """Machines that train as one, in a group."""
    groups: int = 1
    """Groups of machines that train as one, such as slices of TPUs."""
    gpus: int = 0
    """GPUs, or TPU chips, of each machine."""
    cores: int | None = None
    """Processor cores of each machine; None leaves it to the scheduler."""
    memory: float | None = None
    """GB of each machine; None leaves it to the scheduler."""
    minutes: int = 60
    """Minutes after which the scheduler ends it, saved; it is queued again."""

    @property
    def machines(self) -> int:
        """All machines that the run is on."""
        return self.nodes * self.groups


DEFAULT = Resources()


class Command(NamedTuple):
    """A run as every backend starts it."""

    name: str
    arguments: tuple[str, ...]
    workdir: Path
    environment: Mapping[str, str]
    resources: Resources = DEFAULT

    def text(self) -> str:
        """The arguments as a line for a shell."""
        return shlex.join(self.arguments)


def command(
    plan: Plan,
    member: Member,
    folder: Path,
    *,
    report: bool = False,
    more: Sequence[str] = (),
    environment: Mapping[str, str] = {},
    python: str = sys.executable,
    resources: Resources = DEFAULT,
) -> Command:
    """The command that trains a member, or goes on with it.

    Args:
      plan: that it is of.
      member: to run.
      folder: of the sweep; the workdir is in it.
      report: whether the run draws pictures at its end.
      more: further flags of `jaxvision.main`.
      environment: variables to set beside those that are there.
      python: the interpreter.
      resources: what it asks of a scheduler.
    """
    workdir = folder / member.name
    flags = [f"--config={plan.experiment}", f"--workdir={workdir}", *([] if report else ["--no-report"]), *more]
    fields = [f"--config.{name}={text}" for name, text in member.overrides.items()]
    arguments = (python, "-m", "jaxvision.main", *flags, *fields)
    return Command(member.name, arguments, workdir, dict(environment), resources)

"""The command of one run, the same for every backend."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from launch.plan import Member, Plan


class Command(NamedTuple):
    """A run as every backend starts it."""

    name: str
    arguments: tuple[str, ...]
    workdir: Path
    environment: Mapping[str, str]

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
    """
    workdir = folder / member.name
    flags = [f"--config={plan.experiment}", f"--workdir={workdir}", *([] if report else ["--no-report"]), *more]
    fields = [f"--config.{name}={text}" for name, text in member.overrides.items()]
    return Command(member.name, (python, "-m", "jaxvision.main", *flags, *fields), workdir, dict(environment))

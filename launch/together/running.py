"""Running a plan in this process: its families one after another, each in the way asked for, or measured as fastest."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxvision.errors import ConfigError, write_atomically
from jaxvision.run import devices
from launch import local
from launch.command import Command
from launch.plan import Plan
from launch.state import state
from launch.together import choice, families
from launch.together.choice import Choice
from launch.together.families import Family
from launch.together.meeting import Meeting
from launch.together.steps import Steps
from launch.together.threads import Threads
from launch.together.turns import Turns

FILE = "together.json"
"""A file in the folder of a plan: which of its runs are one program, how they are run, and why."""
Asked = Literal["auto", "turns", "vmap", "unroll"]
MOST = 8
"""Members whose steps are one program at a time."""


class Together:
    """The members of a plan in this process."""

    def __init__(
        self,
        planned: Plan,
        commands: Sequence[Command],
        logs: Path,
        asked: Asked,
        *,
        report: bool = False,
        retries: int = 0,
        stop_after_failures: int = 3,
        say: Callable[[str], None] = print,
    ):
        if report and asked in ("vmap", "unroll"):
            raise ConfigError(f"--pictures: runs under --together={asked} draw none; --together=turns and no do")
        self.planned, self.logs, self.report = planned, logs, report
        self.asked: Asked = asked
        self.commands = {each.name: each for each in commands}
        self.retries, self.most_failures, self.say = retries, stop_after_failures, say
        self.failed: list[str] = []

    def run(self) -> local.Outcome:
        """Returns when nothing is left to do; SIGTERM and SIGINT end the runs with a checkpoint each."""
        if not self._to_do(list(self.commands)):
            return local.Outcome((), (), None)
        devices.keep_compilations()
        found = families.of_plan(self.planned, self.say)
        steps = {name: each for each in map(Steps, found) for name in each.family.members}
        choices = [self._chosen(family, steps[family.members[0]]) for family in found]
        self._write(found, choices)
        for family, chosen in zip(found, choices, strict=True):
            members = self._to_do(family.members) if chosen.way != "turns" else []
            for first in range(0, len(members), MOST):
                outcome = self._jointly(family, chosen, members[first : first + MOST])
                self.failed += outcome.failed
                if outcome.signal is not None or len(self.failed) >= self.most_failures:
                    return local.Outcome(tuple(self.failed), tuple(self._to_do(list(self.commands))), outcome.signal)
        commands = [each for name, each in self.commands.items() if name not in self.failed]
        rest = Turns(self.planned, commands, steps, self.logs, report=self.report, **self._options()).run()
        return local.Outcome((*self.failed, *rest.failed), rest.left, rest.signal)

    def _to_do(self, members: Sequence[str]) -> list[str]:
        return [name for name in members if state(self.commands[name].workdir).to_start]

    def _chosen(self, family: Family, steps: Steps) -> Choice:
        members = self._to_do(family.members)
        if self.asked == "turns" or len(members) < 2 or (self.asked == "auto" and self.report):
            return Choice(
                "turns", "nothing else was asked for" if self.asked == "turns" else "there is nothing to join"
            )
        if self.asked != "auto":
            return Choice(self.asked, "it was asked for")
        if (before := self._before(family)) is not None:
            return before
        chosen = [each for each in self.planned.members if each.name in members]
        return choice.measured(
            steps, [families.built(self.planned, each).experiment for each in chosen[:MOST]], len(members)
        )

    def _before(self, family: Family) -> Choice | None:
        """What an earlier start of this plan has measured for the same members: their last bits depend on the way."""
        try:
            rows = json.loads((self.logs.parent / FILE).read_text(encoding="utf-8"))["families"]
            row = next(each for each in rows if each["members"] == family.members and each["seconds"])
            return Choice(*(row[name] for name in Choice._fields))
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            return None

    def _jointly(self, family: Family, chosen: Choice, members: Sequence[str]) -> local.Outcome:
        assert chosen.way != "turns"
        commands = [self.commands[name] for name in members]
        return Threads(self.planned, commands, Meeting(family, chosen.way), self.logs, **self._options()).run()

    def _options(self) -> dict[str, Any]:
        failures = self.most_failures - len(self.failed)
        return {"retries": self.retries, "stop_after_failures": failures, "say": self.say}

    def _write(self, found: Sequence[Family], choices: Sequence[Choice]) -> None:
        """Tells what is one program and how it is run, and writes it into the folder of the plan."""
        lines = families.told(found, {each.name: each for each in self.planned.members})
        rows = []
        for family, chosen, line in zip(found, choices, lines, strict=True):
            self.say(f"{line}; {chosen.way}: {chosen.why}")
            counts = {"constants": sum(map(len, family.lifted)), "inputs": len(family.lifted)}
            rows.append({"members": family.members, "program": line, **counts, **chosen._asdict()})
        write_atomically(self.logs.parent / FILE, json.dumps({"families": rows}, indent=1) + "\n")

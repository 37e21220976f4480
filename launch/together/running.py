"""Running a plan in this process: its families one after another, each in the way asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxvision.errors import ConfigError
from launch import local
from launch.command import Command
from launch.plan import Plan
from launch.state import state
from launch.together import families
from launch.together.families import Family
from launch.together.joint import Way
from launch.together.meeting import Meeting
from launch.together.threads import Threads
from launch.together.turns import Turns

Chosen = Literal["turns", "vmap", "unroll"]


class Together:
    """The members of a plan in this process."""

    def __init__(
        self,
        planned: Plan,
        commands: Sequence[Command],
        logs: Path,
        way: Chosen,
        *,
        report: bool = False,
        retries: int = 0,
        stop_after_failures: int = 3,
        say: Callable[[str], None] = print,
    ):
        if report and way != "turns":
            raise ConfigError(f"--pictures: runs under --together={way} draw none; --together=turns and no do")
        self.planned, self.commands, self.logs, self.way, self.report = planned, commands, logs, way, report
        self.retries, self.most_failures, self.say = retries, stop_after_failures, say

    def run(self) -> local.Outcome:
        """Returns when nothing is left to do; SIGTERM and SIGINT end the runs with a checkpoint each."""
        if all(state(each.workdir).kind == "done" for each in self.commands):
            return local.Outcome((), (), None)
        found = families.said(self.planned, self.logs.parent, self.say)
        if self.way == "turns":
            return self._turns(self.commands, found, self.most_failures)
        return self._jointly(found, self.way)

    def _turns(self, commands: Sequence[Command], found: Sequence[Family], failures: int) -> local.Outcome:
        return Turns(self.planned, commands, found, self.logs, report=self.report, **self._options(failures)).run()

    def _options(self, failures: int) -> dict[str, Any]:
        return {"retries": self.retries, "stop_after_failures": failures, "say": self.say}

    def _jointly(self, found: Sequence[Family], way: Way) -> local.Outcome:
        """Families of several members jointly, then all others in turns."""
        named = {each.name: each for each in self.commands}
        failed: list[str] = []
        left = dict(named)
        for family in found:
            commands = [named[name] for name in family.members if state(named[name].workdir).kind != "done"]
            if len(commands) < 2:
                continue
            pool = Threads(
                self.planned,
                commands,
                Meeting(family, way),
                self.logs,
                **self._options(self.most_failures - len(failed)),
            )
            outcome = pool.run()
            failed += outcome.failed
            for command in commands:
                if command.name not in outcome.left:
                    left.pop(command.name)
            if outcome.signal is not None or len(failed) >= self.most_failures:
                return local.Outcome(tuple(failed), tuple(left), outcome.signal)
        rest = self._turns(list(left.values()), found, self.most_failures - len(failed))
        return local.Outcome((*failed, *rest.failed), rest.left, rest.signal)

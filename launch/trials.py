"""The runs of a search: a pool that asks the study for what to run next, and tells it how each run ended."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.errors import ConfigError, DataError, nearest, write_atomically
from jaxvision.run.log import JsonLines
from launch import local, plan, space, sweep
from launch.command import Command, command
from launch.description import Search
from launch.plan import Member, Plan
from launch.state import PRUNED, State, state
from launch.study import MEMBER, Ended, Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def member_of(search: Search, params: dict) -> Member:
    """The run of a suggestion, resolved; builds the experiment and opens its data.

    Raises:
      ConfigError: for values that the experiment refuses, or a field that nothing reads.
      DataError: if the data can't be opened.
    """
    variants = sweep.named([space.change(params)])
    return plan.make(search.experiment, variants, (), search.overrides, search.deciding).members[0]


def evaluations(workdir: Path, figure: str) -> list[tuple[int, float]]:
    """Step and figure of each evaluation of a run in which the figure is finite."""
    rows = JsonLines(workdir / "metrics.jsonl").read() if workdir.is_dir() else []
    found = [(int(row["step"]), row[figure]) for row in rows if row.get(figure) is not None]
    return [(step, value) for step, value in found if math.isfinite(value)]


class Trials(local.Pool):
    """Runs trials until a study has as many as it is to have, and each of them is finished."""

    def __init__(
        self,
        study: Study,
        most: int,
        places: Sequence[local.Slot],
        *,
        retries: int,
        stop_after_failures: int,
        pictures: bool = False,
        say: Callable[[str], None] = print,
    ):
        logs = study.folder / local.LOGS
        super().__init__((), places, logs, retries=retries, stop_after_failures=stop_after_failures, say=say)
        self.study, self.search, self.folder, self.most = study, study.search, study.folder, most
        self.pictures = pictures
        self.bound: dict[int, Command] = {}
        """The run of each unfinished trial that this launcher has seen, its own or another's."""
        self.why: dict[str, str] = {}
        """Why each run failed the last time."""
        self.reported: dict[int, int] = {}
        """Evaluations of each trial that the study knows."""

    def run(self) -> local.Outcome:
        """Returns when all trials are finished, or the pool was stopped: what is left then goes on with the next start."""
        self._plan([])
        self._find()
        self._look_elsewhere()
        self._refill()
        return super().run()

    @property
    def figure(self) -> str:
        """The deciding figure."""
        return self.search.deciding.figure

    def _refill(self) -> None:
        """Asks for trials while there is room to run them."""
        while not self.stopped and len(self.waiting) < len(self.free) and (trial := self.study.ask(self.most)):
            run = self._bind(trial)
            if run is None:
                continue
            if self.study.claim(run.name):
                self.waiting.append(run)
            else:
                self.elsewhere[run.name] = run
        if not (self.running or self.waiting or self.elsewhere):
            self._find()  # what other launchers still run

    def _find(self) -> None:
        """Trials that are not finished and that this launcher doesn't know: another's, or of one that is gone."""
        for trial in self.study.unfinished():
            if trial.number in self.bound:
                continue
            if self.study.is_planned_elsewhere(trial):
                self.elsewhere[f"trial {trial.number}"] = Command(f"trial {trial.number}", (), self.folder, {})
            elif run := self._bind(trial):
                self.elsewhere[run.name] = run

    def _bind(self, trial: FrozenTrial) -> Command | None:
        """The run of a trial, if it is to be run; None if it is known already, or its result is, or there can be none."""
        try:
            member = self._member(trial)
        except (ConfigError, DataError) as error:
            self.failed.append(f"trial {trial.number}")
            self._finish(trial.number, "FAIL", why=str(error))
            return None
        known = self.study.name(trial.number, member.name)
        if known is not None:
            self.study.repeat(trial.number, known)
            self.say(f"trial {trial.number}: {member.name} again, which is known from trial {known.number}")
            return None
        run = command(self._plan([member]), member, self.folder, report=self.pictures)
        self.bound[trial.number] = run
        waiting = [each.name for each in self.waiting]
        return None if run.name in {*self.running, *self.elsewhere, *waiting} else run

    def _member(self, trial: FrozenTrial) -> Member:
        """The run of a trial, from the plan if it is there, so that nobody opens the data of another launcher's runs."""
        name = trial.user_attrs.get(MEMBER)
        planned = [member for member in plan.read(self.folder).members if member.name == name]
        return planned[0] if planned else member_of(self.search, trial.params)

    def _plan(self, members: Sequence[Member]) -> Plan:
        """The plan in the folder, with these members too."""
        made = Plan(self.search.experiment.absolute(), self.search.code, tuple(members), self.search.deciding)
        with self.study.changing():
            if (self.folder / plan.FILE).exists():
                return plan.extend(plan.read(self.folder), made, self.folder)
            plan.write(made, self.folder)
        return made

    def _collect(self) -> None:
        super()._collect()
        for number, run in list(self.bound.items()):
            if run.name in self.running:
                self._watch(number, run)
            elif run.name not in self.elsewhere:
                self._settle(number, run)
        self._refill()

    def _watch(self, number: int, run: Command) -> None:
        """Reports what a run has reached since the last look, and ends it where the pruner says so."""
        reached = evaluations(run.workdir, self.figure)
        for step, value in reached[self.reported.get(number, 0) :]:
            self.study.report(number, step, value)
            if self.study.prunes(number, step) and not (run.workdir / PRUNED).exists():
                write_atomically(run.workdir / PRUNED, f"at step {step:,}: {self.figure} {value:.4g}\n")
                process, _, _ = self.running[run.name]
                process.send_signal(signal.SIGTERM)
                break
        self.reported[number] = len(reached)

    def _judge(self, run: Command, status: int, at: State, process: int) -> None:
        if at.kind == "pruned":
            self.say(f"{run.name}: pruned, {at.detail}")
        else:
            super()._judge(run, status, at, process)

    def _again(self, command: Command, why: str) -> None:
        self.why[command.name] = why
        super()._again(command, why)

    def _settle(self, number: int, run: Command) -> None:
        """Tells the study how a run ended, if it did."""
        at = state(run.workdir)
        if at.kind == "pruned":
            self._finish(number, "PRUNED")
        elif at.kind == "done":
            for step, value in evaluations(run.workdir, self.figure):
                self.study.report(number, step, value)
            value = at.figures.get(self.figure)
            if value is not None and math.isfinite(value):
                self._finish(number, "COMPLETE", value)
            else:
                self.failed.append(run.name)
                self._finish(number, "FAIL", why=self._missing(at))
        elif run.name in self.failed:
            self._finish(number, "FAIL", why=self.why.get(run.name, at.detail))

    def _missing(self, at: State) -> str:
        """Why a run that is done has no figure."""
        if self.figure in at.figures:
            return f"{self.figure} is not finite"
        return f"no evaluation gives the figure {self.figure!r}{nearest(self.figure, sorted(at.figures))}"

    def _finish(self, number: int, ended: Ended, value: float | None = None, why: str = "") -> None:
        self.bound.pop(number, None)
        self.study.tell(number, ended, value, why)
        if ended == "FAIL":
            self.say(f"trial {number}: failed: {why}")

    def _look_elsewhere(self) -> None:
        """Runs that are other launchers' stay with them; those whose launcher is gone come into the line."""
        if not self.elsewhere or time.monotonic() - self._looked < local.ELSEWHERE:
            return
        self._looked = time.monotonic()
        self._find()
        unfinished = {trial.number for trial in self.study.unfinished()}
        self.bound = {number: run for number, run in self.bound.items() if number in unfinished}
        for name, run in list(self.elsewhere.items()):
            if name not in {each.name for each in self.bound.values()}:
                del self.elsewhere[name]  # finished by another launcher, or not planned before
            elif state(run.workdir).kind != "running" and self.study.claim(name):
                self.waiting.append(self.elsewhere.pop(name))

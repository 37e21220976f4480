"""Turns: the members of a plan one after another in this process, those of a family under one compiled program.

Each has its workdir, log and lease as a run of its own has, and goes on from its checkpoint. Constants in which the
members of the plan differ are inputs, so that the last bits of a member may be others than those of its run alone.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from jaxvision.commands import message
from jaxvision.errors import ConfigError
from jaxvision.machine.signals import Stopped
from jaxvision.run import config as configs
from jaxvision.run import devices, training
from launch import local
from launch.command import Command
from launch.plan import Plan, code
from launch.together import families
from launch.together.steps import Steps


class Turns(local.Pool):
    """A pool whose runs are calls in this process, one at a time."""

    def __init__(
        self,
        planned: Plan,
        commands: Sequence[Command],
        steps: Mapping[str, Steps],
        logs: Path,
        *,
        report: bool = False,
        retries: int = 0,
        stop_after_failures: int = 3,
        say: Callable[[str], None] = print,
    ):
        place = local.Slot(frozenset(os.sched_getaffinity(0)), {})
        options = {"retries": retries, "stop_after_failures": stop_after_failures, "say": say}
        super().__init__(commands, [place], logs, **options)
        self.planned, self.report = planned, report
        self.steps = steps
        self._called = False

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if self._called:
            raise Stopped(self.signal)

    def _spawn(self, command: Command, slot: local.Slot) -> "Ended":
        self.logs.mkdir(parents=True, exist_ok=True)
        steps = self.steps.get(command.name)
        with printing(self.logs / f"{command.name}.log"):
            return Ended(self._status(command, steps))

    def _status(self, command: Command, steps: Steps | None) -> int:
        """Runs a member; returns the exit status that its own process would have."""
        step_on = devices.step_on if steps is None else partial(steps.step_on, command.name)
        self._called = True
        try:
            interrupted = trained(self.planned, command, step_on, self.report).interrupted
        except (Stopped, KeyboardInterrupt):
            return local.INTERRUPTED
        except Exception as error:
            return status_of(error)
        finally:
            self._called = False
        self.signal = interrupted or self.signal
        return 0 if interrupted is None else local.INTERRUPTED


def trained(planned: Plan, command: Command, step_on: training.StepOn, report: bool) -> training.Trained:
    """Trains a member in this process, as its command would in one of its own."""
    member = next(each for each in planned.members if each.name == command.name)
    if code(planned.experiment) != planned.code:
        raise ConfigError(
            f"{planned.experiment} has changed since its programs were traced: give the same command again"
        )
    experiment, recipe = families.built(planned, member, ["python", *command.arguments[1:]])
    with configs.naming_fields(recipe.config):
        return training.train(experiment, command.workdir, recipe, report=report, step_on=step_on)


def status_of(error: Exception) -> int:
    """Prints an error as a command does; returns the exit status."""
    known = message(error)
    print(f"jaxvision: {known}" if known else traceback.format_exc(), file=sys.stderr, flush=True)
    return 2 if known else 1


class Ended:
    """A run that has ended, as a pool sees a process."""

    def __init__(self, status: int):
        self.status, self.pid = status, os.getpid()

    def poll(self) -> int:
        """The exit status."""
        return self.status

    def send_signal(self, number: int) -> None:
        """A signal that comes too late."""


@contextmanager
def printing(log: Path) -> Iterator[None]:
    """Inside this block what this process prints, by Python or not, is added to a file."""
    before = [os.dup(1), os.dup(2)]
    try:
        with log.open("ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        with open(1, "w", closefd=False, encoding="utf-8") as out, open(2, "w", closefd=False, encoding="utf-8") as err:
            streams = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = out, err
            try:
                yield
            finally:
                sys.stdout, sys.stderr = streams
    finally:
        for stream, kept in enumerate(before, 1):
            os.dup2(kept, stream)
            os.close(kept)

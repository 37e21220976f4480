"""Runs as threads of this process: each trains a member, in a meeting with the others of its family."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from jax.sharding import Mesh

from jaxvision.experiment import Experiment
from jaxvision.machine.signals import Stopped
from jaxvision.run.interruption import REQUEST, Request
from jaxvision.run.training import StepOn, Trained
from jaxvision.train import TrainState, TrainStep
from jaxvision.types import Batch, Scalar
from launch import local
from launch.command import Command
from launch.plan import Plan
from launch.together.meeting import Meeting
from launch.together.turns import status_of, trained

Train = Callable[[StepOn], Trained]
STARTING = threading.Lock()
"""Held by a run until its first step: Python's parser, and some of what traces programs, is not for several threads."""


class Threads(local.Pool):
    """A pool whose runs are threads, all of one family at once."""

    def __init__(
        self,
        planned: Plan,
        commands: Sequence[Command],
        meeting: Meeting,
        logs: Path,
        *,
        retries: int = 0,
        stop_after_failures: int = 3,
        say: Callable[[str], None] = print,
    ):
        place = local.Slot(frozenset(os.sched_getaffinity(0)), {})
        options: dict[str, Any] = {"retries": retries, "stop_after_failures": stop_after_failures, "say": say}
        super().__init__(commands, [place] * len(commands), logs, **options)
        self.planned, self.meeting = planned, meeting
        self._opened = False

    def run(self) -> local.Outcome:
        """Returns when nothing is left to do; SIGTERM and SIGINT end the runs with a checkpoint each."""
        with printing_apart():
            return super().run()

    def _start(self) -> None:
        super()._start()
        if not self._opened and self.running:
            self._opened = True
            self.meeting.open(self.running)

    def _spawn(self, command: Command, slot: local.Slot) -> "Run":
        self.logs.mkdir(parents=True, exist_ok=True)
        meets = not self.attempts.get(command.name) and not self._opened
        step_on = partial(self.meeting.step_on if meets else self.meeting.alone.step_on, command.name)
        train = lambda step_on: trained(self.planned, command, step_on, False)
        leave = partial(self.meeting.leave, command.name)
        return Run(train, step_on, leave, self.logs / f"{command.name}.log")


class Run:
    """A run in a thread, as a pool sees a process."""

    def __init__(self, train: Train, step_on: StepOn, leave: Callable[[], None], log: Path):
        self._train, self._step_on, self._leave, self._log = train, step_on, leave, log
        self._request, self._status, self.pid = Request(), 1, os.getpid()
        context = copy_context()
        context.run(REQUEST.set, self._request)
        self._thread = threading.Thread(target=context.run, args=[self._run], name=log.stem, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        """The exit status that its own process would have; None while it runs."""
        return None if self._thread.is_alive() else self._status

    def send_signal(self, sig: int, /) -> None:
        """Asks the run to save and end; SIGKILL ends this process."""
        if sig == signal.SIGKILL:
            os._exit(128 + sig)
        self._request.name = signal.Signals(sig).name

    def _run(self) -> None:
        with self._log.open("a", encoding="utf-8", buffering=1) as log:
            PRINTED.to = log
            STARTING.acquire()
            started = ExitStack()
            started.callback(STARTING.release)
            try:
                interrupted = self._train(partial(starting, self._step_on, started)).interrupted
                self._status = 0 if interrupted is None else local.INTERRUPTED
            except (Stopped, KeyboardInterrupt):
                self._status = local.INTERRUPTED
            except Exception as error:
                self._status = status_of(error)
            finally:
                started.close()
                self._leave()


def starting(step_on: StepOn, started: ExitStack, mesh: Mesh, experiment: Experiment) -> tuple[TrainStep, TrainState]:
    """The step of a run, whose first call says that the run has started."""
    step, like = step_on(mesh, experiment)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Scalar]]:
        started.close()
        return step(state, batch)

    return train_step, like


PRINTED = threading.local()
"""Where this thread prints to."""


class Apart:
    """A stream that is another for each thread that has one of its own."""

    def __init__(self, usual: TextIO):
        self._usual = usual

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(PRINTED, "to", self._usual), name)


@contextmanager
def printing_apart():
    """Inside this block each thread prints into its own log."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Apart(before[0]), Apart(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before

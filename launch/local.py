"""Runs on this machine: a pool of processes over its GPUs or its processor cores."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

from jaxvision.errors import ConfigError, amount
from jaxvision.machine.signals import INTERRUPTED, ONCE
from jaxvision.run import lease
from jaxvision.run.workdir import IN_USE
from launch import cancel
from launch.command import Command
from launch.state import State, state

LOGS = "logs"
"""The folder of what the runs print, beside their workdirs."""
POLL = 0.2
"""Seconds between two looks at the processes."""
ELSEWHERE = 2.0
"""Seconds between two looks at a run that another launcher started."""


class Slot(NamedTuple):
    """Where one run at a time runs."""

    cores: frozenset[int]
    environment: dict[str, str]


class Process(Protocol):
    """A run that a pool has started."""

    @property
    def pid(self) -> int:
        """The number of its process."""
        ...

    def poll(self) -> int | None:
        """The exit status; None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Sends it a signal."""


class Outcome(NamedTuple):
    """What a pool did."""

    failed: tuple[str, ...]
    """Runs that failed more often than they may."""
    left: tuple[str, ...]
    """Runs that were not started, or not ended, since the pool was stopped."""
    signal: str | None
    """The signal that stopped it."""


def slots(workers: int | None = None) -> list[Slot]:
    """Where runs go: one a GPU, else one a worker, each with the same number of cores, as the bits depend on it.

    Args:
      workers: runs at once; None: one a GPU, or one that has all cores.

    Raises:
      ConfigError: `workers` below 1, or more than there are GPUs, or cores.
    """
    cores, found = sorted(os.sched_getaffinity(0)), gpus()
    count = workers if workers is not None else len(found) or 1
    most, what = (len(found), "GPUs") if found else (len(cores), "processor cores")
    if not 1 <= count <= most:
        raise ConfigError(f"--workers={count}: there are {most} {what}; allowed are 1 to {most}")
    each = len(cores) // count
    parts = [frozenset(cores[i * each : (i + 1) * each]) if each else frozenset(cores) for i in range(count)]
    return [Slot(part, {"CUDA_VISIBLE_DEVICES": found[i]} if found else {}) for i, part in enumerate(parts)]


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by number or name; those of CUDA_VISIBLE_DEVICES where it is set."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in chosen.split(",") if name not in ("", "-1")]
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


class Pool:
    """Runs commands, as many at once as there are slots, until all are done, failed, or it is told to stop."""

    def __init__(
        self,
        commands: Sequence[Command],
        places: Sequence[Slot],
        logs: Path,
        *,
        retries: int = 0,
        stop_after_failures: int = 3,
        say: Callable[[str], None] = print,
    ):
        self.logs, self.retries, self.most_failures, self.say = logs, retries, stop_after_failures, say
        self.free = list(places)
        self.waiting = deque(commands)
        self.running: dict[str, tuple[Process, Slot, Command]] = {}
        self.elsewhere: dict[str, Command] = {}
        self.attempts: dict[str, int] = {}
        self.failed: list[str] = []
        self.signal: str | None = None
        """What ends the pool before all is done."""
        self._asked = 0
        """How often it was asked to end: the first time runs save and end, then they are killed."""
        self._when = 0.0
        self._told: dict[str, int] = {}
        """What each run that is ending was told so far."""
        self._stood: dict[str, int] = {}
        """The step at which each run was last interrupted."""
        self._logged: dict[str, int] = {}
        """Where in its log the newest start of each run begins."""
        self._looked = 0.0

    def run(self) -> Outcome:
        """Returns when nothing is left to do; SIGTERM and SIGINT end the runs with a checkpoint each."""
        (self.logs.parent / cancel.FILE).unlink(missing_ok=True)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self.running or (not self.stopped and (self.waiting or self.elsewhere)):
                self._see_cancelled()
                self._start()
                self._tell()
                self._collect()
                self._look_elsewhere()
                time.sleep(POLL)
        except BaseException:
            self._asked += 1
            self._tell()  # no run goes on without a launcher that knows of it
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        left = [*(each.name for each in self.waiting), *self.elsewhere]
        return Outcome(tuple(self.failed), tuple(left), self.signal)

    @property
    def stopped(self) -> bool:
        """Whether no further run is started."""
        return self.signal is not None or len(self.failed) >= self.most_failures

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._ask(signal.Signals(number).name)

    def _ask(self, name: str) -> None:
        """Notes a request to end; SIGTERM soon after another one is the same: `launch.cancel` and a scheduler may send it."""
        now = time.monotonic()
        if self._asked and name == "SIGTERM" and now - self._when < ONCE:
            return
        self._asked, self._when, self.signal = self._asked + 1, now, name
        if self._asked == 1:
            self.say(f"{name}: {amount(len(self.running), 'run')} save and end; again: they are killed")

    def _tell(self) -> None:
        """Passes on what the launcher was asked; also to a run that was being started meanwhile."""
        for name, (process, _, _) in self.running.items():
            if self._told.get(name, 0) < self._asked:
                self._told[name] = self._asked
                process.send_signal(signal.SIGTERM if self._asked == 1 else signal.SIGKILL)

    def _see_cancelled(self) -> None:
        """Ends the runs after `launch.cancel`, which tells those on its host too: SIGTERM twice at once is one request."""
        if self.signal is None and (self.logs.parent / cancel.FILE).exists():
            self._ask("launch.cancel")

    def _start(self) -> None:
        while self.free and self.waiting and not self.stopped:
            command = self.waiting.popleft()
            at = state(command.workdir)
            if at.kind == "done":
                continue
            if at.kind == "running":
                self.elsewhere[command.name] = command
                continue
            slot = self.free.pop(0)
            self.say(f"{command.name}: {'goes on' if at.step else 'starts'}")
            self._logged[command.name] = self._length(command)
            self.running[command.name] = (self._spawn(command, slot), slot, command)

    def _length(self, command: Command) -> int:
        """The length of the log of a run."""
        try:
            return (self.logs / f"{command.name}.log").stat().st_size
        except OSError:
            return 0

    def _spawn(self, command: Command, slot: Slot) -> Process:
        self.logs.mkdir(parents=True, exist_ok=True)
        before = os.sched_getaffinity(0)
        with (self.logs / f"{command.name}.log").open("ab") as log:
            os.sched_setaffinity(0, slot.cores)  # the child has that of the thread that starts it
            try:
                return subprocess.Popen(
                    command.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **slot.environment, **command.environment},
                    start_new_session=True,  # Ctrl-C reaches this process alone, which tells them
                )
            finally:
                os.sched_setaffinity(0, before)

    def _collect(self) -> None:
        for name, (process, slot, command) in list(self.running.items()):
            status = process.poll()
            if status is None:
                continue
            del self.running[name]
            self.free.append(slot)
            self._told.pop(name, None)
            self._judge(command, status, state(command.workdir), process.pid)

    def _judge(self, command: Command, status: int, at: State, process: int) -> None:
        said = self._last_line(command, status)
        if at.kind == "running" or (status == 2 and IN_USE in said):
            self.elsewhere[command.name] = command
        elif status == 0:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in list(at.figures.items())[:3])
            self.say(f"{command.name}: done, {figures}")
        elif self.signal is not None and status in (INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL):
            self.waiting.append(command)
        elif status == INTERRUPTED and at.step > self._stood.get(command.name, -1):
            self._stood[command.name] = at.step
            self.waiting.append(command)
        else:
            held = lease.read(command.workdir)
            its_own = at.kind == "failed" and held is not None and held.process == process
            self._again(command, at.detail if its_own else said)

    def _again(self, command: Command, why: str) -> None:
        tries = self.attempts[command.name] = self.attempts.get(command.name, 0) + 1
        if tries <= self.retries:
            self.waiting.appendleft(command)  # at once: what always fails is known before the others are started
        else:
            self.failed.append(command.name)
        more = "" if command.name in self.failed else "; it is tried again"
        self.say(f"{command.name}: failed: {why}{more}")
        if len(self.failed) >= self.most_failures:
            self.say(f"{len(self.failed)} runs failed: no further one is started (--stop-after-failures)")

    def _last_line(self, command: Command, status: int) -> str:
        """What a process printed last since it was started, or how it ended where it printed nothing."""
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        try:
            printed = (self.logs / f"{command.name}.log").read_bytes()[self._logged.get(command.name, 0) :]
            lines = printed.decode("utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        said = [line for line in lines if line.strip()]
        return how if status < 0 or not said else said[-1].strip()[:500]

    def _look_elsewhere(self) -> None:
        """Runs that another launcher had started and that ended come back to the line."""
        if not self.elsewhere or time.monotonic() - self._looked < ELSEWHERE:
            return
        self._looked = time.monotonic()
        for name, command in list(self.elsewhere.items()):
            if state(command.workdir).kind != "running":
                self.waiting.append(self.elsewhere.pop(name))

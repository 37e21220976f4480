"""Runs as tasks of Ray, each in a fresh process; the command waits for them, and starts Ray here where no cluster is named.

A worker that is killed, or a run that fails, is tried again by Ray, and goes on from its checkpoint. Ray listens on every
network interface, whatever address it is given: without its tokens it is not started.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from jaxvision.errors import ConfigError
from jaxvision.machine.signals import INTERRUPTED
from jaxvision.run import lease
from launch import cancel, local
from launch.backends import Settings, Unreachable
from launch.command import Command
from launch.state import state

PACKAGE = "ray"
OPTIONS: Mapping[str, str] = {"address": "of a cluster that runs, as HOST:PORT or auto; without it one is started here"}
NEEDED = ()
USES = ("gpus", "cores", "memory")
POLL = 1.0
"""Seconds between two looks at the tasks, and at whether the plan was cancelled."""
OBJECTS = 100_000_000
"""Bytes of Ray's store of objects, of which runs put nothing there but a number."""


class RunFailed(Exception):
    """A run ended with an error; Ray tries it again."""


def start(runs: Sequence[Command], folder: Path, told: Settings) -> int:
    """Runs what is neither done nor running; returns the exit status: 0 if all are done, 75 if it was stopped, else 1.

    Raises:
      ConfigError: if Ray's authentication is switched off, or no machine of the cluster has what a run asks for.
      Unreachable: if the cluster does not answer.
    """
    connect(told.options.get("address"))
    ray = package()

    try:
        return Driver(runs, folder, told, slots(runs, told)).run()
    finally:
        ray.shutdown()


def package() -> Any:
    """The package of Ray, which has the name of this module; it reads variables of the environment when it is imported."""
    return import_module(PACKAGE)


def connect(address: str | None) -> None:
    """Connects to a cluster, or starts one on this machine, with a token that its own processes alone are given.

    Raises:
      ConfigError: if Ray's authentication is switched off.
      Unreachable: if the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send them to its makers
    if os.environ.setdefault("RAY_AUTH_MODE", "token") != "token":
        raise ConfigError("RAY_AUTH_MODE is not token: whoever reached a port of Ray could run programs here; unset it")
    if address is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray = package()

    quiet = {"configure_logging": False, "log_to_driver": False}
    try:
        if address is not None:
            ray.init(address, **quiet)
            return
        cores, gpus = len(os.sched_getaffinity(0)), len(local.gpus())
        place = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": OBJECTS}
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "os.fork", RuntimeWarning
            )  # Ray's daemons start before any device is used
            ray.init("local", num_cpus=cores, num_gpus=gpus, **place, **quiet)
    except (ConnectionError, TimeoutError, RuntimeError, ray.exceptions.RayError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Unreachable(
            f"Ray can't be reached ({lines[0]}): nothing was started; the same command goes on"
        ) from error


def slots(runs: Sequence[Command], told: Settings) -> int:
    """How many runs the cluster has room for now.

    Raises:
      ConfigError: if that is none.
    """
    ray = package()

    total, of = ray.cluster_resources(), runs[0].resources
    wanted = {"CPU": of.cores or 1, "GPU": of.gpus, "memory": (of.memory or 0) * 1e9}
    room = min(int(total.get(name, 0) // amount) for name, amount in wanted.items() if amount)
    if room < 1:
        has = ", ".join(f"{name} {total.get(name, 0):g}" for name in wanted)
        raise ConfigError(f"the cluster of Ray has no room for a run: it has {has}; a run asks for {wanted}")
    return min(room, told.workers or room)


class Driver:
    """Hands runs to Ray, as many at once as there are slots, until all are done, failed, or it is told to stop."""

    def __init__(self, runs: Sequence[Command], folder: Path, told: Settings, count: int):
        self.folder, self.told, self.slots = folder, told, count
        self.waiting = deque(runs)
        self.tasks: dict = {}
        self.failed: list[str] = []
        self.left: list[str] = []
        self.stopped = ""

    def run(self) -> int:
        """Returns the exit status when nothing is left to do; SIGTERM and SIGINT end the runs with a checkpoint each."""
        ray = package()

        (self.folder / cancel.FILE).unlink(missing_ok=True)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self.tasks or (self.waiting and not self._full()):
                while self.waiting and len(self.tasks) < self.slots and not self._full():
                    self._start(self.waiting.popleft())
                for task in ray.wait(list(self.tasks), timeout=POLL)[0] if self.tasks else ():
                    self._end(task, self.tasks.pop(task))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.stopped:
            self.told.say(f"stopped by {self.stopped}; the same command goes on")
            return INTERRUPTED
        return 1 if self.failed or self.left or self.waiting else 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number).name
        (self.folder / cancel.FILE).touch()  # each run sees it, wherever it is

    def _full(self) -> bool:
        """Whether no further run is started."""
        if not self.stopped and (self.folder / cancel.FILE).exists():
            self.stopped = "launch.cancel"
        return bool(self.stopped) or len(self.failed) >= self.told.stop_after_failures

    def _start(self, run: Command) -> None:
        ray = package()

        at = state(run.workdir)
        if at.kind == "done":
            return
        if at.kind == "running":
            self.left.append(run.name)
            self.told.say(f"{run.name}: runs on {at.detail}")
            return
        self.told.say(f"{run.name}: {f'goes on from step {at.step:,}' if at.step else 'starts'}")
        of = run.resources
        root = str(Path(__file__).parent.parent)
        variables = {"PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}", **run.environment}
        remote = ray.remote(
            num_cpus=of.cores or 1,
            num_gpus=of.gpus,
            memory=None if of.memory is None else int(of.memory * 1e9),
            max_calls=1,  # JAX keeps devices and settings for as long as its process lives
            max_retries=self.told.retries,
            retry_exceptions=True,
            runtime_env={"env_vars": variables},
        )(work)
        self.tasks[remote.options(name=run.name).remote(run.name, run.arguments, str(self.folder))] = run

    def _end(self, task, run: Command) -> None:
        ray = package()

        try:
            status = ray.get(task)
        except ray.exceptions.RayError as error:
            at = state(run.workdir)
            why = at.detail if at.kind == "failed" else type(error).__name__
            self.failed.append(run.name)
            self.told.say(f"{run.name}: failed: {why}")
            if len(self.failed) >= self.told.stop_after_failures:
                self.told.say(f"{len(self.failed)} runs failed: no further one is started (--stop-after-failures)")
            return
        if status == 0:
            self.told.say(f"{run.name}: done")
        elif self._full():
            self.left.append(run.name)
        else:
            self.waiting.append(run)


def work(name: str, arguments: Sequence[str], folder: str) -> int:
    """A run, in a worker of Ray, whose process it has for itself; returns its exit status.

    Raises:
      RunFailed: if it ends with an error.
    """
    from jaxvision import main

    if (Path(folder) / cancel.FILE).exists():
        return INTERRUPTED
    logs = Path(folder) / local.LOGS
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab", buffering=0) as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False, buffering=1, encoding="utf-8")  # noqa: SIM115  (Ray's go elsewhere)
    sys.stderr = open(2, "w", closefd=False, buffering=1, encoding="utf-8")  # noqa: SIM115
    threading.Thread(target=_see_cancelled, args=[Path(folder)], name="cancelled", daemon=True).start()
    try:
        status = main.main(arguments[3:])  # after the interpreter, -m and the module
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    if status not in (0, INTERRUPTED):
        held = lease.read(Path(folder) / name)
        raise RunFailed(held.detail if held is not None and held.state == "failed" else f"exit status {status}")
    return status


def _see_cancelled(folder: Path) -> None:
    """Has the run save and end when the plan is cancelled."""
    while not (folder / cancel.FILE).exists():
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)

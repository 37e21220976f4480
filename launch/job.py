"""One run inside a job of SLURM: starts its command, has it save when the job must end, and has the job queued again.

It keeps nothing of its own: where the run stands is in its workdir. So the job may be taken up at any time, on any node.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from jaxvision.machine.signals import INTERRUPTED
from jaxvision.run import lease
from launch import cancel

POLL = 0.2
"""Seconds between two looks at the process."""
PATIENCE = 60
"""Seconds that SLURM may take to answer."""


class Job:
    """What SLURM runs, in every task of a job: the pickle has the arguments and nothing else."""

    def __init__(
        self,
        name: str,
        arguments: tuple[str, ...],
        folder: Path,
        environment: Mapping[str, str],
        retries: int = 0,
        stop_after_failures: int = 3,
        since: float = 0.0,
    ):
        self.name, self.arguments, self.folder, self.environment = name, arguments, folder, environment
        self.retries, self.stop_after_failures, self.since = retries, stop_after_failures, since
        self._process: subprocess.Popen | None = None
        self._told = False

    def __reduce__(self):
        constants = (self.name, self.arguments, self.folder, self.environment)
        return Job, (*constants, self.retries, self.stop_after_failures, self.since)

    def __call__(self) -> str:
        """Runs the command until it is done, interrupted, or has failed too often; returns how it ended.

        Raises:
          RuntimeError: after the last failure.
        """
        signal.signal(signal.SIGTERM, self._note)
        for attempt in range(self.retries + 1):
            if why := self._unwanted():
                return self._say(f"not started: {why}")
            status = self._run()
            if status == 0:
                return self._say("done")
            if status == INTERRUPTED or self._told:  # preempted before it could save, too: that is no failure
                return self._say(self._interrupted())
            again = "; it is tried again" if attempt < self.retries else ""
            self._say(f"failed: {self._why(status)}{again}")
        raise RuntimeError(f"{self.name} failed: {self._why(status)}")

    def checkpoint(self):
        """Ends the run, saved; called by submitit in a signal handler, before it has the job queued again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            if not self._told and not ended(self._process.pid):
                self._process.terminate()
            while not ended(self._process.pid):
                time.sleep(POLL)
        return DelayedSubmission(self)

    def _note(self, number: int, frame) -> None:
        """SLURM sends SIGTERM to every process of a job: the run has it, and a second one would kill it."""
        self._told = True

    def _unwanted(self) -> str:
        """Why the run is not to be started, if so."""
        held = lease.read(self.folder / self.name)
        if held is not None and held.state == "done":
            return "it is done"
        if (self.folder / cancel.FILE).exists():
            return "the plan was cancelled"
        failed = [path.parent.name for path in self.folder.glob(f"*/{lease.FILE}") if self._failed(path)]
        if len(set(failed) - {self.name}) >= self.stop_after_failures:
            return f"{len(failed)} runs failed (--stop-after-failures)"
        return f"it runs on {held.host}" if held is not None and rank() == 0 and self._runs_elsewhere(held) else ""

    def _runs_elsewhere(self, held: lease.Lease) -> bool:
        """Whether another process holds the workdir, after the time in which the lease of a dead one grows old."""
        end = time.monotonic() + 1.5 * lease.STALE
        while lease.alive(self.folder / self.name, held) and time.monotonic() < end:
            time.sleep(1.0)
            held = lease.read(self.folder / self.name) or held
        return lease.alive(self.folder / self.name, held)

    def _failed(self, path: Path) -> bool:
        """Whether a run has failed since the submission."""
        held = lease.read(path.parent)
        return held is not None and held.state == "failed" and path.stat().st_mtime > self.since

    def _run(self) -> int:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / (f"{self.name}.{rank()}.log" if rank() else f"{self.name}.log")
        users = {signal.SIGUSR1, signal.SIGUSR2}  # SLURM sends them to every process; the run would die of them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, users)
        try:
            with log.open("ab") as file:
                environment = {**os.environ, **self.environment}
                self._process = subprocess.Popen(
                    self.arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while not ended(self._process.pid):
            time.sleep(POLL)
        return self._process.wait()

    def _interrupted(self) -> str:
        """Has the job queued again, unless someone cancelled it; the first of its processes does."""
        if (self.folder / cancel.FILE).exists():
            return "cancelled; the same command goes on"
        if rank():
            return "interrupted"
        job = os.environ["SLURM_JOB_ID"]
        try:
            if "JobState=CANCELLED" in asked("scontrol", "-o", "show", "job", job):
                return "its job was cancelled; the same command goes on"
            asked("scontrol", "requeue", job)
        except (OSError, subprocess.SubprocessError) as error:
            return f"interrupted, and not queued again ({error}); the same command goes on"
        return "interrupted; its job is queued again"

    def _why(self, status: int) -> str:
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        held = lease.read(self.folder / self.name)
        return held.detail if held is not None and held.state == "failed" else f"exit status {status}"

    def _say(self, what: str) -> str:
        print(f"{self.name}: {what}", file=sys.stderr, flush=True)
        return what


def rank() -> int:
    """The number of this process among those of the job."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def asked(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
      OSError: if it is not installed.
      SubprocessError: if it fails, or gives no answer.
    """
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True).stdout


def ended(process: int) -> bool:
    """Whether a child has ended; takes no lock, so that a signal handler may ask, and leaves its status to be read."""
    try:
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True

"""The lease of a workdir: who runs in it, renewed while that lasts, and how it ended; read by whoever starts runs.

File locks don't cross every network file system; a file that grows old does. Its age is measured by the clock of the file
system that it is on, so that the clocks of hosts may differ.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from jaxvision.errors import write_atomically
from jaxvision.machine.signals import INTERRUPTED, Stopped

FILE = "lease.json"
SECONDS = 30.0
"""Between two renewals."""
STALE = 4 * SECONDS
"""Age, in seconds, past which nobody holds the lease."""
JOBS = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "RAY_JOB_ID", "JOB_COMPLETION_INDEX", "HOSTNAME")
State = Literal["running", "done", "interrupted", "failed"]


class Lease(NamedTuple):
    """What the file says."""

    state: State
    host: str
    process: int
    born: str
    """When the process began, as the system has it: another process of the same number began at another time."""
    job: dict[str, str]
    time: str
    """When it was last renewed, by the clock of the host."""
    step: int = 0
    """Steps done when it ended."""
    steps: int = 0
    """Steps asked for."""
    detail: str = ""
    """The last line of an error, or the signal."""


class Held:
    """The lease of a workdir while a run is in it; use it in a `with` block, and say at its end how it ended."""

    def __init__(self, workdir: Path, steps: int, seconds: float = SECONDS):
        self.path = workdir / FILE
        self.steps = steps
        self.seconds = seconds
        self._end: tuple[State, int, str] = ("failed", 0, "it ended without a word")
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._said = False
        """Whether the file says how the run ended: it is not written again."""
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Held":
        self._write("running")
        self._thread.start()
        return self

    def ended(self, step: int, signal: str | None) -> None:
        """The run ends at this step: done, or early, by a signal, to go on later."""
        self._end = ("done" if signal is None else "interrupted", step, signal or "")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if error is not None:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._end = ("failed", 0, lines[-1][:500])
            if isinstance(error, KeyboardInterrupt | Stopped):
                self._end = ("interrupted", 0, error.name if isinstance(error, Stopped) else "SIGINT")
        self._write(*self._end)

    def left(self, status: int, why: str) -> None:
        """The process is about to leave past the end of the block, by `leaving.at_once`: the lease says how."""
        self._ended.set()
        self._write("interrupted" if status == INTERRUPTED else "failed", 0, why)

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds):
            self._write("running")

    def _write(self, state: State, step: int = 0, detail: str = "") -> None:
        """A lease that can't be written ends no run: whoever looks takes it for lost, and the lock still holds."""
        job = {name: os.environ[name] for name in JOBS if os.environ.get(name)}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        me = (socket.gethostname(), os.getpid(), born(os.getpid()))
        lease = Lease(state, *me, job, now, step, self.steps, detail)
        with self._lock:
            if not self._said:
                with contextlib.suppress(OSError):
                    write_atomically(self.path, json.dumps(lease._asdict(), indent=1) + "\n")
                    self._said = state != "running"


def read(workdir: Path) -> Lease | None:
    """The lease of a workdir; None where there is none that can be read."""
    try:
        data: dict[str, Any] = json.loads((workdir / FILE).read_text(encoding="utf-8"))
        return Lease(**data)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def alive(workdir: Path, lease: Lease, stale: float = STALE) -> bool:
    """Whether the holder of the lease still runs, if it can be seen from here, or else still renews it."""
    if lease.state != "running":
        return False
    if lease.born and _family(lease.born) == _family(born(os.getpid())):
        return born(lease.process) == lease.born
    return age(workdir) < stale


def age(workdir: Path) -> float:
    """Seconds since the lease was renewed, by the clock of its file system; infinite where there is none."""
    try:
        renewed = (workdir / FILE).stat().st_mtime
    except OSError:
        return float("inf")
    try:
        with tempfile.NamedTemporaryFile(dir=workdir, prefix=".clock-") as probe:
            now = os.fstat(probe.fileno()).st_mtime
    except OSError:  # one who may only read has no other clock than that of this host
        now = time.time()
    return max(0.0, now - renewed)


def born(process: int) -> str:
    """Boot, process namespace and moment in which a process began; empty where the system does not say, or it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot} {space} {fields[19]}"


def _family(born: str) -> str:
    """Boot and process namespace: processes that can see each other."""
    return born.rpartition(" ")[0]

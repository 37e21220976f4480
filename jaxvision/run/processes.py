"""Several processes as one run: how they meet, what each reads, how they end together.

They share the workdir, and the first one writes it. Each reads only its rows of every batch, of one global order. SIGTERM to
any of them makes all save the same step; Ctrl-C ends them at once.
"""

import os
import signal
import socket
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxvision.errors import AnotherProcessFailed
from jaxvision.types import Shard

GIVEN_UP = 2
"""Exit status of a process that met nobody."""
CLUSTER_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "TPU_WORKER_HOSTNAMES",
    "TPU_WORKER_ID",
)


class Meeting(NamedTuple):
    """How several processes find each other; without a coordinator, SLURM, Open MPI or Cloud TPU say."""

    coordinator: str | None = None
    """`HOST:PORT` of process 0."""
    processes: int | None = None
    process: int | None = None
    """The number of this one, from 0."""
    seconds: int = 300
    """How long to wait for the others."""


def meet(meeting: Meeting) -> None:
    """Makes this process one of several; call it before anything touches a device.

    If the others have not come in time, says what to look at and ends the process: there is no way back from there.

    Raises:
      ValueError: if the address is none, its host has no address, or no cluster is found where none is given.
    """
    if meeting.coordinator is not None:
        _check_address(meeting.coordinator)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    timer = threading.Timer(meeting.seconds, _give_up, [meeting])
    timer.daemon = True
    timer.start()
    try:
        # Its own time limit ends the process with a stack trace in place of a message.
        jax.distributed.initialize(*meeting[:3], initialization_timeout=meeting.seconds + 60)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"could not join the other processes: {error}") from error
    finally:
        timer.cancel()


def _check_address(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"the coordinator is {coordinator!r}; it must be HOST:PORT")
    try:
        socket.getaddrinfo(host, int(port))
    except OSError as error:
        raise ValueError(
            f"the coordinator's host {host!r} can't be found from {socket.gethostname()}: {error}"
        ) from None


def _give_up(meeting: Meeting) -> None:
    hints = [f"{name}={os.environ[name]}" for name in CLUSTER_VARIABLES if name in os.environ]
    where = meeting.coordinator or f"the cluster's first host ({', '.join(hints) or 'found by JAX'})"
    me = "this process" if meeting.process is None else f"process {meeting.process} of {meeting.processes}"
    print(
        f"jaxvision: {me} on {socket.gethostname()} has waited {meeting.seconds} s to meet the others at {where}. Were all "
        "of them started, with the same address? Does its name resolve, and is its port open, from every host?",
        file=sys.stderr,
        flush=True,
    )
    os._exit(GIVEN_UP)


def shard() -> Shard:
    """The part of every batch that this process reads."""
    return Shard(jax.process_index(), jax.process_count())


def is_first() -> bool:
    """Whether this is the process that writes the files of the run."""
    return jax.process_index() == 0


@contextmanager
def together() -> Iterator[None]:
    """A block that fails on all processes if it fails on one. It must hold nothing that waits for the other processes.

    Raises:
      AnotherProcessFailed: where this one did not fail.
    """
    if not several():
        yield
        return
    try:
        yield
    except BaseException:
        multihost_utils.process_allgather(np.asarray(False))
        raise
    fine = np.asarray(multihost_utils.process_allgather(np.asarray(True))).reshape(-1)
    if not fine.all():
        failed = ", ".join(map(str, np.flatnonzero(~fine)))
        raise AnotherProcessFailed(f"process {failed} failed; its own message says why")


def leave(status: int) -> None:
    """Ends a process of several at once, after an error: the usual way out waits for the others."""
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def check_same(what: str, text: str) -> None:
    """Raises AnotherProcessFailed if the text is not the same on all processes."""
    if several():
        checksum = zlib.crc32(text.encode())
        sums = np.asarray(multihost_utils.process_allgather(np.uint32(checksum))).reshape(-1)
        others = np.flatnonzero(sums != checksum)
        if len(others):
            raise AnotherProcessFailed(f"process {', '.join(map(str, others))} has other {what} than this one")


def asked_to_stop(step: int) -> bool:
    """Whether one of several processes got SIGTERM; true at the same step on all. Called after every step."""
    return several() and multihost_utils.reached_preemption_sync_point(step)


class Interruption:
    """Notes SIGTERM and SIGINT inside a `with` block instead of dying of them; a second one kills as usual.

    Outside the main thread, where no signal can be caught, it notes none.
    Where a run has several processes, JAX notes SIGTERM and makes them agree on the step.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before = {}

    def requested(self, step: int) -> bool:
        """Whether one of the signals came; of several processes, to any of them, and known to all after the same step."""
        if asked_to_stop(step):
            self.name = "SIGTERM"
        return self.name is not None

    def _note(self, number: int, frame) -> None:
        self.name = signal.Signals(number).name
        signal.signal(number, self._before[number])
        with suppress(OSError):  # nobody may be there to read it
            os.write(2, f"\n{self.name}: saving a checkpoint, then ending (again to end at once)\n".encode())

    def __enter__(self) -> "Interruption":
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGTERM, signal.SIGINT) if main and not several() else ():
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""Several processes as one run: how they meet, what each reads, how they end together.

They share the workdir, and the first one writes it. Each reads only its rows of every batch, of one global order. SIGTERM to
any of them makes all save the same step; Ctrl-C ends them at once.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxvision.errors import AnotherProcessFailed, ConfigError, WorkdirError, write_atomically
from jaxvision.run import peers
from jaxvision.types import Shard

GIVEN_UP = 2
"""Exit status of a process that met nobody."""
CHECKSUM = "\N{NULL}"
"""End of the name of a setting whose value says nothing to a person."""
SHOWN = 5
"""How many of several differences, or processes, a message names."""
SECONDS_TO_APPEAR = 60.0
"""How long what process 0 writes to the workdir may take to be seen by the others: as long as NFS keeps what it knows."""
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
        jax.distributed.initialize(
            *meeting[:3], initialization_timeout=meeting.seconds + 60, heartbeat_timeout_seconds=peers.HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"could not join the other processes: {error}") from error
    finally:
        timer.cancel()
    peers.connect()


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
        with suppress(Exception):  # of a connection that broke
            multihost_utils.process_allgather(np.asarray(False))
        raise
    fine = np.asarray(multihost_utils.process_allgather(np.asarray(True))).reshape(-1)
    if not fine.all():
        failed = ", ".join(map(str, np.flatnonzero(~fine)))
        raise AnotherProcessFailed(f"process {failed} failed; its own message says why")


def leave(status: int, why: str = "") -> None:
    """Ends a process of several at once, after an error: the usual way out waits for the others, to whom it says why."""
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        if why:
            peers.fail(why)
        os._exit(status)


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def gathered(text: str) -> list[str]:
    """The texts of all processes, in their order."""
    if not several():
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(data)))).reshape(-1)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


def check_same(settings: Mapping[str, str]) -> None:
    """Checks that the settings are the same on all processes.

    Args:
      settings: what each is, by name. A name that ends in `CHECKSUM` has one as its value, which is not shown.

    Raises:
      ConfigError: on every process, if not; it says what differs and on which.
    """
    if not several():
        return
    text = json.dumps(dict(settings), sort_keys=True)
    if len(set(gathered(str(zlib.crc32(text.encode()))))) == 1:
        return
    lines = different([json.loads(each) for each in gathered(text)])
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    raise ConfigError(f"the processes don't run the same: {'; '.join(lines[:SHOWN])}{more}")


def different(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """What is not the same on all processes, a text each, such as "config.seed is 0 on process 0 and 1 on process 1".

    Args:
      settings: those of each process, as for `check_same`.
    """
    lines = []
    for name in sorted(set().union(*settings)):
        values: dict[str, list[int]] = {}
        for process, its in enumerate(settings):
            values.setdefault(its.get(name, "absent"), []).append(process)
        if len(values) > 1 and name.endswith(CHECKSUM):
            others = [process for processes in list(values.values())[1:] for process in processes]
            lines.append(f"{name.removesuffix(CHECKSUM)} is not on {_numbers(others)} what it is on process 0")
        elif len(values) > 1:
            lines.append(f"{name} is {' and '.join(f'{value} on {_numbers(on)}' for value, on in values.items())}")
    return lines


def _numbers(processes: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(processes)[:SHOWN]))
    more = f" and {len(processes) - SHOWN} more" if len(processes) > SHOWN else ""
    return f"process{'es' if len(processes) > 1 else ''} {shown}{more}"


def check_reached(folder: Path) -> None:
    """Checks that all processes see the folder that process 0 writes; called by all, where it is there on process 0.

    Raises:
      WorkdirError: on every process, if one does not see within `SECONDS_TO_APPEAR` what process 0 writes.
    """
    if not several():
        return
    token = gathered(uuid.uuid4().hex)[0]
    path = folder / f".{token}.token"
    with together():
        if is_first():
            write_atomically(path, "")
    seen = _appears(path, SECONDS_TO_APPEAR)
    places = gathered(f"{int(seen)} {socket.gethostname()}:{folder.absolute()}")
    if is_first():
        path.unlink(missing_ok=True)
    blind = [process for process, place in enumerate(places) if place[0] == "0"]
    if blind:
        where = f"{places[blind[0]][2:]} on process {blind[0]}" if len(blind) == 1 else f"it on {_numbers(blind)}"
        raise WorkdirError(
            f"the workdir is not one folder for all processes: what process 0 writes to {places[0][2:]} is not in "
            f"{where}; choose a folder on a file system that all of them share"
        )


def _appears(path: Path, seconds: float) -> bool:
    """Whether the file is there within this time; a network file system may show it late."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        with suppress(OSError):
            os.listdir(path.parent)  # asks the server anew
        time.sleep(0.5)
    return True

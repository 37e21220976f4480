"""Runs a command, and knows of every call by which it changes files before the kernel carries it out. Not a test itself.

The kernel itself asks, by a seccomp filter: whoever makes the call, Python or the C++ threads of a library, no tool,
compiler or privilege is needed, only Linux on x86-64.
"""

import ctypes
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

CALLS = {
    **{1: "write", 18: "write", 20: "write", 296: "write", 328: "write", 40: "write", 326: "write"},
    **{2: "open", 85: "open", 257: "open", 437: "open"},
    **{82: "rename", 264: "rename", 316: "rename"},
    **{87: "unlink", 263: "unlink", 84: "rmdir", 83: "mkdir", 258: "mkdir"},
    **{74: "fsync", 75: "fsync", 76: "truncate", 77: "truncate"},
    **{86: "link", 265: "link", 88: "link", 266: "link"},
}
"""Numbers of Linux on x86-64; `open` and `openat` only where they may write."""
IN_FOLDER = {257: 0, 437: 0, 264: 0, 316: 0, 263: 0, 258: 0, 265: 0, 266: 1}
"""Which argument is the folder that the path, the next argument, is in."""
ON_FILE = {1: 0, 18: 0, 20: 0, 296: 0, 328: 0, 40: 0, 326: 2, 74: 0, 75: 0, 77: 0}
"""Which argument is an open file."""
SYMLINK = 88
"""Its path is the second argument."""
HERE = -100
REMOVES_FOLDER = 0x200
X86_64, ALLOW, ASK = 0xC000003E, 0x7FFF0000, 0x7FC00000
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
libc = ctypes.CDLL(None, use_errno=True)


class Call(NamedTuple):
    """A call about a file below the folder that is watched."""

    name: str
    path: str
    """Below the folder; what chance has named is a star."""


class Watched:
    """A process whose calls are known before they are carried out."""

    def __init__(self, pid: int):
        self.pid = pid

    def kill(self) -> None:
        """Kills it: the call is not carried out, nor any other from now on."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Returns when all its threads have stopped: what is on disk is what a kill would leave there."""
        os.kill(self.pid, signal.SIGSTOP)
        states = lambda: [_state(task) for task in Path(f"/proc/{self.pid}/task").iterdir()]
        while set(states()) - {"T"}:
            time.sleep(0.001)

    def go_on(self) -> None:
        """Ends a stop."""
        os.kill(self.pid, signal.SIGCONT)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def run(command: Sequence[str], folder: Path, output: Path, at: Callable[[Call, Watched], bool]) -> int:
    """Runs a command and returns its status, negative for a signal; what it prints is added to `output`.

    `at` is asked about each call before it is carried out, and returns whether it has stopped the process meanwhile.
    """
    ours, its = socket.socketpair()
    launch = [sys.executable, __file__, str(its.fileno()), *command]
    with output.open("a") as file:
        process = subprocess.Popen(launch, pass_fds=[its.fileno()], stdout=file, stderr=file)
    its.close()
    try:
        _, (listener, *_), _, _ = socket.recv_fds(ours, 1, 1)
        try:
            _watch(listener, Watched(process.pid), str(folder), at)
        finally:
            os.close(listener)
        return process.wait(60)
    finally:
        ours.close()
        process.kill()
        process.wait()


def _watch(listener: int, process: Watched, folder: str, at: Callable[[Call, Watched], bool]) -> None:
    """Answers until the process, and all that it started, have ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    again: Counter = Counter()
    while poll.poll(120_000)[0][1] & select.POLLIN:
        note = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, note)
        except OSError:  # whoever asked has been killed meanwhile
            continue
        identity, task, _, number = struct.unpack_from("QIIi", note)
        call = _known(task, number, struct.unpack_from("6Q", note, 32), folder)
        if call is not None and again[task, call]:
            again[task, call] -= 1  # the kernel asks once more after a stop
        elif call is not None and at(call, process):
            again[task, call] += 1
            continue
        try:
            fcntl.ioctl(listener, ANSWER, struct.pack("QqiI", identity, 0, 0, 1))
        except OSError:
            continue


def _known(task: int, number: int, arguments: tuple[int, ...], folder: str) -> Call | None:
    """The call, if it is about a file below the folder."""
    try:
        path = _path(task, number, arguments)
    except OSError:  # no file, or gone meanwhile
        return None
    if not path.startswith(folder + "/"):
        return None
    path = re.sub(r"[0-9a-f]{32}", "*", path.removeprefix(folder + "/"))
    name = "rmdir" if number == 263 and arguments[2] & REMOVES_FOLDER else CALLS[number]
    return Call(name, re.sub(r"tfevents\..*", "tfevents", path))


def _path(task: int, number: int, arguments: tuple[int, ...]) -> str:
    if number in ON_FILE:
        return os.readlink(f"/proc/{task}/fd/{arguments[ON_FILE[number]]}")
    at = IN_FOLDER.get(number)
    memory = os.open(f"/proc/{task}/mem", os.O_RDONLY)
    try:
        where = arguments[(1 if number == SYMLINK else 0) if at is None else at + 1]
        path = os.fsdecode(os.pread(memory, 1024, where).partition(b"\0")[0])
    finally:
        os.close(memory)
    if os.path.isabs(path):
        return os.path.normpath(path)
    at_folder = HERE if at is None else ctypes.c_int(arguments[at] & 0xFFFFFFFF).value
    return os.path.join(os.readlink(f"/proc/{task}/" + ("cwd" if at_folder == HERE else f"fd/{at_folder}")), path)


def _filter() -> bytes:
    """The program that the kernel runs at each call of the process."""
    equal, any_of = 0x15, 0x45
    load = lambda offset: (0x20, 0, 0, offset)
    answer = lambda value: (0x06, 0, 0, value)
    program = [load(4), (equal, 1, 0, X86_64), answer(ALLOW), load(0)]
    for number in CALLS:
        if number in (2, 257):
            flags = load(16 + 8 * (1 if number == 2 else 2))
            writable = (any_of, 0, 1, os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            program += [(equal, 0, 4, number), flags, writable, answer(ASK), answer(ALLOW)]
        else:
            program += [(equal, 0, 1, number), answer(ASK)]
    return b"".join(struct.pack("HBBI", *each) for each in [*program, answer(ALLOW)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _be_watched(by: socket.socket) -> None:
    """From now on this process, and what it becomes or starts, asks first; whoever answers gets the file for that."""
    code = _filter()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    no_new_privileges, seccomp, set_filter, with_listener = 38, 317, 1, 8
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(seccomp, set_filter, with_listener, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(by, [b"x"], [listener])
    os.close(listener)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as by:
        _be_watched(by)
    os.execv(sys.argv[2], sys.argv[2:])

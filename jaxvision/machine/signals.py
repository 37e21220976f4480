"""Signals that ask the process to end: what is half written is cleared away first."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

INTERRUPTED = 75
"""Exit status of what goes on when the same command is given again (EX_TEMPFAIL)."""
TOLD_TO_END = (INTERRUPTED, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses of a process that a signal has ended."""

ONCE = 3.0
"""Seconds within which another SIGTERM is the same request: a scheduler and a launcher may both send one."""


class Stopped(SystemExit):
    """A signal asked the process to end; no `Exception`, so that nothing goes on after it.

    A `SystemExit`, since an event loop, such as Orbax reads in, logs any other error of a callback and goes on.
    """

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside this block SIGTERM raises `Stopped` in the main thread, as Ctrl-C does `KeyboardInterrupt`; a second one kills.

    Outside the main thread, where no signal can be caught, and where SIGTERM is ignored, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield
        return

    def stop(number: int, frame) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(signal.Signals(number).name)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside this block SIGTERM and Ctrl-C wait for its end, where what they raise could be taken for something else.

    Outside the main thread, where no signal can be caught, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


def leave_at_once(status: int) -> NoReturn:
    """Ends the process with this status, whatever its threads do: one that compiles or waits for a file would keep it.

    For a process that has been told to end, and has saved what it will. What it printed is written out.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)

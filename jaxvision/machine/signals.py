"""Signals that ask the process to end: what is half written is cleared away first."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 75
"""Exit status of what goes on when the same command is given again (EX_TEMPFAIL)."""
SECONDS_TO_LEAVE = 10.0
"""How long threads that wait for a file may keep an interrupted process from ending."""


class Stopped(BaseException):
    """A signal asked the process to end; no `Exception`, so that nothing goes on after it."""

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


def leave_soon(status: int) -> None:
    """Ends the process with this status in `SECONDS_TO_LEAVE` unless it has ended by itself."""
    timer = threading.Timer(SECONDS_TO_LEAVE, os._exit, [status])
    timer.daemon = True
    timer.start()

"""Leaving: how a process ends at once, past all blocks that it is in, and what it still writes down before."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SECONDS = 5.0
"""How long what is written down may take: a file system may not answer."""
Saying = Callable[[int, str], object]
"""What is called with the exit status, and why the process ends."""
_sayings: list[Saying] = []


@contextmanager
def saying(say: Saying) -> Iterator[None]:
    """Inside this block `at_once` calls `say` before the process ends."""
    _sayings.append(say)
    try:
        yield
    finally:
        _sayings.remove(say)


def at_once(status: int, why: str) -> None:
    """Ends the process with this status, from any thread, without a clean-up; `why` goes to those who asked for it."""
    thread = threading.Thread(target=_say, args=(status, why), name="leaving", daemon=True)
    with suppress(RuntimeError):  # no further thread can be started
        thread.start()
        thread.join(SECONDS)
    os._exit(status)


def _say(status: int, why: str) -> None:
    for say in reversed(list(_sayings)):
        with suppress(Exception):
            say(status, why)

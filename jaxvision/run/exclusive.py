"""Calls of Orbax that nothing else may come between: another thread's, or a signal."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

from jaxvision.machine.signals import deferred

P = ParamSpec("P")
R = TypeVar("R")
IN_TURN = threading.RLock()


def in_turn(method: Callable[P, R]) -> Callable[P, R]:
    """The method, at one time in one thread where runs have a thread each: Orbax counts what a process has under way."""

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.nullcontext() if in_main_thread() else IN_TURN:
            return method(*args, **kwargs)

    return called


def undisturbed(method: Callable[P, R]) -> Callable[P, R]:
    """The method to its end, before SIGTERM or Ctrl-C is heeded: Orbax would make an unreadable file of what they raise.

    Of several processes JAX has the signal.
    """

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with deferred() if jax.process_count() == 1 else contextlib.nullcontext():
            return method(*args, **kwargs)

    return called


def in_main_thread() -> bool:
    """Whether this is the thread in which signals are handled."""
    return threading.current_thread() is threading.main_thread()

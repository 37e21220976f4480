"""Interruption: SIGTERM and Ctrl-C stop a run between two steps, or two batches of an evaluation, with a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from jax.experimental import multihost_utils

from jaxvision.machine import leaving
from jaxvision.machine.signals import INTERRUPTED, ONCE, Stopped
from jaxvision.run.processes import several

T = TypeVar("T")
PATIENCE = 3.0
"""Seconds that a compilation may go on after SIGTERM where nothing is to be saved."""


class _Again:
    """What handles SIGTERM once it came: one that comes within `ONCE` is the same, also while the run ends."""

    def __init__(self, first: float):
        self.first = first
        self.after: Any = signal.SIG_DFL
        """What handles a later one."""

    def __call__(self, number: int, frame) -> None:
        if time.monotonic() - self.first >= ONCE:
            signal.signal(number, self.after)
            signal.raise_signal(number)


class Request:
    """A request that a run end, as a signal would ask for: of who started the thread that it runs in."""

    name: str | None = None


REQUEST: ContextVar[Request | None] = ContextVar("request", default=None)
"""What the run in this context heeds beside signals."""


class Interruption:
    """Notes SIGTERM and SIGINT inside a `with` block instead of dying of them; a second one kills (SIGTERM after `ONCE`).

    Where nothing is lost by it, a signal ends what is under way at once, by `Stopped`: before the first step is done, while
    the run waits for data (`awaited`), while it draws the report (`at_once`).

    Outside the main thread, where no signal can be caught, it notes a `Request` alone. Where a run has several processes, JAX
    notes SIGTERM and makes them agree: all stop after the same step, or at the same batch of an evaluation.
    """

    def __init__(self, first: int = 0) -> None:
        self.name: str | None = None
        self.first = first
        """The step that the run starts at."""
        self._request_of = REQUEST.get()
        self._begun = False
        self._raising = 0
        self._asked = 0
        self._before = {}
        self._left = threading.Event()
        self._pipe: tuple[int, int] | None = None

    def requested(self, step: int) -> bool:
        """Whether one of the signals came; called after every step, with its number."""
        self._begun = self._begun or step > self.first
        return self._request()

    def awaited(self, batches: Iterable[T], *, checked: bool = False) -> Iterator[T]:
        """The batches; a signal that comes while one is awaited raises `Stopped`.

        Args:
          batches: as many on every process.
          checked: of an evaluation: `Stopped` is also raised before the batch that follows a signal.
        """
        iterator = iter(batches)
        while True:
            with self._at_once(not several()):
                batch = next(iterator, self)
            if batch is self:
                return
            if checked and self._request():
                raise Stopped(self.name or "")
            yield batch  # type: ignore[misc]

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside this block, in which no process waits for another, a signal raises `Stopped`."""
        if self.name is not None:
            raise Stopped(self.name)
        if several():
            self._catch()
        with self._at_once(True):
            yield

    @contextmanager
    def _at_once(self, raising: bool) -> Iterator[None]:
        self._raising += raising
        try:
            yield
        finally:
            self._raising -= raising

    def _request(self) -> bool:
        """Whether a signal came, to any of several processes; all of them ask equally often and get the same answer."""
        self._asked += 1
        if several() and multihost_utils.reached_preemption_sync_point(self._asked):
            self.name = "SIGTERM"
        if self._request_of is not None and self._request_of.name is not None:
            self.name = self._request_of.name
        return self.name is not None

    def _note(self, number: int, frame) -> None:
        self.name = signal.Signals(number).name
        signal.signal(number, _Again(time.monotonic()) if number == signal.SIGTERM else self._before[number])
        at_once = self._raising or not self._begun
        what = "ending" if at_once else "saving a checkpoint, then ending"
        with suppress(OSError):  # nobody may be there to read it
            os.write(2, f"\n{self.name}: {what} (again to end at once)\n".encode())
        if at_once:
            raise Stopped(self.name)

    def _catch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL

    def _watch(self, pipe: int) -> None:
        """Ends the process where SIGTERM meets a first step that is being compiled, during which no handler runs."""
        try:
            while (data := os.read(pipe, 1)) and data[0] != signal.SIGTERM and not self._left.is_set():
                pass
            if data and not self._left.wait(PATIENCE) and not self._begun:
                os.write(2, b"SIGTERM: ended before the first step was compiled; the same command goes on\n")
                leaving.at_once(INTERRUPTED, "SIGTERM")
            self._left.wait()  # a signal may be noted in the pipe until then
        finally:
            os.close(pipe)

    def __enter__(self) -> "Interruption":
        if several() or threading.current_thread() is not threading.main_thread():
            return self
        self._catch()
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=self._pipe[:1], name="interruption", daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            again = signal.getsignal(number)
            if isinstance(again, _Again):  # the checkpoint and the lease are still to be written
                again.after = handler
            else:
                signal.signal(number, handler)
        self._left.set()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            with suppress(OSError):  # it is full, and so is read
                os.write(
                    self._pipe[1], b"\0"
                )  # the thread ends, even where a child that was forked holds the pipe open
            os.close(self._pipe[1])

"""Other processes of a run: which of them failed or was lost, said by name, with what to do, in bounded time.

A process that fails tells the others why before it ends. One that is killed, or whose machine or network fails, can't: the
others see a connection break, or miss its heartbeat.
"""

import atexit
import ctypes
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax

from jaxvision.errors import AnotherProcessFailed
from jaxvision.machine import leaving

LOST = 2
"""Exit status of a process that ends because of another."""
HEARTBEAT = 60
"""Seconds without a sign of life after which JAX takes a process for lost."""
GRACE = 5.0
"""Seconds in which a process that hears of the failure of another may end by itself."""
BETWEEN = 1.0
"""Seconds between two looks whether another process has failed."""
HEARING = 3.0
"""Seconds in which one hears of it."""
CAUSES = "killed, or its machine or network failed"
GO_ON = "start all of them again, with the same commands: they go on from the newest checkpoint"
SIGNS = re.compile(r"\b(Gloo|NCCL|Connection closed|Connection reset|Broken pipe|heartbeat|Socket closed)\b")
"""What the runtime of JAX says of a connection between processes that broke."""
STATUS = re.compile(rf"[A-Z_]+: ([\w -]+: )*({SIGNS.pattern}|Barrier timed out)|DEADLINE_EXCEEDED: ")
"""What an error of the runtime begins with that JAX raises as a plain ValueError or RuntimeError, as it does of a `jit`."""
LATE = ("DEADLINE_EXCEEDED", "Barrier timed out")
"""What an error says of a process that did not come to where the others wait for it."""


class Peers:
    """The connection to what all processes of a run know: a few texts by name, which process 0 keeps."""

    def __init__(self, client: Any, index: int, count: int):
        """Makes this process, of this index, known to the others, and listens to them.

        Args:
          client: of JAX's coordination service.
          index: of this process.
          count: of all.
        """
        self.client, self.index, self.count = client, index, count
        self.failure: str | None = None
        """What another process said before it ended."""
        self._write(f"here/{index}", "")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="peers", daemon=True)
        self._thread.start()
        self._aborted = _handler(self._ended_by_jax)
        _catch_abort(self._aborted)
        atexit.register(self.close)

    def _write(self, name: str, text: str) -> None:
        with suppress(Exception):  # the first failure stays; nobody is there to hear, or to read it
            self.client.key_value_set(f"jaxvision/{name}", text)

    def _read(self, name: str, seconds: float) -> str | None:
        try:
            return self.client.blocking_key_value_get(f"jaxvision/{name}", int(1000 * seconds))
        except Exception:
            return None

    def fail(self, why: str) -> None:
        """Says why this process is about to end; process 0 waits a little for the others to hear it."""
        if self.failure is not None:
            return
        self._write("failure", f"{self.index} {why}")
        for other in range(1, self.count) if self.index == 0 else ():
            if self._read(f"heard/{other}", HEARING) is None:
                return
        threading.Event().wait(BETWEEN / 2)  # they end by themselves, where they fail as well

    def close(self) -> None:
        """Listens no more: a thread of Python that is in JAX while the process ends would abort it."""
        self._closed.set()
        self._thread.join()
        _catch_abort(None)

    def _listen(self) -> None:
        text = None
        while text is None:
            if self._closed.wait(BETWEEN):
                return
            with suppress(Exception):  # there is no such text
                text = self.client.key_value_try_get("jaxvision/failure")
        index, _, why = text.partition(" ")
        if int(index) == self.index:
            return
        self.failure = f"process {index} failed: {why}"
        self._write(f"heard/{self.index}", "")
        if not self._closed.wait(GRACE):
            self._end(self.failure)

    def _end(self, text: str) -> None:
        with suppress(OSError):
            os.write(2, f"jaxvision: {text}\n".encode(errors="backslashreplace"))
        leaving.at_once(LOST, text)

    def _ended_by_jax(self) -> None:
        self._end(self.failure or f"{self.lost()}; {GO_ON}")

    def lost(self) -> str:
        """Which process was lost, as far as this one can know."""
        if self.count == 2:
            named = f"process {1 - self.index}"
        elif self.index and self._read("here/0", 1) is None:
            named = "process 0, or the connection to it,"
        else:
            named = "another process"
        return f"{named} was lost: {CAUSES}"

    def missing(self) -> str:
        """Which process is missing, of those that JAX still hears of."""
        if self.count == 2:
            return self.lost()
        found: list[int] = []
        ask = threading.Thread(target=lambda: found.extend(self._living()), daemon=True)
        ask.start()
        ask.join(HEARTBEAT + GRACE)
        names = ", ".join(str(i) for i in range(self.count) if i not in found) if found else ""
        return f"process {names} was lost: {CAUSES}" if names else self.lost()

    def _living(self) -> list[int]:
        with suppress(Exception):
            return list(self.client.get_live_nodes(list(range(self.count))))
        return []


_peers: Peers | None = None


def connect() -> None:
    """Lets the processes that have met hear of each other's failures; where this JAX has no way to, they don't."""
    global _peers
    try:
        from jax._src.distributed import global_state  # JAX has no other way to the client of its coordination service

        client = global_state.client
    except (ImportError, AttributeError):
        return
    if client is not None and jax.process_count() > 1:
        _peers = Peers(client, jax.process_index(), jax.process_count())


def fail(why: str) -> None:
    """Says to the other processes why this one is about to end."""
    if _peers is not None:
        _peers.fail(why)


@contextmanager
def naming_lost() -> Iterator[None]:
    """Inside this block the error of a broken connection says which process was lost, or failed and why.

    Raises:
      AnotherProcessFailed: in its place.
    """
    try:
        yield
    except AnotherProcessFailed:
        raise
    except Exception as error:
        text = _of_others(error) if jax.process_count() > 1 else None
        if text is None:
            raise
        raise AnotherProcessFailed(text) from error


def _of_others(error: BaseException | None) -> str | None:
    """What to say of an error for which another process is to blame; None for one that is this process's own.

    JAX's runtime alone says so, whatever was raised because of it: any other error may have such words in a name or a path.
    """
    seen: list[BaseException] = []  # a chain of causes may end where it began
    while error is not None and not any(error is each for each in seen):
        seen.append(error)
        said = str(error) if _of_runtime(error) else ""
        if (
            SIGNS.search(said) and "callback" not in said.lower()
        ):  # else it has the text of an error of a callback to Python
            return _blame()
        if any(sign in said for sign in LATE):
            heard = _peers.failure if _peers is not None else None
            line = said.strip().splitlines()[0]
            return heard or f"another process did not come to where this one waits for it ({line}); {GO_ON}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _of_runtime(error: BaseException) -> bool:
    plain = type(error) in (ValueError, RuntimeError) and STATUS.match(str(error)) is not None
    return plain or isinstance(error, jax.errors.JaxRuntimeError)


def _blame() -> str:
    if _peers is None:
        return f"another process was lost: {CAUSES}; {GO_ON}"
    threading.Event().wait(BETWEEN)  # what it said may come after its connection broke
    if _peers.failure is not None:
        return _peers.failure
    missing = _peers.missing()
    return _peers.failure or f"{missing}; {GO_ON}"


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


def _handler(end: Callable[[], None]) -> Any:
    """A handler of SIGABRT: calls `end` where JAX aborts the process in a thread of its own, as it does for a lost one."""

    @_HANDLER
    def aborted(number: int) -> None:
        _catch_abort(None)
        if threading.current_thread() is not threading.main_thread():
            end()

    return aborted


def _catch_abort(handler: Any) -> None:
    """Sets the handler of SIGABRT, which must live as long as it is set; None: none. Python's own would come too late."""
    with suppress(OSError, AttributeError):  # a system without it
        library = ctypes.CDLL(None)
        library.signal.argtypes, library.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))

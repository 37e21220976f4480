"""Work ahead: a thread that keeps the next few items of an iterator ready, a pool that maps a function over them."""

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")

SECONDS_TO_STOP = 5.0
"""How long to wait for a thread that may hang in a file system; it is a daemon, and ends with the process."""


def prefetch(iterator: Iterator[Any], transform: Callable[[Any], T] = lambda item: item, size: int = 2) -> Iterator[T]:
    """`map(transform, iterator)`, computed by a background thread up to `size` items ahead.

    An exception in the iterator or in `transform` is raised where its item would have come. Closing the returned
    generator, dropping the last reference to it or leaving the program stops the thread, which closes `iterator`.
    """
    if size < 1:
        raise ValueError(f"prefetch needs a size of at least 1, got {size}")
    return _items(iterator, transform, size)


def in_order(function: Callable[[U], T], items: Iterable[U], threads: int) -> Iterator[T]:
    """`map(function, items)`, computed by `threads` threads; twice as many items as threads are under way.

    An exception of `function` is raised where its item would have come. Closing the returned generator, or dropping it,
    stops the threads.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _items(iterator: Iterator[Any], transform: Callable[[Any], T], size: int) -> Iterator[T]:
    worker = _Worker(iterator, transform, size)
    try:
        while True:
            item, error, last = worker.take()
            if error is not None:
                raise error
            if last:
                return
            yield item
    finally:
        worker.stop()


class _Worker:
    """The thread, the queue it fills and the slots it must not overfill."""

    def __init__(self, iterator: Iterator[Any], transform: Callable[[Any], Any], size: int):
        self._iterator, self._transform = iterator, transform
        self._free = threading.Semaphore(size)
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        _running.add(self)
        self._thread.start()

    def take(self) -> tuple[Any, BaseException | None, bool]:
        result = self._ready.get()
        self._free.release()
        return result

    def stop(self) -> None:
        if self._stopped.is_set():  # already, by `_stop_all`; by now the modules may be gone
            return
        self._stopped.set()
        self._free.release()
        if self._thread is not threading.current_thread():
            self._thread.join(SECONDS_TO_STOP)

    def _work(self) -> None:
        try:
            while self._next():
                pass
        finally:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()
            self._ready.put((None, None, True))  # for a reader that waits while the program ends

    def _next(self) -> bool:
        self._free.acquire()
        if self._stopped.is_set():
            return False
        try:
            self._ready.put((self._transform(next(self._iterator)), None, False))
            return True
        except StopIteration:
            self._ready.put((None, None, True))
        except BaseException as error:
            self._ready.put((None, error, True))
        return False


_running: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    # A daemon thread that is inside native code while the interpreter goes down can take the process with it.
    for worker in list(_running):
        worker.stop()

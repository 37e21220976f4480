"""Readers: what makes the batches of a stream from its source, in parallel; the same batches, bit for bit, whichever it is.

`threads()`, the default, is for images in files, in archives or in memory, decoded in parallel without Python's lock;
`tf_data()` does the same with tf.data's threads, and needs TensorFlow; `resident.reader()` is for a dataset that fits the
device's memory as uint8.

A batch is read in chunks, a few dozen rows each. A chunk is a pure function of its number, so that threads and restarts
change nothing. The last step to whoever takes the batches is our own prefetch, which also stops the threads when the
iterator is dropped or the program ends.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvision.data.host_tensorflow import tensorflow
from jaxvision.data.loading import Loading, Rows, as_batch, empty_rows, load_into, positions
from jaxvision.data.order import Indices
from jaxvision.data.prefetch import in_order, prefetch
from jaxvision.data.source import Source
from jaxvision.machine.limits import cores
from jaxvision.types import Batch

LARGEST_CHUNK = 32
ENDLESS = np.iinfo(np.int64).max


class Plan(NamedTuple):
    """What a stream reads, and how its rows are made."""

    opened: Callable[[], tuple[Source, Indices]]
    how: Loading
    batch_size: int


Read = Callable[[range, int, int | None], Iterator[Batch]]
"""`(rows of each batch, first step, last step + 1 or None) -> batches`."""
Reader = Callable[[Plan], Read]
"""Called once for a stream."""


def threads(count: int | None = None) -> Reader:
    """Threads of this process that read, decode and resize, which PIL does without Python's lock; None: one per core."""
    return _chunked(lambda load_chunk, numbers: in_order(load_chunk, _counted(numbers), count or cores()))


def tf_data(count: int | None = None) -> Reader:
    """Threads of tf.data; None: one per core. Raises DataError, with the first batch, if TensorFlow is not installed."""
    return _chunked(lambda load_chunk, numbers: _by_tensorflow(load_chunk, numbers, count or cores()))


Numbers = tuple[int, int | None]
Map = Callable[[Callable[[int], Rows], Numbers], Iterator[Rows]]
"""`(chunk of a number, (first, end)) -> chunks in their order`."""


def _chunked(mapped: Map) -> Reader:
    """A reader that makes chunks by this map."""

    def reader(plan: Plan) -> Read:
        def read(rows: range, first: int, end: int | None) -> Iterator[Batch]:
            source, indices = plan.opened()
            chunk = chunk_size(len(rows))
            per_batch = len(rows) // chunk
            how = plan.how
            whole = _Whole(
                lambda: empty_rows(len(rows), how.placer.canvas, how.channels, how.target, how.given), per_batch
            )

            def load_chunk(number: int) -> Rows:
                step, block = divmod(number, per_batch)
                batch, part = whole.of(step), slice(block * chunk, (block + 1) * chunk)
                at = positions(step, plan.batch_size, rows[part])
                load_into(jax.tree.map(lambda x: x[part], batch), source, indices, at, how)
                return batch

            numbers = first * per_batch, None if end is None else end * per_batch
            return prefetch(_batches(mapped(load_chunk, numbers), per_batch))

        return read

    return reader


class _Whole:
    """Batches under way: each is made once, and its chunks are views of it."""

    def __init__(self, make: Callable[[], Rows], chunks: int):
        self._make, self._chunks = make, chunks
        self._under_way: dict[int, tuple[Rows, int]] = {}
        self._lock = threading.Lock()

    def of(self, step: int) -> Rows:
        """The batch of a step, which each of its chunks asks for once."""
        with self._lock:
            batch, asked = self._under_way.pop(step, None) or (self._make(), 0)
            if asked + 1 < self._chunks:
                self._under_way[step] = batch, asked + 1
            return batch


def _batches(chunks: Iterator[Rows], per_batch: int) -> Iterator[Batch]:
    """The batches that chunks are parts of."""
    while parts := list(itertools.islice(chunks, per_batch)):
        yield as_batch(parts[0])


def _counted(numbers: Numbers) -> Iterator[int]:
    first, end = numbers
    return itertools.count(first) if end is None else iter(range(first, end))


def _by_tensorflow(load_chunk: Callable[[int], Rows], numbers: Numbers, count: int) -> Iterator[Rows]:
    """Chunks in order, made by tf.data's threads; an error is raised as it is, where its chunk would have come."""
    tf = tensorflow()
    made: dict[int, Rows | Exception] = {}

    def make(number: np.ndarray) -> np.ndarray:
        try:
            made[int(number)] = load_chunk(int(number))
        except Exception as error:  # TensorFlow would bury it in a traceback of its own
            made[int(number)] = error
        return number

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and converting parses our source in this thread
    def mapped(number: Any) -> Any:
        return tf.numpy_function(make, [number], tf.int64, stateful=False)

    options = tf.data.Options()
    options.threading.private_threadpool_size = count + 1
    options.autotune.enabled = False
    first, end = numbers
    dataset = tf.data.Dataset.range(first, ENDLESS if end is None else end)
    dataset = dataset.map(mapped, num_parallel_calls=count, deterministic=True).with_options(options)
    for number in dataset.as_numpy_iterator():
        chunk = made.pop(int(number))
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


def chunk_size(rows: int) -> int:
    """The largest divisor of the number of rows that is not above 32."""
    return max(size for size in range(1, LARGEST_CHUNK + 1) if rows % size == 0)

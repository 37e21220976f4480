"""Batches from encoded images, read and decoded in parallel by tf.data.

tf.data maps over the numbers of chunks, a few dozen rows each; a chunk is a pure function of its number, so that threads
and restarts change nothing. TensorFlow is imported when the first batch is asked for. The last step to the reader is our
own prefetch, because it also stops TensorFlow's threads when the program ends.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxvision.data.host_tensorflow import tensorflow
from jaxvision.data.loading import (
    Loading,
    Open,
    as_batch,
    each_once,
    evaluation_steps,
    load,
    loading,
    opener,
    positions,
    stream,
)
from jaxvision.data.order import Indices, Order
from jaxvision.data.placement import Placer
from jaxvision.data.prefetch import prefetch
from jaxvision.data.source import Source
from jaxvision.data.target import LABELS, NOTHING, TargetForm
from jaxvision.types import WHOLE, Batch, Share, Stream

LARGEST_CHUNK = 32
ENDLESS = np.iinfo(np.int64).max


def training(
    open: Open,
    *,
    order: Order,
    placer: Placer,
    batch_size: int,
    seed: int = 0,
    channels: int = 3,
    target: TargetForm = LABELS,
    given: TargetForm = NOTHING,
    on_bad_image: str = "raise",
    threads: int | None = None,
) -> Stream:
    """Batches without end; row r of step s is a function of `(seed, s * batch_size + r)`.

    `target` says what is told of the images, `given` what a model is given beside them: `target.proposals(2000)`, say.
    `seed` keys what the placer draws; the order has its own. `on_bad_image="skip"` keeps the place of an unreadable image
    with `valid=False` and logs its name; `"raise"` raises BadImage where its batch would have come. `threads` read and
    decode; None takes one per core.
    """
    how = loading(placer, channels, seed, on_bad_image, target, given)
    opened = opener(open, order)

    def batches(step: int, share: Share = WHOLE) -> Iterator[Batch]:
        return prefetch(_batches(*opened(), how, share.rows(batch_size), batch_size, threads, step, None))

    return stream(batches, opened, how, batch_size)


def evaluation(
    open: Open,
    *,
    placer: Placer,
    batch_size: int,
    channels: int = 3,
    target: TargetForm = LABELS,
    given: TargetForm = NOTHING,
    on_bad_image: str = "raise",
    threads: int | None = None,
    among: Callable[[Source], np.ndarray] = lambda source: np.arange(source.length),
) -> Stream:
    """Every example once, in the order of the source; the last batch is padded with rows that are not valid.

    `among` gives the indices of those that count, where not all do, in the order in which they come.
    """
    how = loading(placer, channels, 0, on_bad_image, target, given, complete=True)
    opened = opener(open, lambda source: each_once(among(source)))

    def batches(step: int, share: Share = WHOLE) -> Iterator[Batch]:
        source, indices = opened()
        end = evaluation_steps(len(among(source)), batch_size)
        return prefetch(_batches(source, indices, how, share.rows(batch_size), batch_size, threads, step, end))

    return stream(batches, opened, how, batch_size)


def _batches(
    source: Source,
    indices: Indices,
    how: Loading,
    rows: range,
    batch_size: int,
    threads: int | None,
    first: int,
    end: int | None,
) -> Iterator[Batch]:
    chunk = chunk_size(len(rows))
    per_batch = len(rows) // chunk
    failures: dict[int, Exception] = {}

    def load_chunk(number: np.ndarray) -> list[np.ndarray]:
        try:
            step, block = divmod(int(number), per_batch)
            part = positions(step, batch_size, rows[block * chunk : (block + 1) * chunk])
            return jax.tree.leaves(load(source, indices, part, how))
        except Exception as error:
            # Raised by the reader of the batches, as it is: TensorFlow would bury it in a traceback of its own.
            failures[int(number)] = error
            return jax.tree.leaves(failed)

    failed = load(source, lambda positions: np.full(len(positions), -1), np.arange(chunk), how)
    chunks = _in_parallel(
        load_chunk, jax.tree.leaves(failed), (first * per_batch, ENDLESS if end is None else end * per_batch), threads
    )
    for step, arrays in enumerate(chunks.batch(per_batch).as_numpy_iterator(), start=first):
        for number in range(step * per_batch, (step + 1) * per_batch):
            if number in failures:
                raise failures.pop(number)
        whole = [each.reshape(len(rows), *each.shape[2:]) for each in arrays]
        yield as_batch(jax.tree.unflatten(jax.tree.structure(failed), whole))


def _in_parallel(
    load_chunk: Callable[[np.ndarray], Any], like: list[np.ndarray], numbers: tuple[int, int], threads: int | None
) -> Any:
    """A `tf.data.Dataset` of chunks, in order. `like` has their shapes and types."""
    tf = tensorflow()
    threads = threads or os.cpu_count() or 1

    def chunk(number: Any) -> tuple:
        arrays = tf.numpy_function(load_chunk, [number], [each.dtype for each in like], stateful=False)
        for tensor, each in zip(arrays, like, strict=True):
            tensor.set_shape(each.shape)
        return tuple(arrays)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads + 1
    options.autotune.enabled = False
    dataset = tf.data.Dataset.range(*numbers).map(chunk, num_parallel_calls=threads, deterministic=True)
    return dataset.with_options(options)


def chunk_size(rows: int) -> int:
    """The largest divisor of the number of rows that is not above 32."""
    return max(size for size in range(1, LARGEST_CHUNK + 1) if rows % size == 0)

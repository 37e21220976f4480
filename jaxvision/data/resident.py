"""A whole data set on the device: for small images, where moving batches would take longer than the training step.

The images are decoded and put on the default device once, as uint8; a batch is then one gather on the device.
"""

import itertools
from collections.abc import Iterator
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data import placement, streams
from jaxvision.data.loading import Loading, Open, Rows, as_batch, each_once, empty_rows, load, once, positions
from jaxvision.data.order import Order
from jaxvision.data.readers import Plan, Read, Reader
from jaxvision.data.source import Source
from jaxvision.data.streams import RowOptions
from jaxvision.types import Batch, Stream

BLOCK = 1024


def reader() -> Reader:
    """Batches of `jax.Array`s, gathered on the device from all examples, which are read once, before the first batch.

    Raises ValueError for a placer that draws random numbers: it would place an image once for all epochs.
    """

    def resident(plan: Plan) -> Read:
        if plan.how.placer.random:
            raise ValueError("a resident stream places its images once, so its placer can't be a random one")
        everything = once(lambda: _on_device(plan.opened()[0], plan.how))

        def read(rows: range, first: int, end: int | None) -> Iterator[Batch]:
            indices = plan.opened()[1]
            for step in itertools.count(first) if end is None else range(first, end):
                yield _gather(everything(), indices(positions(step, plan.batch_size, rows)).astype(np.int32))

        return read

    return resident


def training(open: Open, *, order: Order, canvas: int | tuple[int, int], **options: Unpack[RowOptions]) -> Stream:
    """Batches without end, of `jax.Array`s, from any source whose images fit the canvas unresized.

    The options are those of `streams.training`. Raises BadImage at the first batch, when all is read, for an image that is
    larger than the canvas or can't be decoded.
    """
    return streams.training(open, order=order, placer=placement.keep(canvas), reader=reader(), **options)


def evaluation(open: Open, *, canvas: int | tuple[int, int], **options: Unpack[RowOptions]) -> Stream:
    """Every example once, in the order of the source; the last batch is padded with rows that are not valid.

    The options are those of `streams.evaluation`.
    """
    return streams.evaluation(open, placer=placement.keep(canvas), reader=reader(), **options)


def _on_device(source: Source, how: Loading) -> Batch:
    """Every row of the source, and after the last a row of padding, which index -1 gathers."""
    rows = empty_rows(source.length + 1, how.placer.canvas, how.channels, how.target, how.given)
    for start in range(0, source.length, BLOCK):
        block = np.arange(start, min(start + BLOCK, source.length))
        _copy(load(source, each_once(np.arange(source.length)), block, how), rows, block)
    return jax.device_put(as_batch(rows))


def _copy(block: Rows, rows: Rows, at: np.ndarray) -> None:
    for part, whole in zip(jax.tree.leaves(block), jax.tree.leaves(rows), strict=True):
        whole[at] = part


@jax.jit
def _gather(everything: Batch, index: jax.Array) -> Batch:
    return jax.tree.map(lambda rows: jnp.take(rows, index, axis=0, mode="wrap"), everything)

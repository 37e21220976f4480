"""A whole data set on the device: for small images, where moving batches would take longer than the training step.

The images are decoded and put on the default device once, as uint8; a batch is then one gather on the device.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data import placement
from jaxvision.data.loading import (
    Loading,
    Open,
    Rows,
    as_batch,
    each_once,
    empty_rows,
    evaluation_steps,
    load,
    loading,
    once,
    opener,
    positions,
    stream,
)
from jaxvision.data.order import Order
from jaxvision.data.source import Source
from jaxvision.data.target import LABELS, NOTHING, TargetForm
from jaxvision.types import WHOLE, Batch, Share, Stream

BLOCK = 1024


def training(
    open: Open,
    *,
    order: Order,
    canvas: int | tuple[int, int],
    batch_size: int,
    channels: int = 3,
    target: TargetForm = LABELS,
    given: TargetForm = NOTHING,
    on_bad_image: str = "raise",
) -> Stream:
    """Batches without end, of `jax.Array`s, from any source whose images fit the canvas unresized.

    Raises BadImage at the first batch, when all is read, for an image that is larger than the canvas or can't be decoded.
    """
    how = loading(placement.keep(canvas), channels, 0, on_bad_image, target, given)
    opened = opener(open, order)
    resident = once(lambda: _on_device(opened()[0], how))

    def batches(step: int, share: Share = WHOLE) -> Iterator[Batch]:
        indices, rows = opened()[1], share.rows(batch_size)
        while True:
            yield _gather(resident(), indices(positions(step, batch_size, rows)).astype(np.int32))
            step += 1

    return stream(batches, opened, how, batch_size)


def evaluation(
    open: Open,
    *,
    canvas: int | tuple[int, int],
    batch_size: int,
    channels: int = 3,
    target: TargetForm = LABELS,
    given: TargetForm = NOTHING,
    on_bad_image: str = "raise",
) -> Stream:
    """Every example once, in the order of the source; the last batch is padded with rows that are not valid."""
    how = loading(placement.keep(canvas), channels, 0, on_bad_image, target, given, complete=True)
    opened = opener(open)
    resident = once(lambda: _on_device(opened()[0], how))

    def batches(first: int, share: Share = WHOLE) -> Iterator[Batch]:
        source, indices = opened()
        rows = share.rows(batch_size)
        for step in range(first, evaluation_steps(source.length, batch_size)):
            yield _gather(resident(), indices(positions(step, batch_size, rows)).astype(np.int32))

    return stream(batches, opened, how, batch_size)


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

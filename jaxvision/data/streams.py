"""Streams of batches from a source: one to train on, one to evaluate on; what reads them is a value."""

from collections.abc import Callable, Iterator
from typing import Required, TypedDict

import numpy as np

from jaxvision.data.loading import Open, each_once, evaluation_steps, loading, opener, stream
from jaxvision.data.order import Order
from jaxvision.data.placement import Placer
from jaxvision.data.readers import Plan, Reader, threads
from jaxvision.data.source import Source
from jaxvision.data.target import LABELS, NOTHING, TargetForm
from jaxvision.types import WHOLE, Batch, Shard, Stream

THREADS = threads()


class RowOptions(TypedDict, total=False):
    """Options of how rows are made, which every stream of images takes; `training` says what they mean."""

    batch_size: Required[int]
    channels: int
    target: TargetForm
    given: TargetForm
    on_bad_image: str


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
    reader: Reader = THREADS,
) -> Stream:
    """Batches without end; row r of step s is a function of `(seed, s * batch_size + r)`, whatever reads it.

    Args:
      open: the source, when the first batch is asked for.
      order: which example stands at which position; it has a seed of its own.
      placer: where an image goes on its canvas; `seed` keys what it samples.
      batch_size: rows of a batch, on all processes together.
      seed: of the placer.
      channels: 3, or 1 for grey.
      target: what the batch holds of the ground truth: `target.objects(100)`, say.
      given: what a model is given beside the images: `target.proposals(2000)`, say.
      on_bad_image: `"raise"` raises BadImage where its batch would have come; `"skip"` keeps the place of an unreadable image
        with `valid=False` and logs its name.
      reader: `readers.threads()`, `readers.tf_data()` or `resident.reader()`.
    """
    how = loading(placer, channels, seed, on_bad_image, target, given)
    opened = opener(open, order)
    read = reader(Plan(opened, how, batch_size))

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        return read(shard.rows(batch_size), step, None)

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
    reader: Reader = THREADS,
    among: Callable[[Source], np.ndarray] = lambda source: np.arange(source.length),
) -> Stream:
    """Every example once, in the order of the source; the last batch is padded with rows that are not valid.

    `among` gives the indices of those that count, where not all do, in the order in which they come; the other arguments
    are those of `training`.
    """
    how = loading(placer, channels, 0, on_bad_image, target, given, complete=True)
    opened = opener(open, lambda source: each_once(among(source)))
    read = reader(Plan(opened, how, batch_size))

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        return read(shard.rows(batch_size), step, evaluation_steps(len(among(opened()[0])), batch_size))

    return stream(batches, opened, how, batch_size)

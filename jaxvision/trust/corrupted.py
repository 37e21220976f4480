"""Streams whose images are corrupted: what a model is shown, apart from how it is judged."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from jaxvision.data.randomness import checked_seed
from jaxvision.errors import DataError, amount
from jaxvision.trust.corruptions import (
    DEFORMATIONS,
    OBJECTS,
    Chosen,
    Family,
    check,
    choose,
    corrupt,
    family_of,
    generator,
)
from jaxvision.trust.deformed import deformed
from jaxvision.trust.occluded import occluded
from jaxvision.types import WHOLE, Batch, Shard, Stream


def corrupted(
    stream: Stream,
    name: str,
    severity: int,
    seed: int = 0,
    *,
    family: Family | None = None,
    photographs: Path | None = None,
    donors: Stream | None = None,
) -> Stream:
    """The stream, each image corrupted; its targets move with `corruptions.DEFORMATIONS` and stay with all others.

    The random numbers of an image are a function of `(seed, index of the example, name, severity)`: the same in any batch and
    on any number of processes. The content of a canvas is corrupted, `Batch.size`; what is outside or not valid stays.

    Args:
      stream: batches of uint8 images.
      name: of the corruption, one of `corruptions.EVERY`.
      severity: 1 to 5.
      seed: of the random numbers.
      family: whose constants; None: those of CIFAR-10-C for canvases below 64 pixels, else those of ImageNet-C.
      photographs: the folder with those of frost.
      donors: whose objects `object_occlusion` puts on the images; None: those of the stream.

    Raises:
      ConfigError: as `corruptions.choose`; for `object_occlusion` by a stream without objects.
      DataError: if the photographs of frost are not those; from `batches`, for an image that is too small, which is named.
      ValueError: for images that are not uint8.
    """
    check(name, severity)
    seed = checked_seed(seed)
    if name in DEFORMATIONS:
        return deformed(stream, name, severity, seed)
    if stream.spec.image.dtype != np.uint8:
        raise ValueError(f"corrupted: images must be uint8, 0 to 255; they are {stream.spec.image.dtype}")
    if name == OBJECTS:
        return occluded(stream, severity, seed, donors)
    height, width = stream.spec.image.shape[1:3]
    chosen = choose(name, severity, family or family_of(height, width), photographs)

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        with ThreadPoolExecutor(thread_name_prefix="corrupted") as pool:
            for batch in stream.batches(step, shard):
                yield _corrupted_batch(batch, chosen, seed, pool, lambda index: stream.about().name(index))

    return stream._replace(batches=batches, decode=None)


def _corrupted_batch(batch: Batch, chosen: Chosen, seed: int, pool: Executor, name: Callable[[int], str]) -> Batch:
    image, size = np.array(batch.image), np.asarray(batch.size)
    index, valid = np.asarray(batch.index), np.asarray(batch.valid)

    def fill(row: int) -> None:
        height, width = size[row]
        content = image[row, :height, :width]
        rng = generator(seed, int(index[row]), chosen.name, chosen.severity)
        try:
            image[row, :height, :width] = corrupt(content, chosen, rng)
        except DataError as error:
            raise DataError(f"{name(int(index[row]))}: {error}") from None

    for _ in pool.map(fill, np.flatnonzero(valid)):
        pass
    return dataclasses.replace(batch, image=image)


def example(stream: Stream) -> Batch:
    """The first valid example of the stream, by itself, as a batch of one.

    Raises:
      DataError: if there is none.
    """
    seen = 0
    for batch in stream.batches(0):
        rows = np.flatnonzero(np.asarray(batch.valid))
        seen += len(batch.valid)
        if len(rows):
            shown = batch.replace(target=None, given=None)
            return jax.tree.map(lambda each: np.asarray(each)[rows[:1]], shown)  # noqa: B023
    raise DataError(f"none of {amount(seen, 'example')} is valid")

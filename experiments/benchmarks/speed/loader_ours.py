"""Sides of jaxvision in the benchmark `loader`: the same streams as a run has, for one pass over the files."""

from collections.abc import Iterator

import numpy as np

from experiments.benchmarks.speed import photographs
from experiments.benchmarks.speed.contest import Work
from jaxvision.data import folder, order, placement, readers
from jaxvision.data.loading import loading, opener
from jaxvision.data.randomness import Purpose, philox
from jaxvision.types import Batch

SEED = 0


def threads(count: int, batch: int, side: int) -> Work:
    """The reader that is the default."""
    return _work(readers.threads(), count, batch, side)


def tf_data(count: int, batch: int, side: int) -> Work:
    """The reader on tf.data's threads."""
    return _work(readers.tf_data(), count, batch, side)


def plan(count: int, batch: int, side: int) -> readers.Plan:
    """Random crops of so many photographs, in a random order."""
    opened = opener(lambda: folder.source(photographs.folder(count)), order.shuffled(SEED))
    return readers.Plan(opened, loading(placement.random_resized_crop(side), 3, SEED, "raise"), batch)


def _work(reader: readers.Reader, count: int, batch: int, side: int) -> Work:
    given = plan(count, batch, side)
    write_crops(given, count)
    read = reader(given)

    def batches(images: int) -> Iterator[Batch]:
        return read(range(batch), 0, max(images // batch, 1))

    def run(units: int) -> None:
        for _ in batches(units):
            pass

    return Work(run, lambda: photographs.means(np.asarray(next(batches(batch)).image)))


def write_crops(given: readers.Plan, count: int) -> None:
    """Tells the other sides what stands at each position."""
    source, indices = given.opened()
    positions, place = np.arange(count), given.how.placer.place
    size = photographs.HEIGHT, photographs.WIDTH
    boxes = [place(np.random.Generator(philox(SEED, Purpose.PLACE, int(at))), size).box for at in positions]
    paths = [f"{source.root}/{source.name(int(index))}" for index in indices(positions)]
    photographs.write_crops(count, photographs.Crops(paths, np.asarray(boxes)))

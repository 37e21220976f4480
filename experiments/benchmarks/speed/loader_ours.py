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


def _work(reader: readers.Reader, count: int, batch: int, side: int) -> Work:
    source = folder.source(photographs.folder(count))
    placer = placement.random_resized_crop(side)
    opened = opener(lambda: source, order.shuffled(SEED))
    read = reader(readers.Plan(opened, loading(placer, 3, SEED, "raise"), batch))
    positions = np.arange(count)
    sizes = photographs.HEIGHT, photographs.WIDTH
    boxes = [placer.place(np.random.Generator(philox(SEED, Purpose.PLACE, int(at))), sizes).box for at in positions]
    paths = [f"{source.root}/{source.name(int(index))}" for index in opened()[1](positions)]
    photographs.write_crops(count, photographs.Crops(paths, np.asarray(boxes)))

    def batches(images: int) -> Iterator[Batch]:
        return read(range(batch), 0, max(images // batch, 1))

    def run(units: int) -> None:
        for _ in batches(units):
            pass

    return Work(run, lambda: photographs.means(np.asarray(next(batches(batch)).image)))

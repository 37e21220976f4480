"""Side of Grain in the benchmark `loader`: its threads, with PIL."""

import os
from typing import Any

import grain
import numpy as np

from experiments.benchmarks.speed import photographs
from experiments.benchmarks.speed.contest import Work


def loader(count: int, batch: int, side: int) -> Work:
    """One pass."""
    crops = photographs.read_crops(count)
    boxes = crops.boxes.tolist()
    cores = len(os.sched_getaffinity(0))

    def load(position: int) -> dict[str, Any]:
        cropped = photographs.crop(crops.paths[position], boxes[position], side)
        return {"image": cropped, "label": np.int32("second" in crops.paths[position])}

    dataset = grain.MapDataset.range(count).map(load).batch(batch)
    options = grain.ReadOptions(num_threads=cores, prefetch_buffer_size=4 * cores)

    def run(units: int) -> None:
        for _ in dataset[: max(units // batch, 1)].to_iter_dataset(options):
            pass

    return Work(run, lambda: photographs.means(dataset[0]["image"]))

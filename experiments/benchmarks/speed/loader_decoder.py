"""The decoder alone in the benchmark `loader`: what any reader that decodes with PIL spends at least."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from experiments.benchmarks.speed import photographs
from experiments.benchmarks.speed.contest import Work


def decoder(count: int, batch: int, side: int) -> Work:
    """Every file read and decoded, by a thread for each core; nothing becomes of the pixels."""
    crops = photographs.read_crops(count)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def run(units: int) -> None:
        for _ in pool.map(_decode, crops.paths[:units]):
            pass

    def outcome() -> list[float]:
        pairs = zip(crops.paths[:batch], crops.boxes.tolist(), strict=False)
        return photographs.means(np.stack([photographs.crop(path, box, side) for path, box in pairs]))

    return Work(run, outcome)


def _decode(path: str) -> None:
    with Image.open(path) as image:
        image.load()

"""Sides of jaxvision in the benchmark `masks`."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.masks_scene import scene, told
from jaxvision.masks.paste import run_lengths
from jaxvision.types import BoxMasks, Canvas


def aligned(count: int, height: int, width: int) -> Work:
    """The run lengths of each mask, whose cells lie where its box does."""
    probabilities, boxes = scene(count, height, width)
    return _work(BoxMasks(probabilities, boxes, "aligned"), height, width)  # type: ignore[arg-type]


def torchvision(count: int, height: int, width: int) -> Work:
    """The run lengths of each mask as torchvision pastes it; checksums of them are the outcome."""
    probabilities, boxes = scene(count, height, width)
    return _work(BoxMasks(probabilities, boxes, "torchvision"), height, width)  # type: ignore[arg-type]


def _work(masks: BoxMasks, height: int, width: int) -> Work:
    canvas = Canvas(np.zeros((1, 1, 3), np.uint8), (height, width), (height, width))

    def once() -> Iterator[bytes]:
        return (runs.counts for runs in run_lengths(masks, range(len(masks.boxes)), canvas))

    def run(units: int) -> None:
        for _ in range(units):
            deque(once(), maxlen=0)

    return Work(run, lambda: told(once()))

"""Side of torchvision and pycocotools in the benchmark `masks`."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from torchvision.models.detection.roi_heads import paste_masks_in_image

from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.masks_scene import scene, told


def pasted(count: int, height: int, width: int, at_once: int | None = None) -> Work:
    """The pasted masks, so many at once or all, and their run lengths; checksums of them are the outcome."""
    probabilities, boxes = map(torch.from_numpy, scene(count, height, width))
    probabilities, at_once = probabilities[:, None], at_once or count

    def once() -> Iterator[bytes]:
        for masks, places in zip(probabilities.split(at_once), boxes.split(at_once), strict=True):
            for each in paste_masks_in_image(masks, places, (height, width))[:, 0]:
                found: Any = coco.encode(np.asfortranarray((each > 0.5).numpy()))
                yield found["counts"]

    def run(units: int) -> None:
        for _ in range(units):
            deque(once(), maxlen=0)

    return Work(run, lambda: told(once()))


def one_by_one(count: int, height: int, width: int) -> Work:
    """One mask at a time, so that no more than one is held."""
    return pasted(count, height, width, at_once=1)

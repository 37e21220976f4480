"""Fashion-MNIST's files as NumPy arrays, without jaxvision, and the schedule that all sides train by."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEAN, STD = 73.0, 90.0
RATE, SMOOTHING, DECAY = 0.4 / 512, 0.1, 5e-4
"""The highest learning rate for each image of a batch, label smoothing, and weight decay."""
SHIFT = 2
"""Pixels by which images are shifted at most."""


class Split(NamedTuple):
    """Images and their classes."""

    images: np.ndarray
    labels: np.ndarray


def read(folder: str, split: str, images: int | None = None) -> Split:
    """One of the splits `train` and `t10k`, or so many of its first images: `n 28 28 1`, uint8."""
    arrays = []
    for name, start in ((f"{split}-images-idx3-ubyte.gz", 16), (f"{split}-labels-idx1-ubyte.gz", 8)):
        with gzip.open(Path(folder) / name) as file:
            arrays.append(np.frombuffer(file.read(), np.uint8, offset=start))
    return Split(arrays[0].reshape(-1, 28, 28, 1)[:images], arrays[1][:images].astype(np.int32))


def rate(step: int, steps: int, batch: int) -> float:
    """The learning rate: linear to its highest over the first fifth, then linear to 0."""
    rise = max(steps // 5, 1)
    return batch * RATE * min(step / rise, (steps - step) / (steps - rise))

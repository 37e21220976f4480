"""Features and regions of the benchmark `roi_align`."""

from collections.abc import Sequence

import numpy as np

from experiments.benchmarks.speed.boxes import clusters

IMAGE, SIZE = 800, 7
STRIDE = 16
STRIDES = (4, 8, 16, 32)
SHOWN = 499
"""Every number at such a distance is compared."""


def features(stride: int, channels: int) -> np.ndarray:
    """Features `h w c` from 0 to 1."""
    return np.random.default_rng(stride).random((IMAGE // stride, IMAGE // stride, channels), np.float32)


def weights(regions: int, channels: int) -> np.ndarray:
    """The gradient of what is pooled, `n s s c`."""
    return np.random.default_rng(1).random((regions, SIZE, SIZE, channels), np.float32)


def regions(count: int) -> np.ndarray:
    """Regions of all sizes from 20 px to the whole image, and many of 20 to 120 px."""
    boxes, sides = clusters(count)[0], np.random.default_rng(2).uniform(20, IMAGE, (count, 2))
    large = np.arange(count) % 4 == 0
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    boxes[large] = np.concatenate([centre - sides / 2, centre + sides / 2], 1)[large]
    return np.clip(boxes, 0, IMAGE).astype(np.float32)


def told(arrays: Sequence[np.ndarray]) -> list[float]:
    """Some numbers of each array, and the sum of each."""
    found = [each.reshape(-1).astype(np.float64) for each in arrays]
    return [float(x) for each in found for x in (each.sum(), *(each[::SHOWN] + 1))]

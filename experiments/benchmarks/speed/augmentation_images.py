"""Images of the benchmark `augmentation`."""

from collections.abc import Sequence

import numpy as np

COMPARED = 40
"""Batches whose levels are compared."""


def images(side: int, count: int) -> np.ndarray:
    """Smooth coloured images, uint8 `b h w c`."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side][:, None, :, :, None] / side
    waves, turn, middle = (rng.uniform(low, high, (count, 1, 1, 3)) for low, high in ((3, 12), (0, 6), (70, 180)))
    levels = middle + 60 * np.sin(waves * x + turn) * np.cos(waves[..., ::-1] * y)
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def told(before: np.ndarray, batches: Sequence[np.ndarray]) -> list[float]:
    """Mean and standard deviation of the levels, and how far they are from those before, in the mean."""
    levels = np.stack(batches).astype(np.float64)
    return [float(levels.mean()), float(levels.std()), float(abs(levels - before).mean())]

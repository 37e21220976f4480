"""Boxes in clusters, as they are before NMS."""

import numpy as np

CLASSES = 80


def clusters(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (count, 4) in an image of 1,000 px, about twenty for each object, and their scores."""
    random = np.random.default_rng(seed)
    centre = random.uniform(0, 1000, (max(count // 20, 1), 2))[random.integers(0, max(count // 20, 1), count)]
    centre, half = centre + random.normal(0, 8, (count, 2)), random.uniform(10, 60, (count, 2))
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32), random.random(count, np.float32)


def chain(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in a row, (count, 4), of which each removes the next unless it is removed itself, and their scores."""
    left = 4 * np.arange(count, dtype=np.float32)
    ones = np.ones_like(left)
    return np.stack([left, 0 * ones, left + 15, 10 * ones], 1), np.linspace(1, 0.1, count, dtype=np.float32)


FORMS = {"clusters": clusters, "chain": chain}


def classed(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes in clusters, their scores and classes.

    Coordinates are whole eighths of a pixel: torchvision moves each class to a place of its own, which rounds others.
    """
    boxes, scores = clusters(count)
    return np.round(boxes * 8) / 8, scores, np.random.default_rng(1).integers(0, CLASSES, count)

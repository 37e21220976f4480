"""Corruptions by occlusion: a part of the image is hidden behind grey; not of ImageNet-C, the fractions are ours.

Targets stay: an object that is hidden is still to be found.
"""

import numpy as np

from jaxvision.trust.corruption import Corruption, Pixels

GREY = 127
STRIPES = 4
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Fractions of the image that are hidden."""


def _place(rng: np.random.Generator, image: Pixels, fraction: float) -> tuple[float, float]:
    """Where the square is, as fractions of the room that it has down and to the right."""
    del image, fraction
    return rng.random(), rng.random()


def _behind_a_square(image: Pixels, fraction: float, place: tuple[float, float]) -> np.ndarray:
    """A square, or a rectangle where the image is too narrow for one, of this fraction of the image."""
    height, width = image.shape[:2]
    side = (fraction * height * width) ** 0.5
    rows = max(1, round(min(side if side <= width else fraction * height, height)))
    columns = max(1, round(min(side if side <= height else fraction * width, width)))
    top, left = round(place[0] * (height - rows)), round(place[1] * (width - columns))
    hidden = image.copy()
    hidden[top : top + rows, left : left + columns] = GREY
    return hidden


def _shift(rng: np.random.Generator, image: Pixels, fraction: float) -> tuple[float, bool]:
    """Where the first stripe begins, as a fraction of the way to the next, and whether stripes are upright."""
    del image, fraction
    return rng.random(), bool(rng.random() < 0.5)


def _behind_stripes(image: Pixels, fraction: float, draws: tuple[float, bool]) -> np.ndarray:
    """Four stripes at equal distances, together of this fraction of the image."""
    shift, upright = draws
    lines = image.shape[1 if upright else 0]
    where = (np.arange(lines) * STRIPES / lines + shift) % 1 < fraction
    across = where[None, :, None] if upright else where[:, None, None]
    return np.where(across, GREY, image)


square_occlusion = Corruption(_place, _behind_a_square, FRACTIONS, FRACTIONS)
stripe_occlusion = Corruption(_shift, _behind_stripes, FRACTIONS, FRACTIONS)

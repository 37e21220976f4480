"""Calibration: scores of models become probabilities that are what they say.

Temperature scaling: the logit of the score, divided by one number, the temperature, is the logit of the probability (Guo et
al., arXiv:1706.04599). Above 1 it makes a model less sure. The order of its scores stays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

CLOSEST = 1e-6
"""Distance from 0 and 1 that scores are kept at."""
DIGITS = 6
"""Decimals of a probability: thresholds are compared with numbers that went through a file."""
COLDEST, HOTTEST = 0.05, 20.0
"""Range of temperatures."""
BINS = 15
"""Bins of the calibration error, as in the paper."""


def logit(score: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Logarithm of the odds of scores from 0 to 1."""
    score = np.clip(np.asarray(score, float), CLOSEST, 1 - CLOSEST)
    return np.log(score) - np.log1p(-score)


def probability(score: Float[np.ndarray, "*n"], temperature: Float[np.ndarray, "*n"] | float) -> np.ndarray:
    """Probabilities of scores at a temperature, rounded to `DIGITS`."""
    return np.round(1 / (1 + np.exp(-logit(score) / temperature)), DIGITS)


def temperature(score: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"]) -> float:
    """Temperature whose probabilities explain best what was right, by likelihood; 1 where nothing is known.

    The targets are Platt's (1999), a little inside 0 and 1, so that few objects don't make a model infinitely sure.
    """
    if not len(score):
        return 1.0
    hits = np.count_nonzero(right)
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))
    odds = logit(score)
    low, high = -np.log(HOTTEST), -np.log(COLDEST)
    for _ in range(60):  # the loss is convex in the inverse temperature, so that its slope has one zero
        middle = (low + high) / 2
        slope = np.mean((1 / (1 + np.exp(-odds * np.exp(middle))) - target) * odds)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(np.round(np.exp(-(low + high) / 2), DIGITS))


class Bins(NamedTuple):
    """Objects by their probability, in bins of equal width; bins without an object are left out."""

    count: Float[np.ndarray, "b"]
    probability: Float[np.ndarray, "b"]
    """Mean of the probabilities in it."""
    right: Float[np.ndarray, "b"]
    """Fraction that is right."""


def bins(
    probability: Float[np.ndarray, "n"], right: Float[np.ndarray, "n"], number: int = BINS, *, equal_mass: bool = False
) -> Bins:
    """The bins of probabilities from 0 to 1.

    Args:
      probability: of each object.
      right: whether it is, or how much from 0 to 1: its IoU, say.
      number: of bins.
      equal_mass: bins hold the same number of objects, up to one, in the order of their probability (arXiv:1904.01685); or
        else they have the same width, and each has its upper end, the first both.
    """
    probability, right = np.asarray(probability, np.float64), np.asarray(right, np.float64)
    if equal_mass:
        sizes = [len(part) for part in np.array_split(probability, number)]
        place = np.empty(len(probability), np.int64)
        place[np.argsort(probability, kind="stable")] = np.repeat(np.arange(number), sizes)
    else:
        place = np.searchsorted(np.linspace(0, 1, number + 1)[1:-1], probability, side="left")
    count = np.bincount(place, minlength=number)
    used = count > 0
    sums = (np.bincount(place, weights, minlength=number)[used] for weights in (probability, right))
    return Bins(count[used].astype(float), *(each / count[used] for each in sums))


def error(
    probability: Float[np.ndarray, "n"], right: Float[np.ndarray, "n"], number: int = BINS, *, equal_mass: bool = False
) -> float:
    """Expected calibration error: mean distance of a bin's probability from what is right in it, by objects; 0 of none.

    Arguments as those of `bins`.
    """
    found = bins(probability, right, number, equal_mass=equal_mass)
    return float(np.sum(found.count * abs(found.probability - found.right)) / max(found.count.sum(), 1))

"""Conformal sets: classes that hold the true one with a wanted probability, whatever the model (APS, arXiv:2006.02544).

The score of an example is the probability of all classes up to the true one, the most probable first, that of the true one
times a uniform random number. The threshold is the quantile of the scores of held-out examples; the set of another example
has the classes whose score is at most that. Over held-out and other examples together, which are exchangeable, the true class
is then in the set with at least the wanted probability, and at most 1 / (n + 1) more.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxvision.errors import ConfigError, DataError, amount


class Conformal(NamedTuple):
    """A threshold, and the coverage that it is for."""

    coverage: float
    threshold: float
    """Largest score of a class in a set: infinite where there are too few examples to leave any class out."""
    examples: int
    """Held-out examples that it is of."""


def conformal(rows: Mapping[str, np.ndarray], coverage: float, seed: int = 0) -> Conformal:
    """The threshold of held-out rows.

    Args:
      rows: of `metrics.calibration_error.classifier_calibration`; of no example that the sets are judged by.
      coverage: wanted, above 0 and below 1.
      seed: of the uniform random numbers.

    Raises:
      ConfigError: for a coverage out of range.
      DataError: for no examples, or scores that are not finite.
    """
    check_coverage(coverage)
    p, label = probabilities(rows), np.asarray(rows["label"])
    n = len(label)
    score = np.sort(scores(p, draws(rows, n, seed))[np.arange(n), label])
    place = int(np.ceil(np.round(coverage * (n + 1), 9)))
    return Conformal(coverage, float(score[place - 1]) if place <= n else float("inf"), n)


def check_coverage(coverage: float, detector: bool = False) -> None:
    """Raises ConfigError for a coverage out of range, or of a detector."""
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage is {coverage}; it must be above 0 and below 1")
    if detector:
        raise ConfigError("conformal sets are of a classifier; a detector has none")


def sets(rows: Mapping[str, np.ndarray], found: Conformal, seed: int = 0) -> Bool[np.ndarray, "n k"]:
    """Which classes are in the set of each example; one may be empty, as the exact coverage needs."""
    p = probabilities(rows)
    return scores(p, draws(rows, len(p), seed)) <= found.threshold


def judge(rows: Mapping[str, np.ndarray], inside: Bool[np.ndarray, "n k"]) -> dict[str, float]:
    """Fraction of the examples whose set holds the true class, and the mean number of classes in a set."""
    label = np.asarray(rows["label"])
    return {"coverage": float(np.mean(inside[np.arange(len(label)), label])), "set_size": float(np.mean(inside.sum(1)))}


def scores(p: Float[np.ndarray, "n k"], uniform: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n k"]:
    """The score of every class: the probability of those before it, and its own times the random number of the example.

    Of equal probabilities the class with the smaller number comes first.
    """
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, 1)
    ranked = ranked.cumsum(1) - ranked + uniform[:, None] * ranked
    found = np.empty_like(p)
    np.put_along_axis(found, order, ranked, 1)
    return found


def draws(rows: Mapping[str, np.ndarray], n: int, seed: int) -> Float[np.ndarray, "n"]:
    """The uniform random number of each example, by its index in the data where the rows have that: pure in (seed, index)."""
    index = np.asarray(rows.get("index", np.arange(n)), np.int64)
    return np.random.default_rng(seed).random(int(index.max(initial=-1)) + 1)[index]


def probabilities(rows: Mapping[str, np.ndarray]) -> Float[np.ndarray, "n k"]:
    """The probabilities of all classes. Raises DataError for no examples, or numbers that are not finite."""
    p = np.exp(np.asarray(rows["log_probabilities"], np.float64))
    if not len(p) or not np.isfinite(p).all():
        raise DataError(f"conformal sets need examples with finite probabilities, got {amount(len(p), 'example')}")
    return p / p.sum(1, keepdims=True)

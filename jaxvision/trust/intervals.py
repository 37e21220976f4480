"""Intervals of figures: Wilson's for rates, the bootstrap for any other figure."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Bounds of a figure; NaN where nothing is known of it."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


class Estimate(NamedTuple):
    """A figure of a sample, and what its interval follows from."""

    value: float
    n: int
    """Examples or objects that it was computed from."""
    counted: bool = False
    """Whether it is a rate: a fraction of `n`, each right or wrong by itself."""
    resampled: Float[np.ndarray, "draws"] | None = None
    """The figure of each bootstrap sample, NaN where it has none."""
    rows: int = 0
    """Rows that these samples were drawn from."""

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Wilson's interval of a rate, the bootstrap's of another figure; of a rate that was resampled too, the wider bounds.

        Both are there for rates of objects: those of one image are not independent, which Wilson's interval takes them to be,
        and where all are right the bootstrap sees no variation.
        """
        if not self.n or math.isnan(self.value):
            return UNKNOWN
        rate = wilson(self.value, self.n, confidence) if self.counted else UNKNOWN
        drawn = UNKNOWN if self.resampled is None else percentiles(self.value, self.resampled, self.rows, confidence)
        return Interval(float(np.fmin(rate.low, drawn.low)), float(np.fmax(rate.high, drawn.high)))


def wilson(rate: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a rate of `n` independent trials (JASA 22, 1927, pages 209 to 212).

    Raises:
      ValueError: for no trial, and for a rate or a confidence outside 0 to 1.
    """
    if n < 1 or not 0 <= rate <= 1:
        raise ValueError(f"wilson(rate={rate}, n={n}): allowed are a rate from 0 to 1 and 1 trial or more")
    z = deviations(confidence)
    centre, half = rate + z * z / (2 * n), z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return Interval(0.0 if rate == 0 else low, 1.0 if rate == 1 else high)


def percentiles(
    value: float, resampled: Float[np.ndarray, "draws"], rows: int, confidence: float = CONFIDENCE
) -> Interval:
    """The percentile interval of the bootstrap, expanded for samples of few rows (arXiv:1411.5279).

    Expanded it is by Student's t over the normal quantile, and since the variance of a sample is that of `rows` less one.
    Few draws have no outer percentiles: beyond 95 % the interval of 95 % is scaled. It ends at 0, or at 1, where draws reach
    that and none goes beyond. Unknown for fewer than two rows, or where more than one in five draws has no value.
    """
    known = resampled[~np.isnan(resampled)]
    if rows < 2 or len(known) < max(0.8 * len(resampled), 2):
        return UNKNOWN
    inner = min(confidence, CONFIDENCE)
    low, high = np.quantile(known, [(1 - inner) / 2, (1 + inner) / 2], method="weibull")
    wider = _student(deviations(confidence), rows - 1) / deviations(inner) * math.sqrt(rows / (rows - 1))
    low, high = float(value - wider * max(value - low, 0)), float(value + wider * max(high - value, 0))
    return Interval(max(low, 0.0) if known.min() == 0 else low, min(high, 1.0) if known.max() == 1 else high)


def _student(z: float, freedom: int) -> float:
    """Quantile of Student's t from that of the normal distribution, to the second order of 1 / freedom."""
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def bootstrap(
    figures: Callable[[Int[np.ndarray, "n"]], dict[str, float]], n: int, *, draws: int, seed: int
) -> dict[str, Float[np.ndarray, "draws"]]:
    """Each figure of `draws` samples, each of `n` rows drawn with replacement from `n`; the same for the same seed.

    Args:
      figures: of the rows of these numbers; a figure that it leaves out is NaN in that sample.
      n: the number of rows.
      draws: the number of samples.
      seed: 0 or more.

    Raises:
      ValueError: for no row, or no draw.
    """
    if n < 1 or draws < 1:
        raise ValueError(f"bootstrap(n={n}, draws={draws}): allowed are 1 or more")
    generator = np.random.Generator(np.random.Philox(seed))
    found: dict[str, np.ndarray] = {}
    for draw in range(draws):
        for name, value in figures(generator.integers(0, n, n)).items():
            found.setdefault(name, np.full(draws, np.nan))[draw] = value
    return found


def difference(a: Estimate, b: Estimate, confidence: float = CONFIDENCE) -> Interval:
    """The interval of `a - b`, of two independent samples, from the intervals of both.

    The method of variance estimates recovery; for two rates it is Newcombe's hybrid score interval (Statistics in Medicine
    17, 1998, pages 873 to 890, method 10).
    """
    of_a, of_b = a.interval(confidence), b.interval(confidence)
    value = a.value - b.value
    low = value - math.hypot(a.value - of_a.low, of_b.high - b.value)
    high = value + math.hypot(of_a.high - a.value, b.value - of_b.low)
    return Interval(low, high)


def deviations(confidence: float) -> float:
    """Standard deviations from the mean to each bound."""
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence of an interval is {confidence}; allowed is above 0 and below 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)

"""Statistics of an ablation: what seeds and test images say of a difference, and what they don't.

Two sources of chance are told apart. Training: another seed gives other weights; differences are paired by seed, and their
mean has Student's interval (a percentile bootstrap of 3 seeds covers 75 %, not 95 %). Test set: other images give other
metrics; the rows of an evaluation are resampled, the same images for both variants. `crossed` adds both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

Rows = Mapping[str, np.ndarray]
"""Columns over the examples of an evaluation, as `run.Evaluated.rows` has them."""
Compute = Callable[[Rows], Mapping[str, float]]
"""`compute` of a metric: rows to figures by name."""
Verdict = Literal["better", "worse", "undecided"]
LEVEL = 0.05
ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Spread, relative to the figures, that their rounding alone can give differences that are the same."""
POWER = 0.8


class Difference(NamedTuple):
    """A mean difference between two variants, with its interval and two-sided p-value."""

    mean: float
    deviation: float
    """Standard deviation of one difference; NaN for fewer than two."""
    n: int
    low: float
    high: float
    p: float
    """NaN where the differences have no spread, or there are fewer than two."""


def paired(differences: Sequence[float], comparisons: int = 1, level: float = LEVEL, scale: float = 0.0) -> Difference:
    """Student's interval of the mean of differences that are paired by seed.

    Args:
      differences: variant minus baseline, one a seed.
      comparisons: how many variants are compared; the interval is Bonferroni's, of level `1 - level / comparisons`.
      level: probability that any interval misses its mean.
      scale: largest size of the figures that the differences are of, by which a spread of rounding alone is told.

    Raises:
      ValueError: no differences, one that is not finite, or `comparisons` below 1.
    """
    values = np.asarray(differences, np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, at least one: {list(differences)}")
    if comparisons < 1 or not 0 < level < 1:
        raise ValueError(f"comparisons={comparisons} must be 1 or more, level={level} between 0 and 1")
    mean, n = float(values.mean()), len(values)
    deviation = float(values.std(ddof=1)) if n > 1 else float("nan")
    if n > 1 and np.ptp(values) <= ROUNDING * max(scale, float(np.abs(values).max())):
        return Difference(mean, 0.0, n, -np.inf, np.inf, float("nan"))
    if n < 2:
        return Difference(mean, deviation, n, -np.inf, np.inf, float("nan"))
    return _student(mean, deviation, n, deviation / np.sqrt(n), n - 1, comparisons, level)


def _student(
    mean: float, deviation: float, n: int, error: float, freedom: float, comparisons: int, level: float
) -> Difference:
    half = -float(special.stdtrit(freedom, level / comparisons / 2)) * error
    p = float(2 * special.stdtr(freedom, -abs(mean) / error))
    return Difference(mean, deviation, n, mean - half, mean + half, p)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p-values; one that is NaN stays so and still counts as a comparison."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")  # NaN last
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted.tolist()


def verdict(
    difference: Difference, adjusted: float, better: Literal["higher", "lower"], level: float = LEVEL
) -> Verdict:
    """What a comparison says: by its adjusted p-value and the direction that is better."""
    if not adjusted <= level:
        return "undecided"
    return "better" if (difference.mean > 0) == (better == "higher") else "worse"


def detectable(deviation: float, n: int, comparisons: int = 1, level: float = LEVEL, power: float = POWER) -> float:
    """Smallest true difference that `n` seeds with this spread show in `power` of the studies; infinite for one seed.

    Args:
      deviation: standard deviation of one paired difference.
      n: seeds.
      comparisons: as for `paired`.
      level: of the test, two-sided.
      power: how often it is to be shown.
    """
    if n < 2 or not np.isfinite(deviation):
        return float("inf")
    critical = -float(special.stdtrit(n - 1, level / comparisons / 2))
    low, high = 0.0, critical + 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - special.nctdtr(n - 1, middle, critical) < power else (low, middle)
    return high * deviation / np.sqrt(n)


def seeds_needed(difference: float, deviation: float, comparisons: int = 1, most: int = 1000) -> int | None:
    """The fewest seeds that show a true difference of this size in 80 % of the studies; None for more than `most`."""
    if difference == 0 or not np.isfinite(deviation):
        return None
    low, high = 2, most
    if detectable(deviation, most, comparisons) > abs(difference):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if detectable(deviation, middle, comparisons) <= abs(difference) else (middle + 1, high)
        )
    return low


def resampled(
    compute: Compute, rows: Sequence[Rows], names: Sequence[str], draws: int = 1000, seed: int = 0
) -> np.ndarray:
    """Figures of resampled test sets, the same images of each draw for all tables of rows.

    Args:
      compute: of the metric.
      rows: a table a run, of the same examples in the same order.
      names: figures to keep.
      draws: number of resampled test sets.
      seed: of the images drawn.

    Returns:
      Figures, `draws runs names`.

    Raises:
      ValueError: the tables are not of the same examples.
    """
    index = np.asarray(rows[0]["index"])
    for each in rows[1:]:
        if not np.array_equal(index, each["index"]):
            raise ValueError("the runs were evaluated on different examples: their rows can't be paired")
    figures = np.empty((draws, len(rows), len(names)))
    for draw in range(draws):
        chosen = np.random.default_rng([seed, draw]).integers(0, len(index), len(index))
        for run, table in enumerate(rows):
            computed = compute({name: np.asarray(column)[chosen] for name, column in table.items()})
            figures[draw, run] = [computed[name] for name in names]
    return figures


def percentile(differences: np.ndarray, mean: float, comparisons: int = 1, level: float = LEVEL) -> Difference:
    """The percentile interval of a difference from its resampled values (`resampled`), NaN left out, and its p-value.

    The interval says what other test images of the same kind would do; of training it says nothing.
    """
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Difference(mean, float("nan"), 0, -np.inf, np.inf, float("nan"))
    tail = level / comparisons / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    smaller = min((1 + (values <= 0).sum()), (1 + (values >= 0).sum())) / (1 + len(values))
    return Difference(mean, float(values.std(ddof=1)), len(values), float(low), float(high), float(min(2 * smaller, 1)))


def crossed(seeds: Difference, test: Difference) -> Difference:
    """The interval of a mean difference for other seeds and other test images at once; it has no p-value.

    Its half-width is the root of the sum of the squares of the two, as for independent sources: never less than either. What
    seeds and images share counts twice, so that it is wide rather than narrow.

    Args:
      seeds: of `paired`.
      test: of the mean over the same seeds, resampled (`percentile`), for as many comparisons.
    """
    of_seeds, of_test = ((each.high - each.low) / 2 for each in (seeds, test))
    half = math.hypot(of_seeds, of_test)
    half = half if math.isfinite(half) else math.inf
    return Difference(seeds.mean, seeds.deviation, seeds.n, seeds.mean - half, seeds.mean + half, float("nan"))

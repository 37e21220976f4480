"""Metrics by group: every figure of a metric for each group, its interval, and what divides the worst group from the best."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxvision.errors import DataError, amount
from jaxvision.trust.groups import MEASURED
from jaxvision.trust.intervals import CONFIDENCE, Estimate, bootstrap, difference
from jaxvision.trust.object_groups import object_figures
from jaxvision.trust.rates import Rates, accuracies, larger_is_worse
from jaxvision.types import Batch, Groups, Metric, Prediction, Rows

LEAST = 30
"""Examples or objects of a group from which on it is ranked among the others."""
DRAWS = 400
"""Bootstrap samples."""


class Gap(NamedTuple):
    """What divides the worst group from the best, by one figure, among the groups that are ranked."""

    worst: str
    best: str
    gap: float
    """The difference of the two figures, 0 or more."""
    low: float
    high: float
    """Interval of the gap. It holds for all pairs of groups at once (Bonferroni), since the two were chosen for being apart;
    the groups are taken to be independent."""
    ratio: float
    """The smaller of the two figures by the larger; NaN where one is negative, or both are 0."""

    @property
    def verdict(self) -> str:
        """Whether the gap is more than its interval: "decided" or "undecided"."""
        return "decided" if self.low > 0 else "undecided"


class ByGroup(NamedTuple):
    """The figures of each group."""

    attribute: str
    names: tuple[str, ...]
    n: tuple[int, ...]
    """Examples, or objects, of each."""
    without: int
    """Examples or objects of no group."""
    figures: Mapping[str, tuple[Estimate, ...]]
    """By the name of the figure, that of each group; NaN where a group has none."""
    objects: bool
    least: int = LEAST

    def ranked(self) -> list[int]:
        """Numbers of the groups that are large enough to be ranked."""
        return [number for number, n in enumerate(self.n) if n >= self.least]

    def gap(self, figure: str, confidence: float = CONFIDENCE) -> Gap | None:
        """The worst and the best group by a figure; None where fewer than two are ranked and have it."""
        among = self.figures[figure]
        known = [number for number in self.ranked() if not math.isnan(among[number].value)]
        if len(known) < 2:
            return None
        low, *_, high = sorted(known, key=lambda number: among[number].value)
        best, worst = (low, high) if larger_is_worse(figure) else (high, low)
        a, b = among[high], among[low]
        pairs = len(known) * (len(known) - 1) // 2
        bounds = difference(a, b, 1 - (1 - confidence) / pairs)
        ratio = b.value / a.value if b.value >= 0 and a.value > 0 else math.nan
        return Gap(self.names[worst], self.names[best], a.value - b.value, *bounds, ratio)


def by_group(
    metric: Metric,
    groups: Groups,
    *,
    rates: Rates = accuracies,
    draws: int = DRAWS,
    seed: int = 0,
    least: int = LEAST,
    score: float = 0.5,
) -> Metric:
    """The metric, and each of its figures for every group; the rows are as they are, with what the groups are told from.

    The metrics: those of `metric`, and for each of its figures, and each rate of `rates`, with the attribute's name,
      <figure>/<attribute>=<group>: the figure of the group, with :low and :high, its interval of 95 %.
      <figure>/<attribute>:worst, :gap, :gap_low, :gap_high, :ratio, :decided: of the groups of at least `least` examples;
        decided is 1 where the interval of the gap has no 0 in it. `figures_by_group` also tells which group it is.
      n/<attribute>=<group>: its examples, or objects.

    Rates have Wilson's interval, other figures that of the bootstrap: `draws` samples of the rows of the group. Groups of
    objects are for rows of `metrics.detection` and `metrics.instances`, and have the figures of `object_figures`.

    Raises:
      DataError: in `compute`, where no example is in a group.
    """

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = figures_by_group(metric, groups, rows, rates=rates, draws=draws, seed=seed, least=least, score=score)
        return metric.compute(rows) | flat(found)

    return observing(metric, [groups])._replace(compute=compute)


def observing(metric: Metric, groups: Sequence[Groups]) -> Metric:
    """The metric, its rows with the columns that these groups need."""

    def observe(prediction: Prediction, batch: Batch) -> Rows:
        rows = dict(metric.observe(prediction, batch))
        for each in groups:
            rows |= each.observe(batch)
        return rows

    def condense(rows: Rows) -> Mapping[str, np.ndarray]:
        assert metric.condense is not None
        kept = {name: _first(rows, name) for name in rows if name.startswith(MEASURED)}
        return {**metric.condense(rows), **kept}

    return metric._replace(observe=observe, condense=condense if metric.condense else None)


def _first(rows: Rows, name: str) -> np.ndarray:
    """A measured column; of objects, those of each image first, in the order of `true_objects`, and -1 behind them.

    Raises:
      DataError: for a column of objects where the metric has its objects from elsewhere than the target.
    """
    column = np.asarray(rows[name])
    if column.ndim == 1:
        return column
    if "annotated" not in rows:
        raise DataError(
            f"groups by {name.removeprefix(MEASURED)}: the metric takes its objects from the source (truth=), the groups "
            "theirs from the target, which may have others: metrics.instances(classes) has both from the target"
        )
    annotated = np.asarray(rows["annotated"], bool)
    order = np.argsort(~annotated, axis=1, kind="stable")
    column, annotated = (np.take_along_axis(each, order, axis=1) for each in (column, annotated))
    return np.where(annotated, column, -1)


def figures_by_group(
    metric: Metric,
    groups: Groups,
    rows: Mapping[str, np.ndarray],
    *,
    rates: Rates = accuracies,
    draws: int = DRAWS,
    seed: int = 0,
    least: int = LEAST,
    score: float = 0.5,
) -> ByGroup:
    """The figures of each group, from the rows of `by_group`.

    Args:
      metric: whose figures.
      groups: of the examples, or of the objects.
      rows: of the metric, with the columns that the groups need.
      rates: which figures are rates of examples, and more such.
      draws: the number of bootstrap samples; 0 leaves figures that are no rates without an interval.
      seed: of the samples.
      least: the number of examples, or objects, from which on a group is ranked.
      score: the least score of detections that count as found, for the recall of objects.

    Raises:
      DataError: where no example, or no object, is in a group.
      ValueError: for a number that is of none of the groups.
    """
    number = checked_numbers(groups, rows)
    if groups.objects:
        found, counts, without = object_figures(
            metric, len(groups.names), number, rows, draws=draws, seed=seed, score=score
        )
    else:
        parts = [_rows(rows, np.flatnonzero(number == group)) for group in range(len(groups.names))]
        counts, without = [len(part["index"]) for part in parts], int((number < 0).sum())
        found = [
            _example_figures(metric, part, rates, draws, seed + group) if count else {}
            for group, (part, count) in enumerate(zip(parts, counts, strict=True))
        ]
    if not any(counts):
        what = "object" if groups.objects else "example"
        raise DataError(f"groups by {groups.attribute}: none has {what}s, of {amount(without, what)} in the data")
    names = dict.fromkeys(name for figures in found for name in figures)
    nothing = Estimate(math.nan, 0)
    figures = {name: tuple(each.get(name, nothing) for each in found) for name in names}
    return ByGroup(groups.attribute, groups.names, tuple(counts), without, figures, groups.objects, least)


def checked_numbers(groups: Groups, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The number of the group of each example, or object. Raises ValueError for one that is of none."""
    number = np.asarray(groups.number(rows))
    if number.size and not -1 <= number.min() <= number.max() < len(groups.names):
        raise ValueError(
            f"groups by {groups.attribute}: there are numbers from {number.min()} to {number.max()}; allowed are "
            f"-1, for none, to {len(groups.names) - 1}"
        )
    return number


def _rows(rows: Mapping[str, np.ndarray], chosen: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    return {name: np.asarray(column)[chosen] for name, column in rows.items()}


def _example_figures(
    metric: Metric, rows: Mapping[str, np.ndarray], rates: Rates, draws: int, seed: int
) -> dict[str, Estimate]:
    """The figures of these examples."""
    n, counted, figures = len(rows["index"]), rates(rows), metric.compute(rows)
    resampled: dict[str, np.ndarray] = {}
    if draws and n > 1 and not figures.keys() <= counted.keys():
        resampled = bootstrap(lambda chosen: metric.compute(_rows(rows, chosen)), n, draws=draws, seed=seed)
    found = {name: Estimate(value, n, False, resampled.get(name), n) for name, value in figures.items()}
    of = {name: Estimate(right / all if all else math.nan, all, True) for name, (right, all) in counted.items()}
    return found | {name: each for name, each in of.items() if name in found or "/" in name}


def flat(found: ByGroup) -> dict[str, float]:
    """The figures by name, as `by_group` says."""
    metrics = {f"n/{found.attribute}={name}": float(n) for name, n in zip(found.names, found.n, strict=True)}
    for figure, estimates in found.figures.items():
        for name, each in zip(found.names, estimates, strict=True):
            key, bounds = f"{figure}/{found.attribute}={name}", each.interval()
            metrics |= {key: each.value, f"{key}:low": bounds.low, f"{key}:high": bounds.high}
        gap = found.gap(figure)
        if gap is not None:
            worst = estimates[found.names.index(gap.worst)].value
            told = {"worst": worst, "gap": gap.gap, "gap_low": gap.low, "gap_high": gap.high, "ratio": gap.ratio}
            told["decided"] = float(gap.verdict == "decided")
            metrics |= {f"{figure}/{found.attribute}:{what}": value for what, value in told.items()}
    return metrics

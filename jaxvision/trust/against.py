"""The robustness of two runs beside each other: what one is better by, on the same corrupted images."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxvision.errors import ConfigError
from jaxvision.trust.intervals import CONFIDENCE, UNKNOWN, Interval, deviations
from jaxvision.trust.robustness import CLEAN, COMMON, Measured, Robustness
from jaxvision.types import About

MEAN = "mean"
"""The row of all common corruptions together, or of all that were measured where none of these was."""


class Difference(NamedTuple):
    """A metric of two runs on the same images, the mean of the severities."""

    name: str
    """Name of the corruption, `clean` or `mean`."""
    ours: float
    other: float
    interval: Interval = UNKNOWN
    """Interval of the difference, paired by image; not known for metrics that are no mean over images."""

    @property
    def difference(self) -> float:
        """What the first run is better by."""
        return self.ours - self.other

    @property
    def verdict(self) -> str:
        """`better`, `worse` or, where the interval holds 0, `undecided`; empty without an interval."""
        low, high = self.interval
        if math.isnan(low):
            return ""
        return "better" if low > 0 else "worse" if high < 0 else "undecided"


def check_same_data(ours: About, other: About) -> None:
    """Raises ConfigError for data or classes that differ."""
    if ours.fingerprint != other.fingerprint or ours.classes != other.classes:
        raise ConfigError("the two runs are not evaluated on the same data: their robustness can't be compared")


def differences(ours: Robustness, other: Robustness, metric: str) -> list[Difference]:
    """The clean images, each corruption, and the mean: a row each.

    Intervals are of accuracy alone: of the mean over images of the difference of two runs' answers, each right or wrong, the
    mean of the severities (a normal approximation at 95 %).

    Raises:
      ConfigError: if the other run has no such metric.
    """
    if metric not in other.clean.metrics:
        raise ConfigError(f"the other run has no metric {metric!r}")
    pooled = [name for name in ours.names if name in COMMON] or list(ours.names)
    rows = [_difference(CLEAN, [ours.clean], [other.clean], metric)]
    for name in ours.names:
        rows.append(_difference(name, _severities(ours, [name]), _severities(other, [name]), metric))
    return [*rows, _difference(MEAN, _severities(ours, pooled), _severities(other, pooled), metric)]


def _severities(found: Robustness, names: Sequence[str]) -> list[Measured]:
    return [found.corrupted[name, severity] for name in names for severity in found.severities]


def _difference(name: str, ours: Sequence[Measured], other: Sequence[Measured], metric: str) -> Difference:
    values = [float(np.mean([each.metrics[metric] for each in run])) for run in (ours, other)]
    return Difference(name, values[0], values[1], _paired(ours, other) if metric == "accuracy" else UNKNOWN)


def _paired(ours: Sequence[Measured], other: Sequence[Measured]) -> Interval:
    """The interval of the mean difference over images; not known where it is not known what is right."""
    right = [[each.right for each in run] for run in (ours, other)]
    if any(each is None for run in right for each in run):
        return UNKNOWN
    first, second = (np.mean(np.asarray(run, np.float64), 0) for run in right)
    gained = first - second
    if len(gained) < 2:
        return UNKNOWN
    half = deviations(CONFIDENCE) * gained.std(ddof=1) / math.sqrt(len(gained))
    return Interval(float(gained.mean() - half), float(gained.mean() + half))


def table(found: Sequence[Difference], names: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    """Lines of a table, the head first."""
    yield "corruption", *names, "difference", "95 % interval", "verdict"
    for each in found:
        low, high = each.interval
        interval = "" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
        yield each.name, f"{each.ours:.4f}", f"{each.other:.4f}", f"{each.difference:+.4f}", interval, each.verdict


def as_markdown(found: Sequence[Difference], metric: str, names: tuple[str, str]) -> str:
    """The table for a person."""
    head, *lines = table(found, names)
    rows = [head, ("---", *["---:"] * (len(head) - 2), "---"), *lines]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"# {metric} of {names[0]} against {names[1]}\n\nThe mean of the severities, on the same images.\n\n{text}\n"


def as_csv(found: Sequence[Difference]) -> str:
    """A line a row; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["corruption", "ours", "other", "difference", "low", "high", "verdict"])
    for each in found:
        bounds = ["" if math.isnan(bound) else bound for bound in each.interval]
        writer.writerow([each.name, each.ours, each.other, each.difference, *bounds, each.verdict])
    return text.getvalue()

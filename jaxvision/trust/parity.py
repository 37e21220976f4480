"""Parity of a classifier's decisions between groups: demographic parity, equal opportunity, equalised odds."""

import math
from typing import NamedTuple

from jaxvision.trust.by_group import ByGroup, Gap
from jaxvision.trust.intervals import CONFIDENCE
from jaxvision.trust.rates import FALSE_POSITIVE, SELECTION, TRUE_POSITIVE

UNKNOWN = "unknown"
"""Verdict where there is no difference to tell."""


class Parity(NamedTuple):
    """How far the decisions for one class are from equal between the groups; a difference of 0 is equal, a ratio of 1.

    Differences are of the largest rate and the smallest, ratios of the smallest and the largest; NaN where fewer than two
    groups are ranked and have the rate, and for ratios where both rates are 0.
    """

    demographic_parity: float
    """Difference of the rates at which the class is predicted."""
    demographic_parity_ratio: float
    equal_opportunity: float
    """Difference of the true positive rates (arXiv:1610.02413)."""
    equal_opportunity_ratio: float
    equalised_odds: float
    """The larger of the differences of the true and the false positive rates."""
    equalised_odds_ratio: float
    """The smaller of the ratios of both."""
    verdicts: tuple[str, str, str]
    """Verdicts of the three, in their order: "decided" or "undecided", or `UNKNOWN`."""


def parity(found: ByGroup) -> dict[str, Parity]:
    """The parity of the decisions for each class, from figures by group that have the rates of `rates.decisions`."""
    names = [name.removeprefix(SELECTION + "/") for name in found.figures if name.startswith(SELECTION + "/")]
    return {name: _parity(found, name) for name in names}


def _parity(found: ByGroup, name: str) -> Parity:
    selected, true = (found.gap(f"{rate}/{name}") for rate in (SELECTION, TRUE_POSITIVE))
    both = 1 - (1 - CONFIDENCE) / 2  # two rates are looked at, so that each has half of the errors
    odds = [gap for rate in (TRUE_POSITIVE, FALSE_POSITIVE) if (gap := found.gap(f"{rate}/{name}", both)) is not None]
    known = len(odds) == 2
    ratios = [gap.ratio for gap in odds]
    decided = any(gap.verdict == "decided" for gap in odds)
    return Parity(
        *_values(selected),
        *_values(true),
        max(gap.gap for gap in odds) if known else math.nan,
        min(ratios) if known and not any(map(math.isnan, ratios)) else math.nan,
        (_verdict(selected), _verdict(true), ("decided" if decided else "undecided") if known else UNKNOWN),
    )


def _values(gap: Gap | None) -> tuple[float, float]:
    return (math.nan, math.nan) if gap is None else (gap.gap, gap.ratio)


def _verdict(gap: Gap | None) -> str:
    return UNKNOWN if gap is None else gap.verdict

"""Verdicts of an ablation: each variant beside the baseline, as far as seeds and test images bear it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from launch import statistics
from launch.plan import Deciding, Plan
from launch.results import Result, by_seed, by_variant, check_figure
from launch.statistics import Compute, Difference, Verdict


class Compared(NamedTuple):
    """One variant."""

    variant: str
    values: dict[int | None, float]
    """The deciding figure by seed."""
    seconds: float
    """Time of its runs together."""
    others: dict[str, tuple[float, float, int]]
    """Mean, standard deviation and number of the other figures, which have no verdict."""
    seeds: tuple[int | None, ...] = ()
    """Those that the variant and the baseline both have."""
    difference: Difference | None = None
    """To the baseline, paired by seed; None for the baseline, and for one seed or none in common."""
    test_set: Difference | None = None
    """Difference of the means over the seeds, for other test images; None without rows."""
    both: Difference | None = None
    """Difference for other seeds and other test images."""
    adjusted: float = float("nan")
    """Holm's p-value."""
    verdict: Verdict | None = None
    """None for the baseline."""
    remarks: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean of the deciding figure; NaN where there is none."""
        return float(np.mean(list(self.values.values()))) if self.values else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation of a run; NaN for fewer than two."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else float("nan")


def compare(
    plan: Plan, results: Sequence[Result], deciding: Deciding, compute: Compute | None = None, draws: int = 1000
) -> list[Compared]:
    """All variants of a plan; where it has a baseline, each beside it.

    Args:
      plan: that the results are of.
      results: of its members.
      deciding: the figure that decides.
      compute: of the metric of the evaluation that the figure is of, to resample the test set; None leaves that out.
      draws: resampled test sets.

    Raises:
      ConfigError: if runs are done and none of them has the figure.
    """
    check_figure(results, deciding.figure)
    groups = by_variant(results)
    found = {name: _alone(name, group, deciding) for name, group in groups.items()}
    if plan.baseline is None:
        return list(found.values())
    others = [name for name in found if name != plan.baseline]
    base = found[plan.baseline]
    tables = {} if compute is None else _resampled(results, deciding, compute, draws)
    for name in others:
        found[name] = _beside(found[name], base, len(others), tables)
    adjusted = statistics.holm([_p(found[name]) for name in others])
    for name, p in zip(others, adjusted, strict=True):
        found[name] = judged(found[name], p, deciding, len(others))
    return [base, *(found[name] for name in others)]


def _p(compared: Compared) -> float:
    return float("nan") if compared.difference is None else compared.difference.p


def _alone(name: str, group: Sequence[Result], deciding: Deciding) -> Compared:
    """A variant for itself."""
    remarks = [
        f"{_seed(result)}{result.state.kind}{': ' if result.state.detail else ''}{result.state.detail}"
        for result in group
        if result.state.kind != "done"
    ]
    remarks += [
        f"{_seed(result)}{deciding.figure} is not finite, left out"
        for result in group
        if result.state.kind == "done" and result.figure(deciding.figure) is None
    ]
    values = by_seed(group, deciding.figure)
    return Compared(name, values, sum(r.seconds for r in group), _others(group, deciding), remarks=tuple(remarks))


def _seed(result: Result) -> str:
    return "" if result.member.seed is None else f"seed {result.member.seed}: "


def _others(group: Sequence[Result], deciding: Deciding) -> dict[str, tuple[float, float, int]]:
    names = [name for result in group for name in result.state.figures if name != deciding.figure]
    found = {}
    for name in dict.fromkeys(names):
        values = list(by_seed(group, name).values())
        if values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            found[name] = (float(np.mean(values)), deviation, len(values))
    return found


Resampled = Mapping[tuple[str, int | None], np.ndarray]
"""Figures of the resampled test sets by variant and seed, the same images for all."""


def _resampled(results: Sequence[Result], deciding: Deciding, compute: Compute, draws: int) -> Resampled:
    evaluation, _, figure = deciding.figure.partition("/")
    with_rows = [
        (result, result.rows_of(evaluation)) for result in results if result.figure(deciding.figure) is not None
    ]
    with_rows = [(result, rows) for result, rows in with_rows if rows is not None]
    if not with_rows:
        return {}
    figures = statistics.resampled(compute, [rows for _, rows in with_rows], [figure], draws)[:, :, 0]
    return {(r.member.variant, r.member.seed): figures[:, run] for run, (r, _) in enumerate(with_rows)}


def _beside(ours: Compared, base: Compared, comparisons: int, tables: Resampled) -> Compared:
    """A variant with its differences to the baseline."""
    seeds = tuple(seed for seed in base.values if seed in ours.values)
    missing = sorted(str(seed) for seed in {*base.values, *ours.values} - set(seeds))
    remarks = [
        *ours.remarks,
        *([f"compared without seed {', '.join(missing)}, which one of the two lacks"] if missing else []),
    ]
    if not seeds:
        return ours._replace(remarks=(*remarks, "no seed in common with the baseline"))
    differences = [ours.values[seed] - base.values[seed] for seed in seeds]
    scale = max(abs(each.values[seed]) for each in (ours, base) for seed in seeds)
    paired = statistics.paired(differences, comparisons, scale=scale)
    pairs = [(tables.get((ours.variant, s)), tables.get((base.variant, s))) for s in seeds]
    test_set = both = None
    if all(a is not None and b is not None for a, b in pairs):
        resampled = np.mean([a - b for a, b in pairs if a is not None and b is not None], axis=0)
        test_set = statistics.percentile(resampled, paired.mean, comparisons)
        both = statistics.crossed(paired, test_set)
    return ours._replace(seeds=seeds, difference=paired, test_set=test_set, both=both, remarks=tuple(remarks))


def judged(compared: Compared, adjusted: float, deciding: Deciding, comparisons: int) -> Compared:
    """The variant with its verdict, and with what it would take where that is undecided."""
    difference = compared.difference
    if difference is None:
        return compared._replace(adjusted=adjusted, verdict="undecided")
    verdict = statistics.verdict(difference, adjusted, deciding.better)
    remarks = list(compared.remarks)
    if difference.n == 1:
        remarks.append("one seed: what other seeds would give is not known")
    elif difference.deviation == 0:
        remarks.append("the difference is the same for every seed: they give no spread to judge it by")
    elif verdict == "undecided":
        least = statistics.detectable(difference.deviation, difference.n, comparisons)
        remarks.append(f"with this spread, {difference.n} seeds show differences from {least:.3g} on")
        needed = statistics.seeds_needed(difference.mean, difference.deviation, comparisons)
        if needed is not None:
            remarks.append(f"a difference of {abs(difference.mean):.3g} takes {needed} seeds")
    elif compared.both is not None and compared.both.low < 0 < compared.both.high:
        remarks.append("holds for these test images; other images and other seeds together leave it open")
    return compared._replace(adjusted=adjusted, verdict=verdict, remarks=tuple(remarks))


def ranked(compared: Sequence[Compared], deciding: Deciding) -> list[Compared]:
    """The variants by their means, the best first, and those without a figure last."""
    sign = -1 if deciding.better == "higher" else 1
    return sorted(compared, key=lambda each: (math.isnan(each.mean), sign * each.mean))


def best(compared: Sequence[Compared], deciding: Deciding) -> tuple[Compared, str] | None:
    """The variant with the best mean, and what is to be said of a choice made by the figure that it is reported with."""
    known = [each for each in compared if not math.isnan(each.mean)]
    if not known:
        return None
    sign = 1 if deciding.better == "higher" else -1
    chosen = max(known, key=lambda each: sign * each.mean)
    _, _, figure = deciding.figure.partition("/")
    elsewhere = [name for name in chosen.others if name.partition("/")[2] == figure]
    if elsewhere:
        mean, deviation, n = chosen.others[elsewhere[0]]
        spread = "" if math.isnan(deviation) else f" ± {deviation:.2g}"
        return chosen, f"chosen by {deciding.figure}; {elsewhere[0]} is {mean:.4g}{spread} (n = {n})"
    return chosen, (
        f"selected: chosen among {len(known)} by the figure it is reported with, so its {deciding.figure} is better than "
        "that of fresh seeds would be"
    )

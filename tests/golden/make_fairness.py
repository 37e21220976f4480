"""Writes tests/golden/fairness.npz with fairlearn 0.15: python tests/golden/make_fairness.py."""

import itertools
import json
import warnings
from pathlib import Path

import fairlearn
import numpy as np
import pandas
import sklearn
from fairlearn import metrics
from sklearn.metrics import accuracy_score

CASES, SIZES = 40, (2, 3, 2)
FIGURES = {
    "accuracy": accuracy_score,
    "selection_rate": metrics.selection_rate,
    "true_positive_rate": metrics.true_positive_rate,
    "false_positive_rate": metrics.false_positive_rate,
}
PARITY = (
    metrics.demographic_parity_difference,
    metrics.demographic_parity_ratio,
    metrics.equal_opportunity_difference,
    metrics.equal_opportunity_ratio,
    metrics.equalized_odds_difference,
    metrics.equalized_odds_ratio,
)


def case(seed):
    """Labels, predictions and three attributes of few or many examples; groups may be empty or have one member."""
    random = np.random.default_rng(seed)
    n = int(random.choice([7, 15, 60, 400]))
    label, right = random.integers(0, 2, n), random.random(n) < random.uniform(0.5, 0.95)
    groups = np.stack([random.integers(0, size, n) for size in SIZES], 1)
    if n > 20:
        label[:12], groups[:12] = np.arange(12) % 2, 0  # so that more cases have both classes in every group
    return label, np.where(right, label, 1 - label), groups


def golden(label, predicted, groups):
    frame = pandas.DataFrame(groups, columns=["a", "b", "c"])
    found = metrics.MetricFrame(
        metrics={**FIGURES, "count": metrics.count}, y_true=label, y_pred=predicted, sensitive_features=frame
    )
    every = list(itertools.product(*map(range, SIZES)))
    by_group = found.by_group.reindex(pandas.MultiIndex.from_tuples(every))
    between = np.array([[found.difference()[name], found.ratio()[name]] for name in FIGURES], float)
    parity = [each(label, predicted, sensitive_features=frame) for each in PARITY]
    return by_group[list(FIGURES)].to_numpy(float), by_group["count"].to_numpy(float), between, np.array(parity, float)


def main():
    warnings.simplefilter("ignore")
    arrays = {}
    for seed in range(CASES):
        label, predicted, groups = case(seed)
        by_group, count, between, parity = golden(label, predicted, groups)
        arrays |= {f"{seed}/examples": np.column_stack([label, predicted, groups]).astype(np.int8)}
        arrays |= {
            f"{seed}/by_group": by_group,
            f"{seed}/count": count,
            f"{seed}/between": between,
            f"{seed}/parity": parity,
        }
    made_with = {each.__name__: each.__version__ for each in (fairlearn, sklearn, np)}
    np.savez_compressed(Path(__file__).parent / "fairness.npz", made_with=json.dumps(made_with), **arrays)


if __name__ == "__main__":
    main()

"""Conformal sets: equal to a plain loop, and the coverage wanted within Monte-Carlo error on simulated data."""

import numpy as np
import pytest

from jaxvision.errors import ConfigError, DataError
from jaxvision.trust.conformal import conformal, judge, scores, sets


def simulated(rng, n, k=6, sharp=2.0):
    """Rows of a model that is too sure; labels are drawn from the true probabilities."""
    logits = rng.normal(size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    wrong = sharp * logits + 0.5 * rng.normal(size=(n, k))
    return {"label": label, "log_probabilities": wrong - np.log(np.exp(wrong).sum(1, keepdims=True))}


def test_scores_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 20)
    p[0] = 0.2
    u = rng.random(20)
    found = scores(p, u)
    for i in range(20):
        before = 0.0
        for k in sorted(range(5), key=lambda k: (-p[i, k], k)):
            assert found[i, k] == pytest.approx(before + u[i] * p[i, k])
            before += p[i, k]


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_the_coverage_is_the_wanted_one(coverage):
    """Over 300 draws of 99 held-out and 200 other examples the mean lies within four standard errors of the exact value."""
    rng, covered, sizes = np.random.default_rng(1), [], []
    for trial in range(300):
        found = conformal(simulated(rng, 99), coverage, seed=2 * trial)
        test = simulated(rng, 200)
        told = judge(test, sets(test, found, seed=2 * trial + 1))
        covered.append(told["coverage"])
        sizes.append(told["set_size"])
    exact = np.ceil(coverage * 100) / 100
    error = np.std(covered) / np.sqrt(len(covered))
    assert abs(np.mean(covered) - exact) < 4 * error < 0.02
    assert 1 < np.mean(sizes) < 6


def test_few_examples_leave_no_class_out():
    rng = np.random.default_rng(2)
    rows = simulated(rng, 5)
    found = conformal(rows, 0.9)
    assert found.threshold == float("inf")
    assert sets(rows, found).all()


def test_an_example_has_its_number_wherever_it_stands():
    rng = np.random.default_rng(3)
    rows = simulated(rng, 40) | {"index": np.arange(40)}
    found = conformal(rows, 0.9)
    part = {name: column[10:20] for name, column in rows.items()}
    np.testing.assert_array_equal(sets(part, found), sets(rows, found)[10:20])


def test_wrong_arguments():
    rows = simulated(np.random.default_rng(4), 5)
    for wrong in (0.0, 1.0, 90):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            conformal(rows, wrong)
    with pytest.raises(DataError, match="0 examples"):
        conformal({"label": np.zeros(0, int), "log_probabilities": np.zeros((0, 3))}, 0.9)

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxvision.metrics.classification import balanced_accuracy, f1_macro
from jaxvision.metrics.thresholds import decide, thresholded, tune
from jaxvision.types import Batch, ClassScores, Labels

oracle: Any = metrics
ORACLES = {
    balanced_accuracy: lambda label, predicted: oracle.recall_score(
        label, predicted, labels=np.unique(label), average="macro", zero_division=0
    ),
    f1_macro: lambda label, predicted: oracle.f1_score(label, predicted, average="macro", zero_division=0),
}
OBJECTIVES = pytest.mark.parametrize("objective", ORACLES, ids=lambda objective: objective.__name__)


def draw(seed, n, k, coarse=False):
    """Probabilities that lean to the smaller classes, and labels that are less skewed; coarse ones have many ties."""
    random = np.random.default_rng(seed)
    label = random.integers(0, k, n)
    logits = random.normal(size=(n, k)) - np.arange(k)
    logits[np.arange(n), label] += 1.5
    logits = np.round(logits) if coarse else logits
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True)), label


def figure_of(objective, log_probabilities, label, thresholds):
    scores = np.round(log_probabilities - np.log(thresholds), 9)
    predicted = [max(range(len(row)), key=lambda j: (row[j], -j)) for row in scores]
    return ORACLES[objective](label, np.array(predicted))


def every_threshold(log_probabilities, thresholds, k):
    """One threshold of class k between every two that decide differently, the others as they are."""
    scores = log_probabilities - np.log(thresholds)
    lead = np.unique(np.round(scores[:, k] - np.delete(scores, k, axis=1).max(axis=1), 9))
    moves = np.concatenate([[lead[0] - 1], (lead[1:] + lead[:-1]) / 2, [lead[-1] + 1]])
    for move in moves:
        changed = thresholds.copy()
        changed[k] *= np.exp(move)
        yield changed


def test_decide_divides_the_probabilities():
    log_probabilities = np.log([[0.6, 0.3, 0.1], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    assert decide(log_probabilities, np.full(3, 1 / 3)).tolist() == [0, 0, 2]
    assert decide(log_probabilities, np.array([0.7, 0.2, 0.1])).tolist() == [1, 2, 2]
    assert decide(np.log([[0.81, 0.19], [0.79, 0.21]]), np.array([0.8, 0.2])).tolist() == [0, 1]


@OBJECTIVES
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 12), coarse=st.booleans())
def test_of_two_classes_no_threshold_is_better(objective, seed, n, coarse):
    log_probabilities, label = draw(seed, n, 2, coarse)
    thresholds = tune(log_probabilities, label, objective)
    assert thresholds.sum() == pytest.approx(1)
    assert (thresholds > 0).all()
    tuned = figure_of(objective, log_probabilities, label, thresholds)
    tried = [np.ones(2), *every_threshold(log_probabilities, np.ones(2), 1)]
    assert tuned == pytest.approx(max(figure_of(objective, log_probabilities, label, t) for t in tried), abs=1e-9)


@OBJECTIVES
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 10), k=st.integers(3, 4), coarse=st.booleans())
def test_of_more_classes_no_threshold_alone_is_better(objective, seed, n, k, coarse):
    log_probabilities, label = draw(seed, n, k, coarse)
    thresholds = tune(log_probabilities, label, objective)
    tuned = figure_of(objective, log_probabilities, label, thresholds)
    assert tuned >= figure_of(objective, log_probabilities, label, np.ones(k)) - 1e-9
    for j in range(k):
        for tried in every_threshold(log_probabilities, thresholds, j):
            assert figure_of(objective, log_probabilities, label, tried) <= tuned + 1e-9


def test_of_three_classes_it_mostly_finds_the_best_there_is():
    found = 0
    for seed in range(12):
        log_probabilities, label = draw(seed, 7, 3)
        pairs = [log_probabilities[:, 0] - log_probabilities[:, j] for j in (1, 2)]
        edges = [np.sort(pair) for pair in pairs]
        steps = [np.concatenate([[e[0] - 9], (e[1:] + e[:-1]) / 2, [e[-1] + 9]]) for e in edges]
        # A finer grid than the edges against class 0: those between 1 and 2 lie anywhere.
        grids = [np.linspace(s.min(), s.max(), 40) for s in steps]
        tried = [np.exp([0, -a, -b]) for a, b in itertools.chain(itertools.product(*grids), itertools.product(*steps))]
        decided = np.stack([decide(log_probabilities, t) for t in tried])
        best = max(np.mean([(row[label == c] == c).mean() for c in np.unique(label)]) for row in decided)
        tuned = figure_of(balanced_accuracy, log_probabilities, label, tune(log_probabilities, label))
        found += tuned > best - 1e-9
    assert found >= 9


def test_thresholds_that_nothing_improves_stay_equal():
    log_probabilities = np.log([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7]])
    np.testing.assert_allclose(tune(log_probabilities, np.arange(3)), np.full(3, 1 / 3))


def test_scores_that_carry_a_prior_get_thresholds_near_it():
    random = np.random.default_rng(0)
    prior = np.array([0.7, 0.25, 0.05])
    label = np.repeat(np.arange(3), 4000)
    logits = random.normal(size=(12000, 3)) * 1.0
    logits[np.arange(12000), label] += 1.0  # equal Gaussians one apart: the logits are the log likelihoods
    posterior = logits + np.log(prior)
    thresholds = tune(posterior - np.log(np.exp(posterior).sum(-1, keepdims=True)), label)
    np.testing.assert_allclose(np.log(thresholds / prior), 0, atol=0.3)


@pytest.mark.parametrize(
    ("log_probabilities", "label", "match"),
    [
        (np.zeros((3, 1)), [0, 0, 0], "two classes or more"),
        (np.array([[0.0, np.nan]]), [0], "finite"),
        (np.zeros((0, 3)), [], "rows are empty"),
        (np.zeros((2, 3)), [0, 3], "row 1 has label 3"),
    ],
)
def test_rows_that_can_not_be_tuned_on_are_refused(log_probabilities, label, match):
    with pytest.raises(ValueError, match=match):
        tune(log_probabilities, np.array(label, np.int64))


def observed(metric, logits, label):
    n = len(label)
    size = jnp.full((n, 2), 4, jnp.int32)
    image = jnp.zeros((n, 4, 4, 1), jnp.uint8)
    batch = Batch(image, size, size, jnp.arange(n), jnp.ones(n, bool), Labels(jnp.asarray(label)))
    with jax.numpy_dtype_promotion("strict"):
        rows = jax.jit(metric.observe)(ClassScores(jnp.asarray(logits, jnp.float32)), batch)
    return {name: np.asarray(column) for name, column in rows.items()} | {"index": np.arange(n)}


def test_the_metric_tunes_on_the_first_examples_and_tests_on_the_others():
    log_probabilities, label = draw(3, 90, 3)
    metric = thresholded(("a", "b", "c"), tuned_on=40)
    rows = observed(metric, log_probabilities + 2.5, label.astype(np.int32))
    np.testing.assert_allclose(rows["log_probabilities"], log_probabilities, atol=1e-5)
    figures = metric.compute(rows)
    thresholds = np.array([figures[f"threshold/{name}"] for name in "abc"])
    np.testing.assert_allclose(thresholds, tune(rows["log_probabilities"][:40], label[:40]))
    predicted = np.argmax(np.exp(log_probabilities[40:]) / thresholds, axis=-1)
    assert figures["accuracy"] == pytest.approx(oracle.accuracy_score(label[40:], predicted))
    assert figures["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(label[40:], predicted))
    assert figures["f1_macro"] == pytest.approx(oracle.f1_score(label[40:], predicted, average="macro"))
    recalls = oracle.recall_score(label[40:], predicted, average=None)
    assert [figures[f"recall/{name}"] for name in "abc"] == pytest.approx(list(recalls))
    spoilt = {**rows, "label": np.concatenate([label[:40], (label[40:] + 1) % 3])}
    assert metric.compute(spoilt)["threshold/a"] == figures["threshold/a"]  # what is tested on does not tune


def test_the_metric_needs_examples_on_both_sides():
    log_probabilities, label = draw(0, 5, 3)
    for tuned_on, match in ((0, "0 examples to tune on and 5"), (5, "5 examples to tune on and 0")):
        metric = thresholded(3, tuned_on)
        with pytest.raises(ValueError, match=match):
            metric.compute(observed(metric, log_probabilities, label.astype(np.int32)))

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxvision.metrics.classification import balanced_accuracy, classification, confusion_matrix, f1_macro
from jaxvision.types import Batch, ClassScores, Labels

oracle: Any = metrics


def make_batch(label):
    n = len(label)
    size = jnp.full((n, 2), 4, jnp.int32)
    return Batch(
        image=jnp.zeros((n, 4, 4, 3), jnp.uint8),
        size=size,
        original_size=size,
        index=jnp.arange(n, dtype=jnp.int32),
        valid=jnp.ones(n, bool),
        target=Labels(label=jnp.asarray(label, jnp.int32)),
    )


def observe(metric, logits, label):
    rows = jax.jit(metric.observe)(ClassScores(jnp.asarray(logits)), make_batch(label))
    return {name: np.asarray(column) for name, column in rows.items()} | {"index": np.arange(len(label))}


def draw(seed, n, k):
    random = np.random.default_rng(seed)
    label = random.integers(0, k, n)
    logits = random.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), label] += 1
    return logits, label


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def calibration_error_by_hand(probabilities, label, bins):
    confidence, predicted = probabilities.max(-1), probabilities.argmax(-1)
    total = 0.0
    for i in range(bins):
        inside = [r for r in range(len(label)) if i / bins < confidence[r] <= (i + 1) / bins]
        if inside:
            accuracy = np.mean([predicted[r] == label[r] for r in inside])
            total += len(inside) / len(label) * abs(accuracy - np.mean([confidence[r] for r in inside]))
    return total


@functools.cache
def metric_of(k):
    """One value for each k, so that it is compiled once."""
    return classification(k)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), k=st.sampled_from([2, 3, 5, 6, 12]))
def test_every_figure_equals_scikit_learn(seed, n, k):
    logits, label = draw(seed, 60, k)
    rows = {name: column[:n] for name, column in observe(metric_of(k), logits, label).items()}
    figures = metric_of(k).compute(rows)
    logits, label = logits[:n], label[:n]
    predicted, probabilities = logits.argmax(-1), softmax(logits)
    expected: dict[str, Any] = {"accuracy": oracle.accuracy_score(label, predicted)}
    # balanced_accuracy_score itself warns of predictions without examples, which it leaves out as this does.
    expected["balanced_accuracy"] = oracle.recall_score(label, predicted, labels=np.unique(label), average="macro")
    expected["log_loss"] = oracle.log_loss(label, probabilities, labels=range(k))
    expected["calibration_error"] = calibration_error_by_hand(probabilities, label, 15)
    if k > 5:
        expected["top5_accuracy"] = oracle.top_k_accuracy_score(label, probabilities, k=5, labels=range(k))
    for average in ("macro", "micro"):
        scores = oracle.precision_recall_fscore_support(label, predicted, average=average, zero_division=0)
        expected |= {f"{name}_{average}": s for name, s in zip(("precision", "recall", "f1"), scores, strict=False)}
    scores = oracle.precision_recall_fscore_support(label, predicted, labels=range(k), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), scores, strict=False):
        expected |= {f"{name}/{i}": values[i] for i in range(k)}
    assert figures == pytest.approx(expected, abs=1e-6)
    assert all(type(value) is float for value in figures.values())
    np.testing.assert_array_equal(confusion_matrix(rows, k), oracle.confusion_matrix(label, predicted, labels=range(k)))


@pytest.mark.parametrize("top", [1, 2, 3])
def test_top_k_equals_scikit_learn(top):
    logits, label = draw(3, 200, 7)
    figures = classification(7, top=top).compute(observe(classification(7), logits, label))
    expected = oracle.top_k_accuracy_score(label, logits, k=top, labels=range(7))
    assert figures[f"top{top}_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("bins", [1, 4, 10, 33])
def test_calibration_error_equals_a_loop(bins):
    logits, label = draw(5, 300, 3)
    figures = classification(3, bins=bins).compute(observe(classification(3), logits, label))
    assert figures["calibration_error"] == pytest.approx(
        calibration_error_by_hand(softmax(logits), label, bins), abs=1e-6
    )


def test_a_confidence_on_the_edge_belongs_to_the_bin_below():
    rows = {
        "index": np.arange(2),
        "label": np.array([0, 0]),
        "predicted": np.array([1, 0]),
        "rank": np.array([1, 0]),
        "log_probability": np.zeros(2),
        "confidence": np.array([0.5, 0.75]),
    }
    # Bins (0, 1/2] and (1/2, 1]: half an example too sure in one, a quarter too unsure in the other.
    assert classification(2, bins=2).compute(rows)["calibration_error"] == (0.5 + 0.25) / 2


def test_columns_of_the_rows():
    logits, label = draw(0, 30, 6)
    rows = observe(classification(6), logits, label)
    order = np.argsort(-logits, axis=-1, kind="stable")
    probabilities = softmax(logits)
    np.testing.assert_array_equal(rows["label"], label)
    np.testing.assert_array_equal(rows["predicted"], order[:, 0])
    np.testing.assert_array_equal(rows["rank"], [list(order[i]).index(label[i]) for i in range(30)])
    np.testing.assert_allclose(rows["log_probability"], np.log(probabilities[np.arange(30), label]), rtol=1e-5)
    np.testing.assert_allclose(rows["confidence"], probabilities.max(-1), rtol=1e-5)
    assert [rows[name].dtype for name in ("label", "predicted", "rank")] == [np.int32] * 3


def test_ties_are_ranked_by_class_number():
    logits = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 2, 2], [2, 0, 2]], np.float32)
    rows = observe(classification(3), logits, np.array([0, 1, 2, 2, 2]))
    assert rows["rank"].tolist() == [0, 1, 2, 1, 1]
    assert rows["predicted"].tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_any_type_of_logits_is_computed_in_float32_at_least(dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"):
        logits = jnp.asarray(draw(1, 40, 5)[0], dtype)
        label = draw(1, 40, 5)[1]
        rows = observe(classification(5), logits, label)
        seen = np.asarray(logits, np.float64)
    at_least = np.float64 if dtype == jnp.float64 else np.float32
    assert rows["log_probability"].dtype == rows["confidence"].dtype == at_least
    expected = np.log(softmax(seen)[np.arange(40), label])
    np.testing.assert_allclose(rows["log_probability"], expected, rtol=1e-12 if dtype == jnp.float64 else 1e-5)


def test_jit_changes_nothing():
    logits, label = draw(2, 20, 4)
    with jax.numpy_dtype_promotion("strict"):
        plain = classification(4).observe(ClassScores(jnp.asarray(logits)), make_batch(label))
    jitted = observe(classification(4), logits, label)
    for name, column in plain.items():
        np.testing.assert_allclose(column, jitted[name], rtol=1e-6)


def test_macro_means_run_over_the_classes_that_occur():
    logits = np.eye(4, dtype=np.float32)[[0, 0, 1]]
    label = np.array([0, 0, 0])
    figures = classification(["a", "b", "c", "d"]).compute(observe(classification(4), logits, label))
    assert figures["recall_macro"] == pytest.approx((2 / 3 + 0) / 2)
    assert figures["precision_macro"] == pytest.approx((1 + 0) / 2)
    assert figures["recall/b"] == figures["precision/b"] == figures["f1/d"] == 0


def test_balanced_accuracy_is_scikit_learns_where_predictions_have_no_examples():
    logits, label = draw(1, 40, 4)
    label %= 3
    figures = classification(4).compute(observe(classification(4), logits, label))
    assert (logits.argmax(-1) == 3).any()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = oracle.balanced_accuracy_score(label, logits.argmax(-1))
    assert figures["balanced_accuracy"] == pytest.approx(expected)
    assert figures["balanced_accuracy"] > figures["recall_macro"]


@pytest.mark.parametrize("objective", [balanced_accuracy, f1_macro])
def test_figures_of_many_counts_are_those_of_each(objective):
    random = np.random.default_rng(0)
    right, wrong, missed = random.integers(0, 4, (3, 30, 5))
    predictions, examples = right + wrong, right + missed
    examples[:, 0] += 1
    right[:, 4], predictions[:, 4], examples[:, 4] = 0, 0, 0
    many = objective(right, predictions, examples)
    for i in range(30):
        f1 = [2 * r / (p + e) for r, p, e in zip(right[i], predictions[i], examples[i], strict=True) if p + e]
        recall = [r / e for r, e in zip(right[i], examples[i], strict=True) if e]
        assert many[i] == pytest.approx(np.mean(f1 if objective is f1_macro else recall))


@pytest.mark.parametrize(
    ("k", "per_class", "expected"),
    [(20, None, 20), (21, None, 0), (21, True, 21), (20, False, 0)],
)
def test_few_classes_get_figures_of_their_own(k, per_class, expected):
    metric = classification(k, per_class=per_class)
    figures = metric.compute(observe(metric, *draw(0, 30, k)))
    assert sum(name.startswith("recall/") for name in figures) == expected


def test_a_name_that_occurs_twice_is_told_apart():
    metric = classification(["crane", "heron", "crane"])
    figures = metric.compute(observe(metric, np.eye(3, dtype=np.float32), np.array([0, 1, 1])))
    assert figures["recall/crane (0)"] == 1
    assert figures["recall/crane (2)"] == 0
    assert figures["recall/heron"] == 0.5


def test_top_k_is_left_out_where_it_is_trivial():
    metric = classification(5)
    assert "top5_accuracy" not in metric.compute(observe(metric, *draw(0, 8, 5)))


def test_nan_scores_are_never_right_and_stay_visible():
    logits = np.array([[np.nan, np.nan, np.nan], [2, 0, 0]], np.float32)
    metric = classification(3, top=2)
    rows = observe(metric, logits, np.array([0, 0]))
    assert rows["rank"].tolist() == [3, 0]
    figures = metric.compute(rows)
    assert figures["accuracy"] == figures["top2_accuracy"] == 0.5
    assert np.isnan(figures["log_loss"])
    assert np.isnan(figures["calibration_error"])


def test_an_impossible_true_class_has_infinite_log_loss():
    metric = classification(2)
    assert metric.compute(observe(metric, np.array([[0, -np.inf]], np.float32), np.array([1])))["log_loss"] == np.inf


def test_errors_name_what_was_given():
    metric = classification(3)
    logits, label = draw(0, 4, 3)
    empty = {name: column[:0] for name, column in observe(metric, logits, label).items()}
    with pytest.raises(ValueError, match="rows are empty"):
        metric.compute(empty)
    with pytest.raises(ValueError, match="rows are empty"):
        confusion_matrix(empty, 3)
    with pytest.raises(ValueError, match="index 1 has label 3; with 3 classes, labels are 0 to 2"):
        metric.compute(observe(metric, logits, np.array([0, 3, 1, 2])))
    with pytest.raises(ValueError, match="made for 3 classes, the logits have 4"):
        observe(metric, draw(0, 4, 4)[0], label)
    with pytest.raises(TypeError, match="Labels, got NoneType"):
        metric.observe(ClassScores(jnp.asarray(logits)), make_batch(label).replace(target=None))


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"classes": []}, {"classes": "cats"}, {"top": 0}, {"bins": 0}])
def test_arguments_are_checked(wrong):
    with pytest.raises(ValueError, match=f"classification.*{next(iter(wrong))}"):
        classification(**({"classes": 3} | wrong))  # pyright: ignore[reportArgumentType]

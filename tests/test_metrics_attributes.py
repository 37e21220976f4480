"""Metrics of attributes against scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxvision.metrics.attributes import attributes
from jaxvision.types import Batch, ClassScores, Labels

VALUES = {"colour": ("red", "green", "blue"), "parts": ("lid", "handle", "foot", "hole")}


def example(rows=40, seed=0, known=0.7):
    rng = np.random.default_rng(seed)
    parts = rng.random((rows, 4)) < [0.5, 0.3, 0.2, 0]
    target = {
        "colour": Labels(rng.integers(0, 3, rows), None, (rng.random(rows) < known).astype(np.float32)),
        "parts": Labels(
            np.zeros(rows, np.int32), parts.astype(np.float32), (rng.random(rows) < known).astype(np.float32)
        ),
    }
    scores = {name: ClassScores(jnp.asarray(rng.normal(size=(rows, len(VALUES[name]))))) for name in VALUES}
    scores["parts"] = ClassScores(scores["parts"].logits.at[:, 3].set(-1.0))  # a value that never occurs
    size = np.full((rows, 2), 8)
    return scores, Batch(np.zeros((rows, 8, 8, 3), np.uint8), size, size, np.arange(rows), np.ones(rows, bool), target)


def test_accuracy_and_f1_are_scikit_learns_over_what_is_known():
    metric, (scores, batch) = attributes(VALUES, several=("parts",)), example()
    found = metric.compute({name: np.asarray(each) for name, each in metric.observe(scores, batch).items()})
    known = batch.target["colour"].weight > 0
    truth, predicted = batch.target["colour"].label[known], np.asarray(scores["colour"].logits.argmax(-1))[known]
    assert found["accuracy/colour"] == pytest.approx((truth == predicted).mean())
    assert found["f1/colour"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    known = batch.target["parts"].weight > 0
    truth, predicted = batch.target["parts"].probs[known] > 0, np.asarray(scores["parts"].logits > 0)[known]
    assert found["accuracy/parts"] == pytest.approx((truth == predicted).mean())
    assert found["f1/parts"] == pytest.approx(f1_score(truth[:, :3], predicted[:, :3], average="macro"))
    assert found["f1_macro"] == pytest.approx((found["f1/colour"] + found["f1/parts"]) / 2)


def test_what_is_known_of_nothing_has_no_metric():
    metric, (scores, batch) = attributes(VALUES, several=("parts",)), example()
    none = batch.target["parts"].replace(weight=np.zeros(40, np.float32))
    rows = metric.observe(scores, batch.replace(target=batch.target | {"parts": none}))
    found = metric.compute({name: np.asarray(each) for name, each in rows.items()})
    assert set(found) == {"f1_macro", "accuracy/colour", "f1/colour"}
    nothing, (scores, batch) = attributes(VALUES), example(known=0)
    assert nothing.compute({name: np.asarray(each) for name, each in metric.observe(scores, batch).items()}) == {}

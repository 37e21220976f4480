"""Calibration errors against plain loops and published code (tests/golden/make_calibration.py has versions)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detection_cases import random_rows

from jaxvision.metrics import calibration
from jaxvision.metrics.calibration_error import classifier_calibration, detector_calibration
from jaxvision.types import Batch, ClassScores, Labels

GOLDEN = np.load(Path(__file__).parent / "golden/calibration.npz")


def drawn(seed, n=300, k=5):
    rng = np.random.default_rng(seed)
    logits, label = 2 * rng.normal(size=(n, k)), rng.integers(0, k, n)
    logits[np.arange(n), label] += 1
    return logits, label


def rows_of(logits, label):
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return {"log_probabilities": logs, "label": label}


def ece_by_hand(confidence, right, bins):
    total = 0.0
    for i in range(bins):
        inside = [j for j, c in enumerate(confidence) if i / bins < c <= (i + 1) / bins or (i == 0 and c == 0)]
        if inside:
            total += abs(sum(confidence[j] - right[j] for j in inside)) / len(confidence)
    return total


def test_errors_of_a_classifier_equal_loops():
    logits, label = drawn(3)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = classifier_calibration(("a", "b", "c", "d", "e"), bins=10).compute(rows_of(logits, label))
    each = [ece_by_hand(p[:, k], label == k, 10) for k in range(5)]
    ranked, mass = sorted(range(300), key=lambda j: p[j].max()), 0.0
    for i in range(10):
        part = ranked[30 * i : 30 * (i + 1)]
        mass += abs(sum(p[j].max() - (p[j].argmax() == label[j]) for j in part)) / 300
    expected = {
        "ECE": ece_by_hand(p.max(1), p.argmax(1) == label, 10),
        "ECE_equal_mass": mass,
        "ECE_classwise": sum(each) / 5,
        "brier": sum((p[j, k] - (label[j] == k)) ** 2 for j in range(300) for k in range(5)) / 300,
        "log_loss": -sum(np.log(p[j, label[j]]) for j in range(300)) / 300,
        **{f"ECE/{name}": value for name, value in zip("abcde", each, strict=True)},
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_errors_of_a_classifier_equal_netcal():
    for seed, error in enumerate(GOLDEN["classifiers"]):
        assert classifier_calibration(5).compute(rows_of(*drawn(seed)))["ECE"] == pytest.approx(error, abs=1e-9)


def test_what_is_observed_of_a_classifier():
    logits, label = drawn(0, n=4, k=3)
    size = jnp.ones((4, 2), int)
    batch = Batch(jnp.zeros((4, 1, 1, 1)), size, size, jnp.arange(4), jnp.ones(4, bool), Labels(jnp.asarray(label)))
    with jax.numpy_dtype_promotion("strict"):
        rows = classifier_calibration(3).observe(ClassScores(jnp.asarray(logits, jnp.bfloat16)), batch)
    assert rows["log_probabilities"].dtype == jnp.float32
    np.testing.assert_allclose(np.exp(rows["log_probabilities"]).sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(rows["label"], label)


def test_errors_of_a_detector_equal_the_published_code():
    for seed, (d_ece, la_ece) in enumerate(GOLDEN["detectors"]):
        rows = random_rows(seed, crowds=0.2 * (seed % 2))
        known = np.unique(rows["true_labels"][rows["annotated"] & ~rows["ignore"]])
        rows["detected"] &= np.isin(rows["labels"], known)  # the published code knows no other classes
        found = detector_calibration(4).compute(rows)
        assert found["D_ECE"] == pytest.approx(d_ece, abs=1e-9, nan_ok=True), seed
        assert found["LaECE"] == pytest.approx(la_ece, abs=1e-9, nan_ok=True), seed


def iou_by_hand(a, b):
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    both = width * height
    return both / (area(a) + area(b) - both) if both else 0.0


def found_by_hand(rows, least):
    """Label, score and IoU of each detection, None for one without an object; no object is to be ignored."""
    listed = []
    for i in range(len(rows["scores"])):
        free = [j for j in range(rows["annotated"].shape[1]) if rows["annotated"][i, j]]
        places = [j for j in range(rows["detected"].shape[1]) if rows["detected"][i, j]]
        for j in sorted(places, key=lambda j: -rows["scores"][i, j]):
            same = [o for o in free if rows["true_labels"][i, o] == rows["labels"][i, j]]
            ious = [
                (iou_by_hand(*(np.float64(x) for x in (rows["boxes"][i, j], rows["true_boxes"][i, o]))), o)
                for o in same
            ]
            best = max(ious, default=(-1.0, -1))
            if best[0] >= least:
                free.remove(best[1])
            listed.append((rows["labels"][i, j], rows["scores"][i, j], best[0] if best[0] >= least else None))
    return listed


def test_errors_of_a_detector_equal_loops():
    rows = random_rows(5, crowds=0.0)
    found = detector_calibration(4, bins=8).compute(rows)
    strict, loose = found_by_hand(rows, 0.5), found_by_hand(rows, 0.0)
    assert found["D_ECE"] == pytest.approx(
        ece_by_hand([s for _, s, _ in strict], [float(iou is not None) for _, _, iou in strict], 8), rel=1e-6
    )
    classes = sorted(set(rows["true_labels"][rows["annotated"]].tolist()))
    of = [[(s, iou or 0.0) for label, s, iou in loose if label == k] for k in classes]
    errors = [ece_by_hand(*zip(*each, strict=True), 8) for each in of if each]
    assert found["LaECE"] == pytest.approx(np.mean(errors), rel=1e-6)
    assert found["LaACE"] == pytest.approx(
        np.mean([np.mean([abs(s - v) for s, v in each]) for each in of if each]), rel=1e-6
    )


def test_nothing_found_and_wrong_arguments():
    rows = random_rows(0)
    rows["detected"][:] = False
    assert all(np.isnan(value) for value in detector_calibration(4).compute(rows).values())
    for metric, wrong in (
        (classifier_calibration, {"bins": 0}),
        (detector_calibration, {"bins": 0}),
        (detector_calibration, {"iou": 2}),
    ):
        with pytest.raises(ValueError, match="must be 1 or more|allowed is 0 to 1"):
            metric(3, **wrong)
    with pytest.raises(ValueError, match="no examples"):
        classifier_calibration(3).compute({"label": np.zeros(0, int)})
    assert len(calibration.bins(np.linspace(0, 1, 7), np.ones(7), 3, equal_mass=True).count) == 3

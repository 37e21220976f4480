"""Calibrated tasks, and what fits them, against scikit-learn, SciPy and plain loops; the laws of tasks hold for them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import detectors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detection_cases import random_rows
from flax import linen as nn
from scipy import optimize
from sklearn.isotonic import IsotonicRegression

from jaxvision.errors import ConfigError, DataError
from jaxvision.metrics.calibration_error import classifier_calibration, detector_calibration, judged
from jaxvision.metrics.detection import detection
from jaxvision.metrics.tables import tables
from jaxvision.tasks.classification import classification
from jaxvision.trust.calibrated import COLLECTION, apply, calibrated, scaling, steps
from jaxvision.trust.calibrated_run import rows_after
from jaxvision.trust.fitting import fit, isotonic, platt
from jaxvision.types import (
    Batch,
    BoxMasks,
    ClassScores,
    Detections,
    Labels,
    MapMasks,
    PixelScores,
    PrototypeMasks,
    Task,
)

oracle: Any = IsotonicRegression


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3)(x.mean((1, 2)))


def small_batch(rows=6):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (rows, 2, 2, 3), dtype=np.uint8))
    size = jnp.full((rows, 2), 2).at[:, 0].set(1)
    return Batch(image, size, size, jnp.arange(rows), jnp.ones(rows, bool), Labels(jnp.arange(rows) % 3))


def sure_rows(seed, n=2000, k=4, sharp=3.0):
    """Rows of a classifier whose logits are `sharp` times those of the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    return {"label": label, "log_probabilities": np.asarray(jax.nn.log_softmax(sharp * logits)), "index": np.arange(n)}


def after(numbers, rows):
    return np.asarray(apply(numbers, ClassScores(jnp.asarray(rows["log_probabilities"]))).logits, np.float64)


def test_temperature_and_vector_scaling_have_the_greatest_likelihood():
    rows = sure_rows(0)
    logs, label = np.asarray(rows["log_probabilities"], np.float64), rows["label"]

    def loss(x):
        z = x[:4] * logs + x[4:]
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), label])

    best = optimize.minimize_scalar(lambda s: loss(np.array([s] * 4 + [0.0] * 4)), bounds=(0.01, 5), method="bounded")
    found = fit(rows, "temperature", 4)
    assert found["scale"] == pytest.approx(best.x, rel=1e-4)
    assert found["scale"] == pytest.approx(1 / 3, rel=0.1)
    vector = fit(rows, "platt", 4, per_class=True)
    start = np.concatenate([vector["scale"], vector["shift"]]).astype(float)
    rival = optimize.minimize(loss, np.array([0.5] * 4 + [0.0] * 4), method="Nelder-Mead", options={"maxiter": 8000})
    assert loss(start) <= rival.fun + 1e-7
    each = fit(rows, "temperature", 4, per_class=True)
    assert not each["shift"].any()
    assert loss(start) <= loss(np.concatenate([each["scale"], each["shift"]])) <= best.fun + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_isotonic_regression_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    score = np.round(rng.random(120), 2 if seed % 2 else 9)
    right = (rng.random(120) < score**2).astype(float) if seed < 6 else np.full(120, float(seed == 6))
    x, y = isotonic(score, right)
    asked = np.linspace(-0.2, 1.2, 333)
    expected = oracle(y_min=0, y_max=1, out_of_bounds="clip").fit(score, right).predict(asked)
    np.testing.assert_allclose(np.interp(asked, x, y), expected, atol=1e-12)
    assert len(x) < 80
    assert (np.diff(y) >= 0).all()


def test_isotonic_regression_of_a_classifier_is_one_against_the_rest():
    rows = sure_rows(1, n=500)
    p = np.exp(np.asarray(rows["log_probabilities"], np.float64))
    each = [oracle(out_of_bounds="clip").fit(p[:, k], rows["label"] == k).predict(p[:, k]) for k in range(4)]
    expected = np.stack(each, 1)
    expected /= expected.sum(1, keepdims=True)
    found = np.exp(after(fit(rows, "isotonic", 4, per_class=True), rows))
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), expected, atol=1e-4)
    shared = fit(rows, "isotonic", 4)
    assert shared["score"].shape[0] == 1
    lead = np.diff(np.sort(np.log(p))[:, -2:])[:, 0] > 0.1  # what is closer may be rounded to a tie
    np.testing.assert_array_equal(after(shared, rows).argmax(1)[lead], p.argmax(1)[lead])


@pytest.mark.parametrize(
    ("method", "per_class"), [("temperature", False), ("platt", True), ("isotonic", False), ("isotonic", True)]
)
def test_a_classifier_that_is_too_sure_is_calibrated(method, per_class):
    metric, test = classifier_calibration(4), sure_rows(8, n=5000)
    numbers = fit(sure_rows(7, n=5000), method, 4, per_class=per_class)
    fitted = {**test, "log_probabilities": np.asarray(jax.nn.log_softmax(after(numbers, test)))}
    before, now = metric.compute(test), metric.compute(fitted)
    assert now["ECE"] < 0.25 * before["ECE"]
    assert now["ECE_classwise"] < 0.5 * before["ECE_classwise"]


def test_scores_of_detections_by_class():
    rows = random_rows(3, images=30, crowds=0.1)
    found = judged(tables(rows, 4), 0.5)
    numbers = fit(rows, "isotonic", 4, per_class=True)
    scores, labels = (jnp.asarray(rows[name]) for name in ("scores", "labels"))
    detections = Detections(
        jnp.asarray(rows["boxes"]), labels, scores, jnp.asarray(rows["detected"]), index=jnp.argsort(scores)
    )
    moved = apply(numbers, detections)
    for k in range(4):
        of = found.label == k
        few = min(found.right[of].sum(), (~found.right[of]).sum()) < 10
        expected = oracle(y_min=0, y_max=1, out_of_bounds="clip")
        expected.fit(found.score if few else found.score[of], found.right if few else found.right[of])
        mine = np.asarray(moved.scores)[np.asarray(moved.valid) & (np.asarray(moved.labels) == k)]
        theirs = expected.predict(rows["scores"][rows["detected"] & (rows["labels"] == k)])
        np.testing.assert_allclose(np.sort(mine), np.sort(theirs), atol=1.1e-4)
    best_first = np.where(moved.valid, moved.scores, -1)
    assert (np.diff(best_first, axis=1) <= 0).all()


def test_platt_scaling_of_scores_has_the_greatest_likelihood():
    rng = np.random.default_rng(0)
    score = rng.random(400)
    right = rng.random(400) < score**3
    scale, shift = platt(score, right)
    odds, hits = np.log(score / (1 - score)), right.sum()
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (400 - hits + 2))
    loss = lambda x: np.mean(np.logaddexp(0, x[0] * odds + x[1]) - target * (x[0] * odds + x[1]))
    best = optimize.minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}).x
    assert (scale, shift) == pytest.approx(tuple(best), abs=1e-5)
    numbers = {"scale": np.array([scale]), "shift": np.array([shift])}
    for valid in (True, False):
        row = jnp.asarray(np.sort(score)[None, ::-1], jnp.float32)
        found = Detections(jnp.zeros((1, 400, 4)), jnp.zeros((1, 400), int), row, jnp.full((1, 400), valid))
        with jax.numpy_dtype_promotion("strict"):
            moved = apply(numbers, found).scores[0]
        expected = 1 / (1 + np.exp(-scale * np.sort(odds)[::-1] - shift)) if valid else row[0]
        np.testing.assert_allclose(moved, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "numbers", [scaling(), scaling(3), steps(5), steps(5, 3)], ids=["one", "each", "steps", "steps each"]
)
def test_laws_of_a_calibrated_classifier(numbers):
    batch = small_batch()
    plain = classification(Linear(), mean=128.0, std=60.0)
    task = calibrated(plain, numbers)
    variables = task.init(jax.random.key(0), batch)
    assert set(variables) == {"params", COLLECTION}
    compiled = jax.jit(task.predict)
    first = compiled(variables, batch.replace(target=None))
    np.testing.assert_allclose(first.logits, task.predict(variables, batch).logits, rtol=0, atol=1e-6)
    as_it_was = jax.nn.softmax(plain.predict(variables, batch).logits)
    np.testing.assert_allclose(jax.nn.softmax(first.logits), as_it_was, atol=1e-5)  # these numbers change nothing
    spoilt = batch.image.at[:, 1:].set(77)  # outside `size`
    other = {**variables, COLLECTION: jax.tree.map(lambda x: x + 0.1, variables[COLLECTION])}
    np.testing.assert_array_equal(
        compiled(other, batch.replace(target=None)).logits,
        compiled(other, batch.replace(image=spoilt, target=None)).logits,
    )
    assert compiled._cache_size() == 1
    key = jax.random.key(2)
    assert task.loss(variables, batch, key)[0] == plain.loss(variables, batch, key)[0]


def of_target(variables, batch):
    """A detector that finds what is there, each with a score of its own."""
    n = batch.image.shape[0]
    score = jax.nn.sigmoid(variables["params"] * jnp.mean(batch.image[:, :1], (2, 3)) / 100)
    found = jnp.tile(score, (1, 4)) * jnp.array([[0.9, 0.8, 0.7, 0.6]])
    labels = jnp.tile(jnp.arange(4) % 3, (n, 1))
    return Detections(jnp.zeros((n, 4, 4)), labels, found, found > 0.3, index=jnp.tile(jnp.arange(4), (n, 1)))


@pytest.mark.parametrize("numbers", [scaling(3), steps(9)], ids=["platt", "isotonic"])
def test_laws_of_a_calibrated_detector(numbers):
    batch = small_batch()
    task = calibrated(Task(lambda key, batch: {"params": jnp.ones(())}, lambda *each: None, of_target), numbers)
    check_detector(task, batch)


def check_detector(task, batch):
    """Padding, target, order and compilations of a calibrated detector, with numbers that change it."""
    variables = task.init(jax.random.key(0), batch)
    numbers = jax.tree.map(lambda x: x**2 * 0.9 if x.ndim > 1 else x - 0.3, variables[COLLECTION])
    variables = {**variables, COLLECTION: numbers}
    compiled = jax.jit(task.predict)
    outside = jnp.arange(batch.image.shape[1])[None, :, None, None] >= batch.size[:, :1, None, None]
    spoilt = batch.replace(image=jnp.where(outside, jnp.asarray(77, batch.image.dtype), batch.image), target=None)
    one, two = compiled(variables, batch.replace(target=None)), compiled(variables, spoilt)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert compiled._cache_size() == 1
    assert one.index is not None
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(compiled(variables, batch)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.diff(np.where(one.valid, one.scores, -1), axis=1) <= 0).all()


@pytest.mark.slow
def test_laws_of_a_calibrated_ssd():
    check_detector(calibrated(detectors.small_ssd(), steps(9)), detectors.make_batch(dtype=np.float32))


def test_masks_follow_their_detections():
    scores = jnp.array([[0.2, 0.9, 0.5]])
    rows = jnp.arange(3.0)[None, :, None, None]
    boxes = jnp.broadcast_to(jnp.arange(3.0)[None, :, None], (1, 3, 4))
    kinds = (
        BoxMasks(rows, boxes),
        PrototypeMasks(jnp.zeros((1, 3, 3, 2)), rows[..., 0], boxes, (3, 3)),
        MapMasks(rows, (3, 3)),
    )
    for masks in kinds:
        found = Detections(
            boxes, jnp.zeros((1, 3), int), scores, jnp.ones((1, 3), bool), masks, index=jnp.arange(3)[None]
        )
        moved = apply(scaling(), found)
        name = {"BoxMasks": "probabilities", "PrototypeMasks": "coefficients", "MapMasks": "logits"}[
            type(masks).__name__
        ]
        assert getattr(moved.masks, name).ravel().tolist() == moved.index.ravel().tolist() == [1, 2, 0]
        assert moved.boxes[0, :, 0].tolist() == [1, 2, 0]


def test_faults_are_told():
    batch = small_batch()
    with pytest.raises(ValueError, match="scale and shift of shape"):
        calibrated(classification(Linear()), {"scale": np.ones((1, 2)), "shift": np.ones((1, 2))})
    task = calibrated(classification(Linear()), scaling(2))
    with pytest.raises(ValueError, match="the calibration is of 2 classes, the logits of 3"):
        task.predict(task.init(jax.random.key(0), batch), batch)
    with pytest.raises(TypeError, match="got PixelScores"):
        apply(scaling(), PixelScores(jnp.zeros((1, 2, 2, 3))))
    with pytest.raises(ConfigError, match="method is 'cold'; allowed: temperature, platt, isotonic"):
        fit(sure_rows(0), "cold", 4)
    with pytest.raises(ConfigError, match="ask for it per class"):
        fit(sure_rows(0), "platt", 4)
    nothing = random_rows(0)
    nothing["detected"][:] = False
    with pytest.raises(DataError, match="no detections"):
        fit(nothing, "isotonic", 4)
    with pytest.raises(DataError, match="0 examples"):
        fit({"label": np.zeros(0, int), "log_probabilities": np.zeros((0, 3))}, "temperature", 3)


def test_a_detector_that_is_too_sure_is_calibrated():
    held, test = random_rows(11, images=60, crowds=0.0), random_rows(12, images=60, crowds=0.0)
    found = Detections(*(jnp.asarray(test[name]) for name in ("boxes", "labels", "scores", "detected")))
    moved = apply(fit(held, "isotonic", 4, per_class=True), found)
    columns = {"boxes": moved.boxes, "labels": moved.labels, "scores": moved.scores, "detected": moved.valid}
    now = {**test, **{name: np.asarray(column) for name, column in columns.items()}}
    metric = detector_calibration(4)
    shared = rows_after(fit(held, "isotonic", 4), test)
    before, same = (detection(4).compute(rows) for rows in (test, shared))
    assert same["AP"] == pytest.approx(before["AP"], abs=1e-3)  # one function for all classes leaves their order
    assert metric.compute(now)["D_ECE"] < 0.5 * metric.compute(test)["D_ECE"]


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, Path(__file__).parent / "calibrated_on_eight_devices.py"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"classifier", "detector"}
    assert max(found.values()) < 1e-9, found

"""Prediction sets of a classifier: its records have them, by a hash of the pixels, and they cover what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxvision.experiment import Selection
from jaxvision.run.records import CLASSES, SETS
from jaxvision.trust import conformal, prediction_sets
from jaxvision.trust.calibrated import calibrated, scaling
from jaxvision.types import Batch, Canvas, ClassScores, Detections, LossOutput, Task

CLASS_NAMES = tuple("abcdef")


def batch_of(image, canvas=8):
    """Images of 6x5 pixels on a canvas, what is outside of them noise."""
    n = len(image)
    padded = np.random.default_rng(9).integers(0, 256, (n, canvas, canvas, 3), np.uint8)
    padded[:, :6, :5] = image
    size = np.tile([6, 5], (n, 1))
    return Batch(padded, size, size, np.arange(n), np.ones(n, bool))


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 5, 3), np.uint8)


def classifier(logits):
    """A task that gives these logits whatever it is shown."""
    loss = lambda variables, batch, key: (jnp.float32(0), LossOutput())
    return Task(lambda key, batch: {"params": {}}, loss, lambda variables, batch: ClassScores(jnp.asarray(logits)))


def fmix(number):
    """The last step of MurmurHash3, by whole numbers of any size."""
    number = (number ^ number >> 16) * 0x85EBCA6B % 2**32
    number = (number ^ number >> 13) * 0xC2B2AE35 % 2**32
    return number ^ number >> 16


def test_the_number_of_an_image_is_a_hash_of_its_pixels_alone():
    shown = images(3)
    found = prediction_sets.hashed(jnp.asarray(batch_of(shown).image), jnp.asarray(batch_of(shown).size))
    for image, number in zip(shown, found, strict=True):
        total = sum(
            int(image[y, x, c]) * fmix(65599 * y + 4099 * x + c + 1)
            for y in range(6)
            for x in range(5)
            for c in range(3)
        )
        assert number == (fmix(total % 2**32) >> 8) / 2**24
    wide = batch_of(shown[::-1], canvas=11)
    np.testing.assert_array_equal(prediction_sets.hashed(jnp.asarray(wide.image), jnp.asarray(wide.size)), found[::-1])


def test_the_numbers_of_images_are_uniform():
    shown = images(2000) // 64  # few levels, so that images are alike
    batch = batch_of(shown)
    found = prediction_sets.hashed(jnp.asarray(batch.image), jnp.asarray(batch.size))
    assert stats.kstest(np.asarray(found), "uniform").pvalue > 0.01
    shown[:, 0, 0, 0] ^= 1
    other = batch_of(shown)
    changed = prediction_sets.hashed(jnp.asarray(other.image), jnp.asarray(other.size))
    assert abs(np.corrcoef(found, changed)[0, 1]) < 0.08


def rows(seed, n):
    """Log probabilities of a model that is too sure, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 6))
    label = (np.exp(logits).cumsum(1) > rng.random((n, 1)) * np.exp(logits).sum(1, keepdims=True)).argmax(1)
    wrong = 2 * logits + 0.5 * rng.normal(size=(n, 6))
    return {"label": label, "log_probabilities": wrong - np.log(np.exp(wrong).sum(1, keepdims=True))}


def members(found, test, numbers=None):
    """The members of the sets of images whose model gives these rows, calibrated."""
    task = calibrated(
        prediction_sets.with_sets(classifier(np.float32(test["log_probabilities"]))), numbers or scaling()
    )
    batch = batch_of(images(len(test["label"]), seed=5))
    variables = task.init(jax.random.key(0), batch)
    assert np.isinf(variables[prediction_sets.COLLECTION]["threshold"])
    assert np.asarray(task.predict(variables, batch).members).all()
    variables |= {prediction_sets.COLLECTION: {"threshold": np.float32(found.threshold)}}
    return np.asarray(jax.jit(task.predict)(variables, batch).members)


def test_sets_are_those_of_numpy_whatever_the_calibration_and_cover_what_they_should():
    found, test = conformal.conformal(rows(1, 2000), 0.9), rows(2, 2000)
    inside = members(found, test)
    batch = batch_of(images(2000, seed=5))
    uniform = np.asarray(prediction_sets.hashed(jnp.asarray(batch.image), jnp.asarray(batch.size)), np.float64)
    wanted = conformal.scores(conformal.probabilities(test), uniform) <= found.threshold
    assert (inside != wanted).mean() < 1e-3  # where a score is the threshold to float32
    half = {"scale": np.full(1, 0.5, np.float32), "shift": np.zeros(1, np.float32)}
    np.testing.assert_array_equal(members(found, test, half), inside)
    told = conformal.judge(test, inside)
    assert abs(told["coverage"] - 0.9) < 4 * np.sqrt(0.9 * 0.1 * (1 / 2000 + 1 / 2000))
    assert 1 < told["set_size"] < 5


def test_records_and_tables_have_the_set():
    canvas, selection = Canvas(images(1)[0], (6, 5), (6, 5)), Selection(CLASS_NAMES, 2)
    logits = np.float32([0, 3, 1, 2, -1, 0])
    scores = ClassScores(logits, np.array([True, True, False, True, False, False]))
    record = SETS.record(scores, canvas, selection)
    assert record["set"] == ["b", "d", "a"]
    assert {**record, "set": None} == {**CLASSES.record(ClassScores(logits), canvas, selection), "set": None}
    assert SETS.columns is not None
    assert SETS.lines is not None
    assert SETS.columns(selection) == ["class_1", "probability_1", "class_2", "probability_2", "set"]
    assert SETS.lines(record) == [
        ["b", record["classes"][0]["probability"], "d", record["classes"][1]["probability"], "b; d; a"]
    ]
    empty = SETS.record(scores.replace(members=np.zeros(6, bool)), canvas, selection)
    assert SETS.lines(empty)[0][-1] == ""


def test_a_detector_has_no_sets():
    none = Detections(jnp.zeros((1, 1, 4)), jnp.zeros((1, 1), int), jnp.zeros((1, 1)), jnp.zeros((1, 1), bool))
    task = prediction_sets.with_sets(classifier(np.zeros((1, 6)))._replace(predict=lambda variables, batch: none))
    with pytest.raises(TypeError, match="with_sets needs predictions to be ClassScores, got Detections"):
        task.predict(task.init(jax.random.key(0), batch_of(images(1))), batch_of(images(1)))

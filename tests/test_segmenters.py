"""The laws of every semantic segmenter."""

import functools
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import loss_and_gradient, variables_of
from equalities import equalities
from numpy.testing import assert_allclose, assert_array_equal
from segmenters import BINARY, CLASSES, EVERY, SIDE, make_batch

from jaxvision.ops import pixel_losses
from jaxvision.tasks import deeplab, fcn, segmentation, u2net, unet
from jaxvision.tasks.detection import LossTerms
from jaxvision.types import Objects, PixelScores

HERE = Path(__file__).parent
QUICK, TYPED = ("fcn",), ("deeplab",)
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
FILES = (fcn, deeplab, unet, u2net, segmentation)
segmenters = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("float64")


@functools.cache
def made(name):
    """The task, its variables, and its jitted loss with gradient and prediction."""
    task = EVERY[name](jnp.float64)
    variables = variables_of(task, make_batch())
    return task, variables, jax.jit(loss_and_gradient(task)), jax.jit(task.predict)


def run(name, batch):
    """Loss, losses of the images, and gradient, as one list of arrays."""
    _, variables, step, _ = made(name)
    (loss, out), gradient = step(variables, batch)
    return jax.device_get([loss, out.example_loss, *jax.tree.leaves(gradient)])


def assert_same(found, expected, error=0.0):
    """`error` is of the largest element of an array, 1 at least: small ones are sums of large ones."""
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=error * np.max(np.abs(theirs), initial=1))


def with_target(batch, **fields):
    return batch.replace(target=batch.target.replace(**fields))


@segmenters
def test_pixels_that_are_not_valid_change_nothing(name):
    batch = make_batch()
    valid = batch.target.valid
    expected = run(name, batch)
    assert_same(run(name, with_target(batch, label=jnp.where(valid, batch.target.label, -77))), expected)
    assert expected[0] > 0
    assert all(np.isfinite(x).all() for x in expected)
    assert max(np.abs(x).max() for x in expected[2:]) > 0
    weighted = with_target(batch, weight=jnp.where(valid, 1.0, jnp.nan))
    assert_same(run(name, weighted), expected, error=1e-13)


@segmenters
def test_the_canvas_outside_the_content_changes_nothing(name):
    batch = make_batch()
    outside = batch.image.at[:, 28:].set(200.0).at[:, :, 30:].set(13.0)
    other = with_target(
        batch.replace(image=outside),
        label=batch.target.label.at[:, 28:].set(1).at[:, :, 30:].set(99),
        valid=batch.target.valid.at[:, 28:].set(True).at[:, :, 30:].set(True),
    )
    assert_same(run(name, other), run(name, batch))
    _, variables, _, predict = made(name)
    assert_array_equal(predict(variables, other).logits, predict(variables, batch).logits)


@segmenters
def test_images_that_are_not_valid_are_as_if_they_were_not_there(name):
    task, variables, step, _ = made(name)
    batch = make_batch()
    batch = with_target(batch.replace(valid=batch.index < 3), label=batch.target.label.at[3].set(99))
    (loss, out), gradient = step(variables, batch)
    assert out.example_loss[3] == 0
    found = loss, out.metrics, out.collections, out.example_loss[:3], gradient
    alone = jax.tree.map(lambda x: x[:3], batch)
    (loss, out), gradient = jax.jit(loss_and_gradient(task))(variables, alone)
    expected = loss, out.metrics, out.collections, out.example_loss, gradient
    assert_same(*map(jax.tree.leaves, jax.device_get((found, expected))), error=1e-9)
    if "batch_stats" in variables:
        before, after = map(jax.tree.leaves, (variables["batch_stats"], out.collections["batch_stats"]))
        assert all(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))


@segmenters
def test_no_valid_pixel_makes_loss_and_gradient_0_and_any_number_compiles_once(name):
    step, sizes = made(name)[2], set()
    batch = make_batch()
    for valid in (jnp.zeros_like(batch.target.valid), batch.target.valid, jnp.ones_like(batch.target.valid)):
        found = run(name, with_target(batch, valid=valid))
        assert all(np.isfinite(x).all() for x in found)
        assert any(x.any() for x in found) == bool(valid.any())
        sizes.add(step._cache_size())
    assert len(sizes) == 1


@segmenters
def test_an_image_without_a_valid_pixel_adds_nothing(name):
    batch = make_batch()
    found = run(name, with_target(batch, valid=batch.target.valid.at[1].set(False)))
    assert found[1][1] == 0
    assert (found[1][[0, 2, 3]] > 0).all()


@segmenters
def test_a_label_that_the_network_does_not_have_makes_the_loss_of_its_image_nan(name):
    batch = make_batch()
    y, x = np.argwhere(np.asarray(batch.target.valid[1]))[0]
    loss, by_image, *_ = run(name, with_target(batch, label=batch.target.label.at[1, y, x].set(CLASSES)))
    assert np.isnan(loss)
    assert np.isnan(by_image).tolist() == [False, True, False, False]


@segmenters
def test_weights_multiply_what_a_pixel_adds(name):
    batch = make_batch()
    half = with_target(batch, weight=jnp.where(batch.target.valid, 0.5, 3.0))
    assert_same([2 * x for x in run(name, half)], run(name, batch), error=1e-12)


@segmenters
def test_no_float_has_to_equal_another(name):
    task = EVERY[name](jnp.float64)
    variables = jax.eval_shape(task.init, jax.random.key(0), make_batch())
    assert not equalities(loss_and_gradient(task), variables, make_batch())


@segmenters
def test_prediction_ignores_the_target(name):
    _, variables, _, predict = made(name)
    batch = make_batch()
    found = predict(variables, batch.replace(target=None))
    assert_array_equal(found.logits, predict(variables, batch).logits)
    assert np.isfinite(found.logits).all()


@pytest.mark.parametrize("name", [n if n in TYPED else pytest.param(n, marks=pytest.mark.slow) for n in EVERY])
def test_types_are_strict_for_a_batch_of_one(name):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("strict"):
        task, batch = EVERY[name](), make_batch(1, dtype=np.float32)
        batch = batch.replace(image=batch.image.astype(jnp.uint8))
        variables = jax.eval_shape(task.init, jax.random.key(0), batch)
        (loss, _), gradient = jax.eval_shape(loss_and_gradient(task), variables, batch)
        found = jax.eval_shape(task.predict, variables, batch)
    assert {x.dtype for x in jax.tree.leaves((loss, gradient, found))} == {jnp.dtype(jnp.float32)}
    assert (found.logits.shape[0], found.logits.shape[-1]) == (1, 2 if name in BINARY else CLASSES)


@pytest.mark.slow
@segmenters
def test_a_batch_of_one_trains(name):
    task, variables, _, _ = made(name)
    (loss, out), gradient = jax.jit(loss_and_gradient(task))(variables, make_batch(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((loss, out, gradient)))
    assert loss > 0
    assert max(np.abs(x).max() for x in jax.tree.leaves(gradient)) > 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
def test_every_file_has_loss_terms_and_decodes(file):
    assert inspect.signature(file.loss_terms).return_annotation is LossTerms
    assert inspect.signature(file.decode).return_annotation is PixelScores


def noted(function, monkeypatch):
    """What a function of `tasks.segmentation` returns from now on, of every image, in any order and in float32."""
    original, seen = getattr(segmentation, function), []

    def noting(*args, **settings):
        found = original(*args, **settings)
        jax.debug.callback(seen.append, found)
        return found

    monkeypatch.setattr(segmentation, function, noting)
    return seen


@pytest.mark.slow
@segmenters
def test_loss_and_prediction_follow_from_the_terms_and_decoded_outputs_of_each_image(name, monkeypatch):
    task, variables, _, _ = made(name)
    batch, terms, scores = make_batch(), noted("loss_terms", monkeypatch), noted("decode", monkeypatch)
    both = jax.jit(lambda *inputs: (task.loss(*inputs), task.predict(*inputs[:2])))
    (loss, out), found = both(variables, batch, jax.random.key(0))
    jax.effects_barrier()
    assert len(terms) == len(scores) == 4
    for each in terms:
        assert set(each.sums) == set(each.counts) <= set(out.metrics)
        assert {np.shape(x) for x in jax.tree.leaves(each)} == {()}
    total = lambda each: sum(
        sum(float(t.sums[key]) for t in each) / (sum(float(t.counts[key]) for t in each) or 1) for key in each[0].sums
    )
    assert_allclose(loss, total(terms), rtol=1e-6)
    assert_allclose(np.sort(out.example_loss), np.sort([total([each]) for each in terms]), rtol=1e-6)
    sizes = [np.abs(logits).sum((1, 2, 3)) for logits in (np.stack([each.logits for each in scores]), found.logits)]
    assert_allclose(*map(np.sort, sizes), rtol=1e-6)


@pytest.mark.slow
@segmenters
def test_jitted_or_not(name):
    task, variables, step, _ = made(name)
    batch = make_batch()
    assert_same(
        *(jax.tree.leaves(f(variables, batch)) for f in (step, loss_and_gradient(task))),
        error=1e-12,
    )


@pytest.mark.slow
@segmenters
def test_one_image_or_many(name):
    task, variables, _, predict = made(name)
    many = make_batch()
    first = jax.tree.map(lambda x: x[:1], many)
    alone, among = jax.device_get((jax.jit(task.predict)(variables, first), predict(variables, many)))
    assert_allclose(alone.logits[0], among.logits[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, HERE / "segmenters_on_eight_devices.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == set(EVERY)
    assert all(max(each["error"], each["half_error"]) < 1e-9 and each["moved"] == 0 for each in found.values()), found


def test_other_targets_are_refused():
    task, variables, _, _ = made("fcn")
    batch = make_batch()
    loss_of = lambda target: jax.eval_shape(
        lambda batch: task.loss(variables, batch, jax.random.key(0)), batch.replace(target=target)
    )
    with pytest.raises(TypeError, match=r"needs batch\.target to be a SegmentationMap, got Objects"):
        loss_of(Objects(jnp.zeros((4, 1, 4)), jnp.zeros((4, 1), int), *(jnp.zeros((4, 1), bool),) * 2))
    with pytest.raises(ValueError, match=rf"batch\.target\.label has \(16, 16\) pixels, the canvas \({SIDE}, {SIDE}\)"):
        loss_of(jax.tree.map(lambda x: x[:, ::2, ::2], batch.target))


@pytest.mark.slow
def test_a_network_has_as_many_auxiliary_outputs_as_weights():
    task, batch = EVERY["fcn"](jnp.float64, auxiliary=()), make_batch(1)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"has 1 auxiliary outputs; auxiliary=\(\) weighs 0"):
        jax.eval_shape(loss_and_gradient(task), variables, batch)


@pytest.mark.slow
def test_losses_of_several_terms_are_metrics_by_number():
    loss = pixel_losses.added({pixel_losses.cross_entropy(): 1.0, pixel_losses.dice(): 0.5})
    task, variables, _, _ = made("fcn")
    several = EVERY["fcn"](jnp.float64, loss=loss, auxiliary=(0.1,))
    found, out = jax.jit(several.loss)(variables, make_batch(), jax.random.key(0))
    _, plain = jax.jit(task.loss)(variables, make_batch(), jax.random.key(0))
    names = ("pixel_loss1", "pixel_loss2", "auxiliary1_loss1", "auxiliary1_loss2")
    assert sorted(out.metrics) == sorted(names)
    assert_allclose(found, sum(out.metrics.values()), rtol=1e-12)
    assert_allclose(out.metrics["pixel_loss1"], plain.metrics["pixel_loss"], rtol=1e-12)
    assert_allclose(out.metrics["auxiliary1_loss1"], 0.2 * plain.metrics["auxiliary1_loss"], rtol=1e-12)

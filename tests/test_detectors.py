"""The laws of every detector."""

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
from detectors import EVERY, LIVE, ROWS, loss_and_gradient, make_batch, variables_of
from equalities import equalities
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.ops.selection import Selection
from jaxvision.tasks import (
    detr,
    detr_segmentation,
    fast_rcnn,
    faster_rcnn,
    mask_rcnn,
    rcnn,
    retinanet,
    roi_heads,
    rpn,
    ssd,
    yolact,
    yolo,
    yolo_v1,
    yolox,
)
from jaxvision.tasks.detection import LossTerms

HERE = Path(__file__).parent
QUICK = ("ssd", "yolov3_tiny")
TYPED = (*QUICK, "faster_rcnn")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
detectors = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("float64")


@functools.cache
def made(name, **options):
    """The task, its variables, and its jitted loss with gradient and prediction."""
    task = EVERY[name](jnp.float64, **options)
    variables = variables_of(task, make_batch())
    return task, variables, jax.jit(loss_and_gradient(task)), jax.jit(task.predict)


def run(name, batch):
    """Loss and gradient, as one list of arrays."""
    _, variables, step, _ = made(name)
    (loss, out), gradient = step(variables, batch)
    return jax.device_get([loss, out.example_loss, *jax.tree.leaves(gradient)])


def assert_same(found, expected, error=0.0):
    """`error` is of the largest element of an array, 1 at least: small ones are sums of large ones."""
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=error * np.max(np.abs(theirs), initial=1))


@detectors
@pytest.mark.parametrize("odd", [[-1e3, 5, 7e4, 9], [np.nan, 0, np.inf, -np.inf]], ids=["far", "not finite"])
def test_padded_rows_change_nothing(name, odd):
    batch = make_batch()
    padded = ~np.asarray(batch.target.valid)
    rubbish = np.where(padded[..., None], odd, batch.target.boxes)
    target = batch.target.replace(
        boxes=jnp.asarray(rubbish),
        labels=jnp.where(padded, 2, batch.target.labels),
        ignore=batch.target.ignore | padded,
        masks=batch.target.masks ^ padded[..., None, None],
    )
    expected = run(name, batch)
    assert_same(run(name, batch.replace(target=target)), expected)
    assert expected[0] > 0
    assert all(np.isfinite(x).all() for x in expected)
    assert max(np.abs(x).max() for x in expected[2:]) > 0


@detectors
def test_the_canvas_outside_the_content_changes_nothing(name):
    batch = make_batch()
    outside = batch.image.at[:, 28:].set(200.0).at[:, :, 30:].set(13.0)
    assert_same(run(name, batch.replace(image=outside)), run(name, batch))
    _, variables, _, predict = made(name)
    found, other = (jax.device_get(predict(variables, batch.replace(image=x))) for x in (batch.image, outside))
    assert_same(jax.tree.leaves(other), jax.tree.leaves(found))
    boxes = found.boxes[found.valid]
    assert len(boxes)
    assert (boxes >= 0).all()
    assert (boxes <= [30, 28, 30, 28]).all()


@detectors
def test_an_invalid_image_has_no_part_in_the_loss(name):
    batch = make_batch((3, 1, 0, 4))
    valid = batch.valid.at[3].set(False)
    found = run(name, batch.replace(valid=valid))
    target = batch.target.replace(boxes=batch.target.boxes.at[3].add(2.0), valid=batch.target.valid.at[3].set(True))
    assert_same(run(name, batch.replace(valid=valid, target=target)), found)
    assert found[1][3] == 0


@detectors
def test_images_that_are_not_valid_are_as_if_they_were_not_there(name):
    task, variables, step, _ = made(name, **LIVE[name])
    batch = make_batch((3, 1, 0, 5))
    batch = batch.replace(valid=batch.index < 2)
    (loss, out), gradient = step(variables, batch)
    found = loss, out.metrics, out.collections, out.example_loss[:2], gradient
    alone = jax.tree.map(lambda x: x[:2], batch)
    (loss, out), gradient = jax.jit(loss_and_gradient(task))(variables, alone)
    expected = loss, out.metrics, out.collections, out.example_loss, gradient
    assert_same(*map(jax.tree.leaves, jax.device_get((found, expected))), error=1e-9)
    before, after = map(jax.tree.leaves, (variables["batch_stats"], out.collections["batch_stats"]))
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))


@detectors
def test_no_float_has_to_equal_another(name):
    """Nothing hangs on how a program rounds what it computes twice: a gradient would be lost, or an object."""
    task = EVERY[name](jnp.float64, **LIVE[name])
    variables = jax.eval_shape(task.init, jax.random.key(0), make_batch())
    assert not equalities(loss_and_gradient(task), variables, make_batch())


@detectors
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_an_object_whose_box_is_not_finite_makes_the_loss_of_its_image_nan(name, odd):
    batch = make_batch((2, 1, 0, 4))
    broken = batch.replace(target=batch.target.replace(boxes=batch.target.boxes.at[1, 0, 2].set(odd)))
    loss, by_image, *_ = run(name, broken)
    assert np.isnan(loss)
    assert np.isnan(by_image).tolist() == [False, True, False, False]


@detectors
def test_no_objects_leave_loss_and_gradient_finite_and_counts_compile_once(name):
    step, sizes = made(name)[2], set()
    for counts in ((0, 0, 0, 0), (1, 0, 0, 0), (ROWS, ROWS, ROWS, ROWS)):
        assert all(np.isfinite(x).all() for x in run(name, make_batch(counts)))
        sizes.add(step._cache_size())
    assert len(sizes) == 1


@detectors
def test_objects_to_be_ignored_and_without_area_are_no_targets(name):
    batch = make_batch((2, 1, 0, 4))
    degenerate = batch.target.boxes.at[0, 1, 2].set(batch.target.boxes[0, 1, 0])
    found = run(name, batch.replace(target=batch.target.replace(boxes=degenerate)))
    without = batch.target.replace(valid=batch.target.valid.at[0, 1].set(False))
    assert_same(found, run(name, batch.replace(target=without)))
    ignored = batch.target.replace(ignore=batch.target.ignore.at[0, 1].set(True))
    as_target = run(name, batch)
    assert not np.allclose(run(name, batch.replace(target=ignored))[0], as_target[0])


@detectors
def test_weights_multiply_what_an_object_adds(name):
    batch = make_batch((2, 0, 0, 0))
    valid = batch.target.valid
    weighted = lambda w: batch.replace(target=batch.target.replace(weight=jnp.where(valid, w, jnp.nan)))
    expected, same = run(name, batch), run(name, weighted(1.0))
    assert_same(same, expected, error=1e-13)
    half, none = run(name, weighted(0.5))[0], run(name, weighted(0.0))[0]
    assert_allclose(half, (expected[0] + none) / 2, rtol=1e-9)
    assert none < half


@detectors
def test_prediction_ignores_the_target_and_is_ordered(name):
    _, variables, _, predict = made(name)
    batch = make_batch()
    found = jax.device_get(predict(variables, batch.replace(target=None)))
    assert_same(jax.tree.leaves(jax.device_get(predict(variables, batch))), jax.tree.leaves(found))
    assert (np.diff(np.where(found.valid, found.scores, -1), axis=1) <= 0).all()
    assert not found.boxes[~found.valid].any()
    assert not found.scores[~found.valid].any()


@pytest.mark.parametrize("name", [n if n in TYPED else pytest.param(n, marks=pytest.mark.slow) for n in EVERY])
def test_types_are_strict_for_a_batch_of_one(name):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("strict"):
        task, batch = EVERY[name](), make_batch((2,), dtype=np.float32)
        batch = batch.replace(image=batch.image.astype(jnp.uint8))
        variables = jax.eval_shape(task.init, jax.random.key(0), batch)
        (loss, _), gradient = jax.eval_shape(loss_and_gradient(task), variables, batch)
        found = jax.eval_shape(task.predict, variables, batch)
    assert {x.dtype for x in jax.tree.leaves((loss, gradient))} == {jnp.dtype(jnp.float32)}
    assert found.boxes.shape == (1, 20, 4)


FILES = {
    "ssd": ssd,
    "yolov3_tiny": yolo,
    "yolov3": yolo,
    "yolo_v1": yolo_v1,
    "detr": detr,
    "retinanet": retinanet,
    "faster_rcnn": faster_rcnn,
    "mask_rcnn": mask_rcnn,
    "fast_rcnn": fast_rcnn,
    "rcnn": rcnn,
    "yolox": yolox,
    "yolact": yolact,
    "detr_segmentation": detr_segmentation,
}


@pytest.mark.parametrize("file", [*dict.fromkeys(FILES.values()), roi_heads], ids=lambda file: file.__name__)
def test_every_file_has_loss_terms_and_decodes(file):
    assert inspect.signature(file.loss_terms).return_annotation is LossTerms
    assert inspect.signature(file.decode).return_annotation is Selection
    assert inspect.signature(rpn.loss_terms).return_annotation is LossTerms


def noted(function, monkeypatch, file):
    """What the function of this file returns from now on, of every image, in any order and in float32."""
    original, seen = getattr(file, function), []

    def noting(*args, **settings):
        found = original(*args, **settings)
        jax.debug.callback(seen.append, found)
        return found

    monkeypatch.setattr(file, function, noting)
    return seen


def by_counts(terms):
    """Every sum over images by its count over them, added up."""
    total = lambda each: sum(float(x) for x in each)
    return sum(
        total(t.sums[name] for t in terms) / (total(t.counts[name] for t in terms) or 1) for name in terms[0].sums
    )


def by_layer(terms):
    """DETR's, of one image: the layers of its decoder, their terms weighted."""
    weights = {"class_loss": 1, "box_loss": 5, "giou_loss": 2, "mask_loss": 1, "dice_loss": 1}
    weighted = lambda t: t._replace(sums={name: weights[name] * x for name, x in t.sums.items()})
    return sum(by_counts([weighted(each)]) for each in terms)


SETS = ("detr", "detr_segmentation")
"""Detectors whose loss has terms of every layer of a decoder."""
FOLLOWS = {
    "retinanet": lambda terms: np.mean([by_counts([each]) for each in terms]),
    **dict.fromkeys(SETS, by_layer),
}
"""How a loss follows from its terms where it is not `by_counts`."""


@detectors
def test_the_loss_follows_from_the_terms_of_each_image(name, monkeypatch):
    task, variables, _, _ = made(name)
    batch = make_batch((3,) if name in SETS else (3, 1, 0, 5))
    if name == "yolox":
        batch = batch.replace(given={"l1": jnp.ones(4)})
    seen = noted("loss_terms", monkeypatch, FILES[name])
    loss, out = jax.jit(lambda *inputs: task.loss(*inputs))(variables, batch, jax.random.key(0))
    jax.effects_barrier()
    assert len(seen) == (2 if name in SETS else 4)
    for terms in seen:
        assert set(terms.sums) == set(terms.counts) <= set(out.metrics)
        assert {np.shape(x) for x in jax.tree.leaves(terms)} == {()}
    follows = FOLLOWS.get(name, by_counts)
    assert_allclose(loss, follows(seen), rtol=1e-6)
    each = [follows(seen)] if name in SETS else [follows([terms]) for terms in seen]
    assert_allclose(np.sort(out.example_loss), np.sort(each), rtol=1e-6)


@detectors
def test_predictions_are_the_decoded_outputs_of_each_image(name, monkeypatch):
    task, variables, _, _ = made(name)
    seen = noted("decode", monkeypatch, FILES[name])
    found = jax.device_get(jax.jit(lambda *inputs: task.predict(*inputs))(variables, make_batch()))
    jax.effects_barrier()
    assert found.valid.any(1).all()
    for row, each in zip(
        np.lexsort(found.index.T), sorted(seen, key=lambda each: each.index[::-1].tolist()), strict=True
    ):
        assert_array_equal(each.index, found.index[row])
        assert_array_equal(each.labels, found.labels[row])
        assert_allclose(each.scores, found.scores[row], rtol=1e-6)
        assert_allclose(each.boxes, found.boxes[row], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd", "mask_rcnn", "detr"])
def test_jitted_or_not(name):
    task, variables, step, _ = made(name)
    batch = make_batch()
    jitted, plain = (jax.tree.leaves(f(variables, batch)) for f in (step, loss_and_gradient(task)))
    assert_same(jitted, plain, error=1e-12)


@detectors
def test_an_image_is_predicted_as_among_any_others(name):
    _, variables, _, predict = made(name)
    batch = make_batch()
    turned = jax.tree.map(lambda x: x[::-1], make_batch(seed=3))
    turned = jax.tree.map(lambda ours, other: other.at[2].set(ours[0]), batch, turned)
    alone, among = (jax.device_get(predict(variables, each)) for each in (batch, turned))
    for ours, theirs in zip(jax.tree.leaves(alone), jax.tree.leaves(among), strict=True):
        assert_allclose(theirs[2], ours[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@detectors
def test_one_image_or_many(name):
    task, variables, _, predict = made(name)
    many = make_batch((3, 1, 0, 5))
    first = jax.tree.map(lambda x: x[:1], many)
    alone, among = jax.device_get((jax.jit(task.predict)(variables, first), predict(variables, many)))
    for ours, theirs in zip(jax.tree.leaves(alone), jax.tree.leaves(among), strict=True):
        assert_allclose(ours[0], theirs[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, HERE / "detectors_on_eight_devices.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == set(EVERY)
    assert all(max(each.get("error", 0), each["half_error"]) < 1e-9 for each in found.values()), found
    # Nothing but sums over all devices; of DETR also its assignments: 2 layers, 16 images, 20 queries, 8 bytes.
    moved = {name: each["moved"] for name, each in found.items() if "moved" in each}
    nothing = dict.fromkeys(("ssd", "yolov3_tiny", "yolox", "faster_rcnn", "mask_rcnn"), 0)
    assert moved == nothing | {"detr": 2 * 16 * 20 * 8}


def test_another_target_is_refused():
    task, variables, _, _ = made("ssd")
    with pytest.raises(TypeError, match=r"needs batch\.target to be Objects, got dict"):
        jax.eval_shape(lambda batch: task.loss(variables, batch, jax.random.key(0)), make_batch().replace(target={}))


def test_a_network_that_does_not_fit_its_boxes_is_refused():
    from jaxvision.tasks.yolo import anchors_of

    with pytest.raises(ValueError, match="2 maps, and there are priors for 1"):
        anchors_of([(2, 2), (4, 4)], [[(1, 1)]], (32, 32))
    with pytest.raises(ValueError, match=r"no square cells for a map of \(3, 3\)"):
        anchors_of([(3, 3)], [[(1, 1)]], (32, 32))
    anchors = anchors_of([(2, 3)], [[(5, 7), (9, 11)]], (64, 96))
    assert_array_equal(anchors.cells[:4], [[0, 0], [0, 0], [1, 0], [1, 0]])
    assert_array_equal(anchors.priors[:2], [[5, 7], [9, 11]])
    assert set(anchors.strides.ravel()) == {32}


@pytest.mark.parametrize(
    ("count", "devices", "together"),
    [(8, 1, 8), (12, 1, 6), (12, 4, 4), (16, 4, 8), (14, 2, 2), (48, 16, 16), (9, 4, 3), (7, 1, 7), (11, 1, 1)],
)
def test_every_device_has_images_of_its_own_at_every_turn(count, devices, together):
    from jaxvision.tasks.detection import _together

    assert _together(count, devices) == together

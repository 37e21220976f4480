"""Mask R-CNN's mask head, its loss and its masks against loops; the laws of detectors are in test_detectors.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import CLASSES, EVERY, loss_and_gradient, make_batch, small_mask_rcnn, variables_of
from mask_cases import cut_out, roi_align
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.nn import roi_heads
from jaxvision.nn.roi_heads import Doubling, MaskHead
from jaxvision.ops.masks import packed
from jaxvision.tasks.faster_rcnn import faster_rcnn_vgg16
from jaxvision.tasks.mask_rcnn import mask_loss_terms, mask_rcnn, mask_rcnn_resnet50_fpn, with_mask_head
from jaxvision.tasks.roi_heads import ROIs
from jaxvision.types import Objects


def test_the_transposed_convolution_equals_the_loop(float64):
    random = np.random.default_rng(0)
    x, kernel, bias = random.normal(size=(2, 3, 4, 5)), random.normal(size=(2, 2, 5, 6)), random.normal(size=6)
    expected = np.zeros((2, 6, 8, 6))
    for b, row, column, i, j in np.ndindex(2, 3, 4, 2, 2):
        expected[b, 2 * row + i, 2 * column + j] = x[b, row, column] @ kernel[i, j] + bias
    variables = {"params": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    found = Doubling(6, jnp.float64).apply(variables, jnp.asarray(x))
    assert_allclose(found, expected, atol=1e-12)


def test_the_head_doubles_the_sides_of_any_leading_axes():
    head = MaskHead(CLASSES, channels=4, layers=2)
    found, variables = head.init_with_output(jax.random.key(0), jnp.ones((2, 3, 7, 7, 5)))
    assert found.shape == (2, 3, 14, 14, CLASSES + 1)
    assert set(variables["params"]) == {"conv1", "conv2", "up", "logits"}


def test_regions_that_are_not_valid_cost_nothing_and_change_nothing(float64, monkeypatch):
    monkeypatch.setattr(roi_heads, "AT_ONCE", 2)
    head, random = MaskHead(CLASSES, channels=4, layers=2, dtype=jnp.float64), np.random.default_rng(0)
    pooled = jnp.asarray(random.normal(size=(2, 5, 4, 4, 3)))
    wanted = jnp.asarray(random.normal(size=(2, 5, 8, 8, CLASSES + 1)))
    valid = jnp.array([[True, True, True, False, False], [True, False, False, False, False]])
    variables = head.init(jax.random.key(0), pooled)
    whole = head.apply(variables, pooled)
    some = head.apply(variables, pooled.at[:, 4].set(jnp.nan), valid)
    assert_allclose(some[:, :4], whole[:, :4], atol=1e-12)  # the fourth is computed beside the third
    assert_array_equal(some[:, 4], 0)

    def loss(variables, given):
        logits = head.apply(variables, pooled, given)
        return jnp.where(valid[..., None, None, None], logits * wanted, 0).sum()

    program = jax.make_jaxpr(lambda v: head.apply(v, pooled, valid))(variables)
    branches = [each for each in program.eqns if each.primitive.name == "cond"]
    assert len(branches) == 3  # of two, of two, and of the one that is left
    found, expected = (jax.jit(jax.grad(loss))(variables, each) for each in (valid, None))
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


def test_the_numbers_of_parameters_are_torchvisions():
    network = mask_rcnn_resnet50_fpn(90)
    arguments = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 1, 4))
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), *arguments, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(spec["params"])) == 44_401_393


def case(n=6, size=8):
    """Regions of which some are positive, ground truth with masks, and logits."""
    random = np.random.default_rng(3)
    masks = random.random((3, 20, 24)) < 0.5
    corner = random.uniform(0, 10, (n, 2))
    boxes = np.concatenate([corner, corner + random.uniform(3, 9, (n, 2))], 1)
    match = np.int32([2, 0, 0, -1, -1, -1])
    rois = ROIs(*map(jnp.asarray, (boxes, np.arange(n) < 5, match)))
    labels, yes = np.int32([2, 0, 1]), np.ones(3, bool)
    target = Objects(*map(jnp.asarray, (boxes[:3], labels, yes, ~yes)), masks=jnp.asarray(masks))
    return random.normal(size=(n, size, size, 4)), rois, target


@pytest.mark.parametrize("geometry", ["aligned", "torchvision"])
def test_the_loss_of_masks_equals_the_loop(float64, geometry):
    logits, rois, target = case()
    found = jax.jit(lambda *of: mask_loss_terms(*of, geometry))(jnp.asarray(logits), rois, target)
    expected = 0.0
    for row in range(3):
        owner = int(rois.match[row])
        (x0, y0, x1, y1), offset = np.asarray(rois.boxes[row]), 0.5 * (geometry == "aligned")
        mask = np.asarray(target.masks[owner], float)
        wanted = roi_align(mask, np.array([x0, y0]) - offset, np.array([x1 - x0, y1 - y0]), 8)
        x = logits[row, ..., int(target.labels[owner]) + 1]
        expected += np.mean(np.log1p(np.exp(x)) - wanted * x)
    assert_allclose(found.sums["mask_loss"], expected, rtol=1e-9)
    assert found.counts["mask_loss"] == 3


def test_only_the_mask_of_the_class_of_a_positive_region_has_a_gradient(float64):
    logits, rois, target = case()
    gradient = jax.jit(jax.grad(lambda x: mask_loss_terms(x, rois, target).sums["mask_loss"]))(jnp.asarray(logits))
    touched = np.abs(gradient).max((1, 2)) > 0
    assert np.argwhere(touched).tolist() == [[0, 2], [1, 3], [2, 3]]


@pytest.mark.slow
def test_masks_as_bits_train_as_masks_of_the_canvas_do(float64):
    task, batch = small_mask_rcnn(jnp.float64), make_batch()
    variables = variables_of(task, batch)
    bits = batch.replace(target=batch.target.replace(masks=packed(batch.target.masks)))
    run = jax.jit(lambda batch: task.loss(variables, batch, jax.random.key(0))[1].metrics)
    expected = run(batch)
    jax.tree.map(partial(assert_allclose, rtol=1e-12), run(bits), expected)  # another program: it may round otherwise
    each = [cut_out(*pair) for pair in zip(np.asarray(batch.target.masks), np.asarray(batch.target.boxes), strict=True)]
    cut = jax.tree.map(lambda *rows: jnp.stack(rows), *each)
    found = run(batch.replace(target=batch.target.replace(masks=cut)))
    assert_allclose(found["mask_loss"], expected["mask_loss"], rtol=0.02)
    assert expected["mask_loss"] > 0


@pytest.mark.slow
def test_predicted_masks_are_those_of_the_label_in_the_box_found(float64):
    batch = make_batch()
    task = small_mask_rcnn(jnp.float64, geometry="torchvision")
    variables = variables_of(task, batch)
    last = variables["params"]["mask_head"]["logits"]
    last["kernel"], last["bias"] = (
        0 * last["kernel"],
        jnp.arange(CLASSES + 1.0),
    )  # every pixel of a mask tells its class
    found = jax.device_get(jax.jit(task.predict)(variables, batch))
    assert found.masks.geometry == "torchvision"
    assert_array_equal(found.masks.boxes, found.boxes)
    assert found.masks.probabilities.shape == (4, 20, 8, 8)
    assert not found.masks.probabilities[~found.valid].any()
    shown = found.masks.probabilities[found.valid]
    assert_allclose(shown, np.tile(1 / (1 + np.exp(-1.0 - found.labels[found.valid][:, None, None])), (8, 8)))
    assert len(set(found.labels[found.valid])) > 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="geometry='detectron'; allowed: aligned, torchvision"):
        mask_rcnn(mask_rcnn_resnet50_fpn(3), geometry="detectron")
    with pytest.raises(TypeError, match="needs maps of a pyramid, FPN or SimplePyramid, not of Last"):
        with_mask_head(faster_rcnn_vgg16(3))
    task, batch = small_mask_rcnn(), make_batch(dtype=np.float32)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    without = batch.replace(target=batch.target.replace(masks=None))
    with pytest.raises(ValueError, match=r"needs masks of the objects in batch\.target"):
        jax.eval_shape(task.loss, variables, without, jax.random.key(0))


@pytest.mark.slow
def test_the_two_heads_before_learn_as_without_masks(float64):
    """Same parameters, same draws: the other losses are those of Faster R-CNN."""
    batch, masked, plain = make_batch(), small_mask_rcnn(jnp.float64), EVERY["faster_rcnn"](jnp.float64)
    variables = variables_of(masked, batch)
    params = {name: tree for name, tree in variables["params"].items() if name != "mask_head"}
    (loss, out), _ = jax.jit(loss_and_gradient(masked))(variables, batch)
    expected, of_boxes = jax.jit(plain.loss)({**variables, "params": params}, batch, jax.random.key(0))
    for name, value in of_boxes.metrics.items():
        assert_allclose(out.metrics[name], value, rtol=1e-12)
    assert_allclose(loss, expected + out.metrics["mask_loss"], rtol=1e-12)

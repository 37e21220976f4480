"""Fast R-CNN's loss against loops, what proposals may and may not change, and its networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import make_batch, small_fast_rcnn, small_rcnn
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from test_ops_nms import overlap
from test_tasks_faster_rcnn import WEIGHTS, drawn, smooth
from test_tasks_retinanet import offsets_of, owners

from jaxvision.nn import resnet
from jaxvision.nn.roi_heads import RegionScores
from jaxvision.pretrained.torchvision_regions import vgg16_sources
from jaxvision.tasks.fast_rcnn import fast_rcnn, fast_rcnn_fpn, fast_rcnn_last_map, fast_rcnn_vgg16
from jaxvision.tasks.faster_rcnn import faster_rcnn_vgg16
from jaxvision.tasks.rcnn import rcnn_vgg16
from jaxvision.tasks.roi_heads import ROIHeads

SIZE = (28, 30)


class OfBoxes(nn.Module):
    """Scores that are a linear function of the boxes alone."""

    @nn.compact
    def __call__(self, images, boxes, *, train):
        scores = nn.Dense(20, param_dtype=boxes.dtype, name="scores")(boxes / 30)
        return RegionScores(scores[..., :4], scores[..., 4:].reshape(*boxes.shape[:2], 4, 4))


def linear(inputs):
    """Variables of a dense layer named "scores"."""
    kernel = np.random.default_rng(3).normal(size=(inputs, 20)) / np.sqrt(inputs)
    return {"params": {"scores": {"kernel": kernel, "bias": np.zeros(20)}}}


def expected_terms(boxes, matched, target, kernel, box_from=0.0):
    """Sums over regions, and how many: from their boxes and the numbers of their objects."""
    by_class = by_box = 0.0
    for box, match in zip(boxes, matched, strict=True):
        scores = box / 30 @ kernel
        label = target.labels[match] + 1 if match >= 0 else 0
        by_class += np.log(np.exp(scores[:4]).sum()) - scores[label]
        if match >= 0 and overlap(box, target.boxes[match]) >= box_from:
            wanted = offsets_of(target.boxes[match], box, WEIGHTS)
            by_box += smooth(scores[4:].reshape(4, 4)[label] - wanted)
    return by_class, by_box, len(boxes)


def regions_of(key, proposed, there, target, settings, background):
    """Boxes that are trained on and the numbers of their objects, from the definition."""
    real = np.asarray(target.valid & ~target.ignore)
    cut = np.clip(proposed, 0, [SIZE[1], SIZE[0]] * 2)
    there = there & (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    for row, box in enumerate(cut):
        there[row] &= max((overlap(box, each) for each in target.boxes[real]), default=0) >= background
    everything = np.concatenate([np.where(there[:, None], cut, 0), target.boxes])
    there = np.concatenate([there, real])
    ignored = target.boxes[np.asarray(target.valid & target.ignore)]
    owner = owners(everything, target.boxes[real], ignored, 0.5, 0.5, False) if real.any() else [-1] * len(there)
    positive, negative = drawn(key, owner, there, settings.samples_per_image, settings.positive_fraction)
    rows = positive + negative
    return everything[rows], [owner[row] for row in rows]


def wide_batch():
    """Proposals that reach beyond the content, one of them wholly."""
    batch = make_batch()
    boxes = np.array(batch.given.boxes)
    boxes[:, 6], boxes[:, 7, 2:], boxes[:, 8, :2] = [31, 3, 40, 20], boxes[:, 7, 2:] + 30, boxes[:, 8, :2] - 9
    return batch.replace(given=batch.given.replace(boxes=jnp.asarray(boxes)))


def test_the_loss_equals_loops_over_the_regions(float64):
    settings, batch, key = ROIHeads(samples_per_image=10, positive_fraction=0.4), wide_batch(), jax.random.key(5)
    task = fast_rcnn(OfBoxes(), roi_heads=settings, dtype=jnp.float64)
    variables = linear(4)
    loss, out = jax.jit(task.loss)(variables, batch, key)
    kernel = np.asarray(variables["params"]["scores"]["kernel"])
    one = jax.device_get(batch)
    keys = jax.random.split(jax.random.split(key)[0], 4)
    terms, few = [], []
    for row in range(4):
        target = jax.tree.map(lambda x: x[row], one.target)  # noqa: B023
        given = one.given.boxes[row], one.given.valid[row].copy()
        boxes, matched = regions_of(keys[row], *given, target, settings, background=0.1)
        few.append(len(boxes))
        terms.append(expected_terms(boxes, matched, target, kernel))
    assert few[2] == 0 < min(few[0], few[1], few[3])
    by_class, by_box, count = np.sum(terms, 0)
    assert_allclose((out.metrics["class_loss"], out.metrics["box_loss"]), (by_class / count, by_box / count), rtol=1e-9)
    assert_allclose(loss, (by_class + by_box) / count, rtol=1e-9)
    assert_allclose(out.example_loss, [(a + b) / max(n, 1) for a, b, n in terms], rtol=1e-9)


def test_rows_of_padding_and_proposals_beyond_the_content_change_nothing(float64):
    task, batch = fast_rcnn(OfBoxes(), roi_heads=ROIHeads(samples_per_image=10), dtype=jnp.float64), wide_batch()
    variables = linear(4)
    run = jax.jit(lambda batch: (task.loss(variables, batch, jax.random.key(1)), task.predict(variables, batch)))
    batch = jax.device_get(batch)
    expected = run(batch)
    boxes = batch.given.boxes.copy()
    boxes[:, -3:], boxes[:, 6] = [-5, 7e5, 1e4, np.inf], [-50, -9, 0, 20]
    boxes[:, 7, 2] += 100
    other = batch.given.replace(boxes=boxes, labels=batch.given.labels + 2, ignore=~batch.given.ignore)
    jax.tree.map(assert_array_equal, run(batch.replace(given=other)), expected)
    valid = batch.given.valid & (np.arange(batch.given.valid.shape[1]) != 6)
    without = batch.given.replace(valid=valid)
    jax.tree.map(assert_array_equal, run(batch.replace(given=without)), expected)
    boxes = batch.given.boxes.copy()
    boxes[0, 0] += 1
    moved = batch.given.replace(boxes=boxes)
    assert run(batch.replace(given=moved))[0][0] != expected[0][0]


@pytest.mark.parametrize("make", [small_fast_rcnn, small_rcnn])
def test_without_proposals_it_says_so(make):
    task, batch = make(), make_batch(dtype=np.float32)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    batch = batch.replace(given=None)
    message = r"needs batch\.given to be Objects, its proposals, got None"
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(task.predict, variables, batch)
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(task.loss, variables, batch, jax.random.key(0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_form_of_the_paper_is_traced_in_strict_types(dtype):
    task, batch = (
        fast_rcnn(fast_rcnn_vgg16(3, hidden=16, dtype=dtype), dtype=dtype),
        make_batch((2, 0), dtype=np.float32),
    )
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert variables["params"]["box_head"]["dense1"]["kernel"].shape == (7 * 7 * 512, 16)
    with jax.numpy_dtype_promotion("strict"):
        loss, out = jax.eval_shape(task.loss, variables, batch, jax.random.key(0))
        found = jax.eval_shape(task.predict, variables, batch)
    assert set(out.metrics) == {"class_loss", "box_loss"}
    assert (loss.dtype, found.boxes.shape, found.boxes.dtype) == (jnp.float32, (2, 100, 4), jnp.float32)


def test_a_residual_network_is_pooled_at_its_stride():
    network = fast_rcnn_last_map(resnet.Backbone(resnet.BasicBlock, (1, 1, 1), width=8), 3)
    fields = jnp.arange(36.0).reshape(6, 6, 1)
    boxes = np.float32([[0, 0, 7, 7], [32, 48, 39, 55], [0, 0, 95, 95]])
    pooled = jax.jit(lambda boxes: network.pool([fields * 0, fields], boxes))(boxes)
    assert pooled.shape == (3, 7, 7, 1)
    assert_array_equal(pooled.max((1, 2, 3)), [0, 3 * 6 + 2, 35])


def test_a_pyramid_is_pooled_from_all_maps_that_have_strides():
    network = fast_rcnn_fpn(resnet.Backbone(resnet.BasicBlock, (1, 1), width=8), 3, channels=16, hidden=8)
    batch = make_batch((2,), dtype=np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), batch.image, batch.given.boxes, train=False))
    assert shapes["params"]["box_head"]["dense1"]["kernel"].shape == (7 * 7 * 16, 8)
    assert {"lateral1", "lateral2", "backbone"} <= set(shapes["params"]["features"])


@pytest.mark.parametrize("make", [fast_rcnn_vgg16, rcnn_vgg16, faster_rcnn_vgg16])
def test_all_but_the_new_layers_has_a_name_in_torchvisions_vgg16(make):
    network, images = make(3, hidden=16), jnp.zeros((1, 32, 32, 3))
    inputs = (jnp.zeros((1, 224, 224, 3)),) if make is rcnn_vgg16 else (images, jnp.zeros((1, 1, 4)))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, train=False))
    found = vgg16_sources(shapes)
    paths = {tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    assert {path[1:3] for path in paths - set(found)} <= {("box_head", "logits"), ("box_head", "offsets")} | {
        ("region_head", name) for name in ("conv", "logits", "offsets")
    }
    assert set(found) < paths
    names = {source.name for source in found.values()}
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    modules = [f"features.{n}" for n in convolutions] + ["classifier.0", "classifier.3"]
    assert names == {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    assert found["params", "box_head", "dense2", "kernel"].name == "classifier.3.weight"
    assert found["params", "features", "backbone", "stage5_conv3", "bias"].name == "features.28.bias"

"""DETR's matching against SciPy, its losses against loops, its detections by hand; all against transformers' figures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_detr
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import UNOPTIMISED, shapes_of
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax, softmax

from jaxvision.ops.matching import hungarian
from jaxvision.tasks import detr
from jaxvision.tasks.detr import Outputs
from jaxvision.types import Batch, Objects

GOLDEN = Path(__file__).parent / "golden" / "detr.npz"
LAYERS, IMAGES, QUERIES, CLASSES, ROWS = 2, 3, 7, 4, 5
WEIGHTS, NO_OBJECT = detr.Weights(classes=2, boxes=3, giou=1.5), 0.3
SIZES = np.array([[40, 60], [50, 30], [32, 32]])


class Recited(nn.Module):
    """A network whose outputs are its parameters."""

    @nn.compact
    def __call__(self, images, size, *, train):
        normal = nn.initializers.normal(1.0)
        logits = self.param("logits", normal, (LAYERS, IMAGES, QUERIES, CLASSES + 1), images.dtype)
        return Outputs(logits, nn.sigmoid(self.param("boxes", normal, (LAYERS, IMAGES, QUERIES, 4), images.dtype)))


def case(seed=0, counts=(4, 2, 0)):
    """Objects on their canvases: one of them to be ignored, one without area, some weighted."""
    random = np.random.RandomState(seed)
    corner = random.uniform(0, 15, (IMAGES, ROWS, 2))
    boxes = np.concatenate([corner, corner + random.uniform(4, 13, corner.shape)], -1)
    valid = np.arange(ROWS) < np.asarray(counts)[:, None]
    ignore = np.zeros_like(valid)
    ignore[0, 1] = True
    boxes[0, 2, 2] = boxes[0, 2, 0]
    labels = random.randint(0, CLASSES, valid.shape).astype(np.int32)
    weight = random.uniform(0.5, 2, valid.shape)
    target = Objects(*map(jnp.asarray, (boxes, labels, valid, ignore)), weight=jnp.asarray(weight))
    index = jnp.arange(IMAGES, dtype=jnp.int32)
    return Batch(jnp.zeros((IMAGES, 50, 60, 3)), jnp.int32(SIZES), jnp.int32(SIZES), index, index >= 0, target)


def corners(box):
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def giou(a, b):
    (ax, ay, bx, by), (cx, cy, dx, dy) = corners(a), corners(b)
    shared = max(min(bx, dx) - max(ax, cx), 0) * max(min(by, dy) - max(ay, cy), 0)
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared
    around = (max(bx, dx) - min(ax, cx)) * (max(by, dy) - min(ay, cy))
    return shared / union - (around - union) / around


def by_loops(logits, boxes, target, size):
    """Sums of one image: class losses and their weights, L1 distances, GIoU losses, objects."""
    there = np.flatnonzero(target.valid & ~target.ignore & (target.boxes[:, 2] > target.boxes[:, 0]))
    goals = []
    for g in there:
        x0, y0, x1, y1 = target.boxes[g]
        goals.append(((x0 + x1) / 2 / size[1], (y0 + y1) / 2 / size[0], (x1 - x0) / size[1], (y1 - y0) / size[0]))
    chances = softmax(logits, -1)
    cost = np.zeros((len(logits), len(there)))
    for q in range(len(logits)):
        for j, g in enumerate(there):
            distance = np.abs(boxes[q] - goals[j]).sum()
            cost[q, j] = -2 * chances[q, target.labels[g]] + 3 * distance - 1.5 * giou(boxes[q], goals[j])
    owner = dict(zip(*linear_sum_assignment(cost), strict=True))
    sums = np.zeros(5)
    for q in range(len(logits)):
        if q not in owner:
            sums += [-0.3 * log_softmax(logits[q])[-1], 0.3, 0, 0, 0]
            continue
        goal, g = goals[owner[q]], there[owner[q]]
        w = target.weight[g]
        sums += [
            -w * log_softmax(logits[q])[target.labels[g]],
            1,
            w * np.abs(boxes[q] - goal).sum(),
            w * (1 - giou(boxes[q], goal)),
            1,
        ]
    return sums


@pytest.mark.parametrize(("queries", "rows"), [(20, 20), (7, 20)])
def test_the_assignment_costs_what_scipys_does_in_float32(queries, rows):
    random = np.random.RandomState(queries + rows)
    cost = (random.uniform(-1, 4, (60, queries, rows)) + random.uniform(-1, 1, (60, queries, 1))).astype(np.float32)
    valid = random.random_sample((60, rows)).argsort(-1) < random.randint(0, min(queries, rows) + 1, (60, 1))
    found = np.asarray(jax.jit(jax.vmap(hungarian), compiler_options=UNOPTIMISED)(cost, valid))
    for each, own, there in zip(found, cost.astype(np.float64), valid, strict=True):
        matched = np.flatnonzero(each >= 0)
        assert sorted(each[matched]) == np.flatnonzero(there).tolist()
        best = own[:, there][linear_sum_assignment(own[:, there])].sum()
        assert own[matched, each[matched]].sum() == pytest.approx(best, abs=1e-5)


def test_of_more_objects_than_queries_the_first_have_one():
    cost = jnp.asarray(np.random.RandomState(0).uniform(size=(3, 8)), jnp.float32)
    found = jax.jit(hungarian, compiler_options=UNOPTIMISED)(cost, jnp.arange(8) % 2 == 1)
    assert sorted(found.tolist()) == [1, 3, 5]


def test_losses_equal_loops(float64):
    task = detr.detr(Recited(), weights=WEIGHTS, no_object=NO_OBJECT, dtype=jnp.float64)
    batch = case()
    variables = task.init(jax.random.key(3), batch)
    loss, out = jax.jit(task.loss, compiler_options=UNOPTIMISED)(variables, batch, jax.random.key(0))
    logits, boxes = (np.asarray(x) for x in Recited().apply(variables, jnp.zeros(()), None, train=False))
    target = jax.tree.map(np.asarray, batch.target)
    sums = np.array(
        [
            [by_loops(logits[l, b], boxes[l, b], jax.tree.map(lambda x: x[b], target), SIZES[b]) for b in range(IMAGES)]  # noqa: B023
            for l in range(LAYERS)
        ]
    )
    classes, weight, l1, giou_loss, objects = sums.sum(1).T
    assert_array_equal(objects, [4, 4])
    by_layer = 2 * classes / weight + 3 * l1 / objects + 1.5 * giou_loss / objects
    assert_allclose(loss, by_layer.sum(), rtol=1e-9)
    assert_allclose(out.metrics["class_loss"], (classes / weight)[-1], rtol=1e-9)
    assert_allclose(out.metrics["box_loss"], (l1 / objects)[-1], rtol=1e-9)
    assert_allclose(out.metrics["giou_loss"], (giou_loss / objects)[-1], rtol=1e-9)
    assert_allclose(out.metrics["auxiliary_loss"], by_layer[0], rtol=1e-9)
    each, there = sums, np.maximum(sums[..., 4], 1)
    own = 2 * each[..., 0] / each[..., 1] + 3 * each[..., 2] / there + 1.5 * each[..., 3] / there
    assert_allclose(out.example_loss, own.sum(0), rtol=1e-9)


def test_numbers_that_are_none_come_out_as_the_loss_and_end_the_matching():
    task, batch = detr.detr(Recited()), case()
    spec = jax.eval_shape(task.init, jax.random.key(0), batch)
    broken = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype).at[0, 1, 2].set(jnp.nan), spec)
    loss, out = jax.jit(task.loss, compiler_options=UNOPTIMISED)(broken, batch, jax.random.key(0))
    assert np.isnan(loss)
    assert np.isnan(out.example_loss).tolist() == [False, True, False]


def test_detections_are_the_likeliest_classes_best_first_within_the_content():
    logits = np.log([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.6, 0.1]]).astype(np.float32)
    boxes = np.array(
        [[0.5, 0.5, 0.2, 0.4], [0.9, 0.5, 0.4, 1.0], [0.5, 0.5, 0.0, 0.5], [0.25, 0.25, 0.5, 0.5]], np.float32
    )
    found = jax.jit(detr.decode)(logits, boxes, jnp.int32([20, 40]))
    kept, labels, scores, valid, index = map(np.asarray, found)
    assert_allclose(kept, [[28, 0, 40, 20], [0, 0, 20, 10], [16, 6, 24, 14], [0, 0, 0, 0]], atol=1e-4)
    assert valid.tolist() == [True, True, True, False]  # a box without width is none
    assert labels[:3].tolist() == [0, 1, 1]
    assert index[:3].tolist() == [1, 3, 0]  # the queries
    assert_allclose(scores, [0.6, 0.6, 0.2, 0], rtol=1e-6)


@pytest.mark.slow
def test_all_of_it_equals_transformers(float64):
    with np.load(GOLDEN) as golden:
        shapes = shapes_of(golden)
        found = parity_detr.golden_of(shapes, parity_detr.figures(shapes, parity_detr.SMALL))
        parity_detr.assert_same(found, golden)

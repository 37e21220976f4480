"""Faster R-CNN's draws, losses, proposals and detections against loops, and all of it against torchvision's figures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_rcnn
import pytest
import test_ops_other_nms as loops
from detectors import make_batch, small_fast_rcnn, small_faster_rcnn, variables_of
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import shapes_of
from test_ops_nms import greedy
from test_tasks_retinanet import BOXES, box_of, objects, offsets_of, owners

from jaxvision.ops import nms as ops_nms
from jaxvision.ops.box_losses import ciou, giou
from jaxvision.ops.other_nms import matrix, soft
from jaxvision.tasks.faster_rcnn import SINGLE_SIZES, faster_rcnn, faster_rcnn_vgg16
from jaxvision.tasks.roi_heads import ROIHeads, ROIs, decode, sample_rois
from jaxvision.tasks.roi_heads import loss_terms as roi_loss_terms
from jaxvision.tasks.rpn import RPN, propose
from jaxvision.tasks.rpn import loss_terms as rpn_loss_terms

GOLDEN = Path(__file__).parent / "golden"
WEIGHTS = (10, 10, 5, 5)


def drawn(key, owner, valid, count, share):
    """Rows of objects, rows of background: those with the largest random numbers."""
    priority = np.asarray(jax.random.uniform(key, (len(owner),)))
    rows = sorted(np.flatnonzero(valid), key=lambda row: -priority[row])
    positive = [row for row in rows if owner[row] >= 0][: int(count * share)]
    return positive, [row for row in rows if owner[row] == -1][: count - len(positive)]


def smooth(difference):
    """Equation 3 of Fast R-CNN, its bend at 1/9."""
    return sum(4.5 * d * d if d < 1 / 9 else d - 1 / 18 for d in np.abs(difference))


def assert_terms(found, sums, count):
    assert found.counts == dict.fromkeys(sums, count)
    assert set(found.sums) == set(sums)
    for name in sums:
        assert_allclose(found.sums[name], sums[name], rtol=1e-9)


def test_the_loss_of_the_rpn_equals_loops_over_the_anchors_drawn(float64):
    settings, key = RPN(samples_per_image=20), jax.random.key(3)
    terms = jax.jit(lambda l, o, t: rpn_loss_terms(key, l, o, BOXES, t, settings))
    for n in (1, 3):
        random = np.random.default_rng(n)
        logits, offsets = random.normal(size=len(BOXES)), random.normal(size=(len(BOXES), 4))
        boxes, _, target = objects(random, n)
        owner = owners(BOXES, boxes[:n], boxes[n : n + 1], 0.7, 0.3, True)
        positive, negative = drawn(key, owner, np.ones(len(BOXES), bool), 20, 0.5)
        by_logit = sum(np.log1p(np.exp(-logits[a])) for a in positive) + sum(
            np.log1p(np.exp(logits[a])) for a in negative
        )
        by_box = sum(smooth(offsets[a] - offsets_of(boxes[owner[a]], BOXES[a])) for a in positive)
        found = terms(logits, offsets, target)
        sums = {"objectness_loss": by_logit, "rpn_box_loss": by_box}
        assert_terms(found, sums, len(positive + negative))


@pytest.mark.parametrize("train", [True, False])
def test_proposals_equal_the_loop(float64, train):
    settings = RPN(pre_nms_top_k=(25, 12), post_nms_top_k=(18, 30), nms=ops_nms.greedy(0.5), min_size=4)
    random, size = np.random.default_rng(0), (28, 44)
    cut = 4 * 6 * 6
    levels = [BOXES[:cut].astype(np.float32), BOXES[cut:].astype(np.float32)]
    logits, offsets = ([random.normal(size=(len(x), *last)) for x in levels] for last in ((), (4,)))
    run = jax.jit(lambda l, o, s: propose(l, o, levels, s, train=train, settings=settings))
    found, there = map(np.asarray, run(logits, offsets, np.int32(size)))
    rows = []
    for level, anchors in enumerate(levels):
        best = sorted(range(len(anchors)), key=lambda a: -logits[level][a])[: settings.pre_nms_top_k[not train]]
        boxes = [(logits[level][a], level, box_of(offsets[level][a], anchors[a], size)) for a in best]
        rows += [row for row in boxes if min(row[2][2:] - row[2][:2]) >= 4]
    scores, level, boxes = map(np.array, zip(*rows, strict=True))
    kept = np.flatnonzero(greedy(boxes, scores, np.ones(len(rows), bool), 0.5, level))
    expected = sorted(kept, key=lambda row: -scores[row])[: settings.post_nms_top_k[not train]]
    n = len(expected)
    assert n == 18 if train else n < 30
    assert there.tolist() == [True] * n + [False] * (len(there) - n)
    assert_allclose(found[:n], boxes[expected], atol=1e-9)
    assert not found[n:].any()


def test_regions_are_drawn_among_proposals_and_objects(float64):
    settings, key, random = ROIHeads(samples_per_image=12), jax.random.key(4), np.random.default_rng(2)
    boxes, _, target = objects(random, 3)
    near = boxes[[0, 1, 2, 0, 1]] + random.normal(size=(5, 4))
    proposals = np.concatenate([near, BOXES[::9], boxes[3:4] + 0.1])
    valid = np.arange(len(proposals)) != 1
    found = jax.device_get(jax.jit(lambda b, v, t: sample_rois(key, b, v, t, settings))(proposals, valid, target))
    everything = np.concatenate([proposals, boxes])
    there = np.concatenate([valid, np.arange(5) < 3])
    owner = owners(everything, boxes[:3], boxes[3:4], 0.5, 0.5, False)
    positive, negative = drawn(key, owner, there, 12, 0.25)
    assert len(positive) == 3
    assert found.valid.tolist() == [True] * (3 + len(negative)) + [False] * (9 - len(negative))
    assert_array_equal(found.boxes[:3], everything[positive])
    assert found.match[:3].tolist() == [owner[row] for row in positive]
    assert sorted(map(tuple, found.boxes[found.valid][3:])) == sorted(map(tuple, everything[negative]))
    assert (found.match[3:] == -1).all()
    assert len(proposals) - 1 not in negative  # it overlaps the object to be ignored


def test_the_loss_of_boxes_equals_loops_over_the_regions(float64):
    random = np.random.default_rng(1)
    boxes, labels, target = objects(random, 3)
    match = np.int32([2, 0, 0, -1, -1, -1])
    regions = ROIs(BOXES[20:26] + 0.5, np.arange(6) < 5, match)  # type: ignore[arg-type]
    logits, offsets = random.normal(size=(6, 4)), random.normal(size=(6, 4, 4))
    found = jax.jit(lambda l, o, r, t: roi_loss_terms(l, o, r, t))(logits, offsets, regions, target)
    class_loss = box_loss = 0.0
    for row in range(5):
        label = labels[match[row]] + 1 if match[row] >= 0 else 0
        class_loss += np.log(np.exp(logits[row]).sum()) - logits[row, label]
        if match[row] >= 0:
            wanted = offsets_of(boxes[match[row]], regions.boxes[row], WEIGHTS)
            box_loss += smooth(offsets[row, label] - wanted)
    assert_terms(found, {"class_loss": class_loss, "box_loss": box_loss}, 5)


def giou_of(a, b):
    """The generalised IoU from the definition (arXiv:1902.09630)."""
    area = lambda low, high: np.prod(np.maximum(high - low, 0))
    inside = area(np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:]))
    around = area(np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:]))
    union = area(a[:2], a[2:]) + area(b[:2], b[2:]) - inside
    return inside / union - (around - union) / around


def ciou_of(a, b):
    """The complete IoU from the definition (arXiv:1911.08287)."""
    sides = lambda box: box[2:] - box[:2]
    inside = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    iou = inside / (np.prod(sides(a)) + np.prod(sides(b)) - inside)
    distance = np.square((a[:2] + a[2:] - b[:2] - b[2:]) / 2).sum()
    diagonal = np.square(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])).sum()
    v = 4 / np.pi**2 * (np.arctan2(*sides(a)) - np.arctan2(*sides(b))) ** 2
    return iou - distance / diagonal - v * v / (1 - iou + v)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "iou_of"), [(giou, giou_of), (ciou, ciou_of)], ids=["giou", "ciou"])
def test_the_loss_of_a_box_may_be_an_iou(float64, loss, iou_of):
    random, far = np.random.default_rng(1), (10_000, 10_000)
    boxes, labels, target = objects(random, 3)
    rois = ROIs(BOXES[20:24] + 50.5, np.arange(4) < 3, np.int32([2, 0, -1, -1]))  # type: ignore[arg-type]
    logits, offsets = random.normal(size=(4, 4)), random.normal(size=(4, 4, 4))
    run = jax.jit(lambda o, l, r, t: roi_loss_terms(l, o, r, t, ROIHeads(box_loss=loss)).sums["box_loss"])
    decoded = [box_of(offsets[r, labels[rois.match[r]] + 1], rois.boxes[r], far, WEIGHTS) for r in (0, 1)]
    assert min(map(np.min, decoded)) > 0  # `box_of` has cut nothing
    expected = sum(1 - iou_of(box, boxes[rois.match[r]]) for r, box in enumerate(decoded))
    assert_allclose(run(offsets, logits, rois, target), expected, rtol=1e-6)
    gradient = jax.jit(jax.grad(run))(offsets, logits, rois, target)
    assert np.isfinite(gradient).all()
    assert not gradient[2:].any()

    settings = RPN(samples_per_image=20, box_loss=loss)
    logits, offsets = random.normal(size=len(BOXES)), random.normal(size=(len(BOXES), 4))
    of = lambda o, l, t: rpn_loss_terms(jax.random.key(3), l, o, BOXES, t, settings).sums["rpn_box_loss"]
    gradient = jax.jit(jax.grad(of))(offsets, logits, target)
    assert np.isfinite(gradient).all()
    assert 0 < (gradient != 0).any(1).sum() <= 10


def test_detections_equal_the_loop(float64):
    settings = ROIHeads(score_threshold=0.2, pre_nms_top_k=40, nms=ops_nms.greedy(0.1), max_detections=25)
    random, size = np.random.default_rng(3), (30, 46)
    boxes = BOXES[::7][:20]
    n = len(boxes)
    valid = np.arange(n) != 2
    logits, offsets = random.normal(size=(n, 4)), random.normal(size=(n, 4, 4))
    run = jax.jit(lambda *rows: decode(*rows, settings))
    found, names, values, there, index = map(np.asarray, run(logits, offsets, boxes, valid, np.int32(size)))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pairs = [
        (scores[r, k], k - 1, box_of(offsets[r, k], boxes[r], size, WEIGHTS), r)
        for r in np.flatnonzero(valid)
        for k in (1, 2, 3)
    ]
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:40]
    rows = [pair for pair in pairs if pair[0] > 0.2 and min(pair[2][2:] - pair[2][:2]) >= 0.01]
    best, labels, corners, regions = map(np.array, zip(*rows, strict=True))
    kept = np.flatnonzero(greedy(corners, best, np.ones(len(rows), bool), 0.1, labels))
    assert 5 < len(kept) < 25
    assert there.sum() == len(kept)
    assert_allclose(found[: len(kept)], corners[kept], atol=1e-9)
    assert names[: len(kept)].tolist() == labels[kept].tolist()
    assert index[: len(kept)].tolist() == regions[kept].tolist()
    assert_allclose(values[: len(kept)], best[kept], rtol=1e-12)


FALLING = {
    "soft": (soft(0.4), lambda *rows: loops.soft(*rows, 0.4)),
    "matrix": (matrix(1.5), lambda *rows: loops.matrix(*rows, 1.5)),
}
"""NMS under which scores fall, and the same by loops."""


@pytest.mark.parametrize("name", FALLING)
def test_detections_with_falling_scores_equal_the_loop(float64, name):
    nms, loop = FALLING[name]
    settings = ROIHeads(score_threshold=0.2, pre_nms_top_k=40, nms=nms, max_detections=40)
    random, size, boxes = np.random.default_rng(3), (30, 46), BOXES[::7][:20]
    logits, offsets = random.normal(size=(20, 4)), random.normal(size=(20, 4, 4))
    found = jax.jit(lambda *rows: decode(*rows, settings))(logits, offsets, boxes, np.ones(20, bool), np.int32(size))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pairs = [
        (scores[r, k], k - 1, box_of(offsets[r, k], boxes[r], size, WEIGHTS), r) for r in range(20) for k in (1, 2, 3)
    ]
    rows = sorted((pair for pair in pairs if pair[0] > 0.2), key=lambda pair: -pair[0])[:40]
    best, labels, corners, regions = map(np.array, zip(*rows, strict=True))
    left = loop(corners, best, np.ones(len(rows), bool), labels)
    kept = [row for row in np.argsort(-left, kind="stable") if left[row] > 0.2]
    n = len(kept)
    assert 5 < n == found.valid.sum() < len(rows)
    assert_allclose(found.scores[:n], left[kept], rtol=1e-12)
    assert_allclose(found.boxes[:n], corners[kept], atol=1e-9)
    assert found.labels[:n].tolist() == labels[kept].tolist()
    assert found.index[:n].tolist() == regions[kept].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", FALLING)
@pytest.mark.parametrize("make", [small_fast_rcnn, pytest.param(small_faster_rcnn, marks=pytest.mark.slow)])
def test_a_task_detects_with_falling_scores_and_learns_boxes_by_ciou(float64, make, name):
    options = {"score_threshold": 0.01, "pre_nms_top_k": 30, "max_detections": 30}
    everything = make(jnp.float64, nms=ops_nms.greedy(1.0), **options)
    falling = make(jnp.float64, nms=FALLING[name][0], box_loss=ciou, **options)
    batch = make_batch()
    # Small logits and offsets: no class takes all of the score and boxes keep their place, so that there is what overlaps.
    last = lambda path: {key.key for key in path} & {"logits", "offsets"}
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf / 10 if last(path) else leaf, variables_of(falling, batch)
    )
    plain, found = (jax.device_get(jax.jit(task.predict)(variables, batch)) for task in (everything, falling))
    assert (plain.valid.sum(1) > 10).all()
    assert (found.scores <= plain.scores + 1e-12).all()
    assert (found.scores < plain.scores - 1e-3).any(1).all()
    assert found.valid.any(1).all()
    plain, found = (
        jax.jit(task.loss)(variables, batch, jax.random.key(0))[1].metrics for task in (everything, falling)
    )
    assert_allclose(found["class_loss"], plain["class_loss"], rtol=1e-12)
    assert abs(found["box_loss"] - plain["box_loss"]) > 1e-3
    assert np.isfinite(found["box_loss"])


@pytest.mark.slow
def test_the_form_of_the_paper_is_traced_in_strict_types():
    task = faster_rcnn(faster_rcnn_vgg16(3, hidden=16), sizes=SINGLE_SIZES, mean=(123.0, 117.0, 104.0), std=1.0)
    batch = make_batch((2, 0), dtype=np.float32)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert variables["params"]["box_head"]["dense1"]["kernel"].shape == (7 * 7 * 512, 16)
    with jax.numpy_dtype_promotion("strict"):
        loss, out = jax.eval_shape(task.loss, variables, batch, jax.random.key(0))
        found = jax.eval_shape(task.predict, variables, batch)
    assert set(out.metrics) == {"objectness_loss", "rpn_box_loss", "class_loss", "box_loss"}
    assert (loss.dtype, found.boxes.shape) == (jnp.float32, (2, 100, 4))


@pytest.mark.slow
def test_all_of_it_equals_torchvision(float64):
    with np.load(GOLDEN / "faster_rcnn_resnet18.npz") as golden:
        shapes = shapes_of(golden)
        found = parity_rcnn.golden_of(shapes, parity_rcnn.figures("faster_rcnn", "resnet18", shapes))
        parity_rcnn.assert_same(found, golden)

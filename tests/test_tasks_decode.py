"""Which anchor, cell or grid box each detection was: `index` leads back to its numbers, decoded here in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_tasks_retinanet import box_of

from jaxvision.ops.anchors import pyramid, ssd_default_boxes
from jaxvision.ops.nms import greedy
from jaxvision.ops.other_nms import soft
from jaxvision.ops.selection import Selecting
from jaxvision.tasks import retinanet, ssd, yolo, yolo_v1, yolox

CANVAS, SIZE, CLASSES = (32, 48), (28, 44), 3
MAPS = ((4, 6), (2, 3))
SOME = {"score_threshold": 0.1, "max_detections": 25}


def selecting(pre_nms_top_k, nms):
    return Selecting(pre_nms_top_k=pre_nms_top_k, nms=nms, **SOME)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cut(centre, side):
    """The box around a centre, within the content."""
    corners = np.concatenate([np.subtract(centre, side / 2), np.add(centre, side / 2)])
    return np.clip(corners, 0, [SIZE[1], SIZE[0]] * 2)


def of_ssd(random, nms):
    defaults = ssd_default_boxes(MAPS, CANVAS, (0.3, 0.5, 0.8), ((2,), (2,)), (8, 16)).astype(float)
    logits, offsets = random.normal(size=(len(defaults), CLASSES + 1)), random.normal(size=(len(defaults), 4))
    run = lambda l, o: ssd.decode(l, o, defaults, jnp.int32(SIZE), selecting(20, nms), ssd.SOFTMAX)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    boxes = [box_of(o, anchor, SIZE, (10, 10, 5, 5)) for o, anchor in zip(offsets, defaults, strict=True)]
    return jax.jit(run)(logits, offsets), boxes, scores[:, 1:]


def of_retinanet(random, nms):
    levels = pyramid(MAPS, CANVAS, ((8, 10), (16, 20)))
    logits, offsets = ([random.normal(size=(len(x), last)) for x in levels] for last in (CLASSES, 4))
    run = lambda l, o: retinanet.decode(l, o, levels, jnp.int32(SIZE), selecting(40, nms))
    found = jax.jit(run)(logits, offsets)
    anchors = np.concatenate(levels)
    boxes = [box_of(o, anchor, SIZE) for o, anchor in zip(np.concatenate(offsets), anchors, strict=True)]
    return found, boxes, sigmoid(np.concatenate(logits))


def of_yolo(random, nms):
    priors = (((6, 8), (12, 9)), ((16, 20),))
    anchors = yolo.anchors_of(MAPS, priors, CANVAS)
    predicted = random.normal(size=(len(anchors.cells), 5 + CLASSES))
    run = lambda p: yolo.decode(p, anchors, jnp.int32(SIZE), selecting(20, nms))
    boxes = [
        cut((sigmoid(t[:2]) + cell) * stride, np.exp(t[2:4]) * prior)
        for t, cell, prior, stride in zip(predicted, *anchors, strict=True)
    ]
    return jax.jit(run)(predicted), boxes, sigmoid(predicted[:, 4:5]) * sigmoid(predicted[:, 5:])


def of_yolox(random, nms):
    cells = yolo.anchors_of(MAPS, [[(1, 1)]] * 2, CANVAS)
    predicted = random.normal(size=(len(cells.cells), 5 + CLASSES))
    run = lambda p: yolox.decode(p, cells, jnp.int32(SIZE), selecting(20, nms))
    boxes = [
        cut((t[:2] + cell) * stride, np.exp(t[2:4]) * stride)
        for t, cell, _, stride in zip(predicted, *cells, strict=True)
    ]
    return jax.jit(run)(predicted), boxes, sigmoid(predicted[:, 4:5]) * sigmoid(predicted[:, 5:])


def of_yolo_v1(random, nms):
    output = random.uniform(0.2, 1, (*MAPS[0], 5 * 2 + CLASSES))
    run = lambda o: yolo_v1.decode(o, CANVAS, jnp.int32(SIZE), boxes=2, nms=nms, **SOME)
    boxes, scores = [], []
    for row, column, k in np.ndindex(4, 6, 2):
        x, y, *roots, confidence = output[row, column, 5 * k : 5 * k + 5]
        boxes.append(cut(((column + x) * 8, (row + y) * 8), np.square(roots) * [48, 32]))
        scores.append(confidence * output[row, column, 10:])
    return jax.jit(run)(output), boxes, np.array(scores)


DETECTORS = {"ssd": of_ssd, "retinanet": of_retinanet, "yolo": of_yolo, "yolox": of_yolox, "yolo_v1": of_yolo_v1}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_index_of_a_detection_leads_to_its_box_and_score(float64, name):
    found, boxes, scores = DETECTORS[name](np.random.default_rng(0), greedy(0.5))
    n = int(found.valid.sum())
    index, labels = np.asarray(found.index)[:n], np.asarray(found.labels)[:n]
    assert n > 5
    assert len({*index}) > 3
    assert_allclose(found.boxes[:n], np.array(boxes)[index], rtol=1e-6, atol=1e-6)
    assert_allclose(found.scores[:n], scores[index, labels], rtol=1e-9)
    assert len({*zip(index, labels, strict=True)}) == n
    assert not found.index[n:].any()


@pytest.mark.parametrize("name", DETECTORS)
def test_the_index_stays_where_scores_fall(float64, name):
    found, boxes, scores = DETECTORS[name](np.random.default_rng(1), soft())
    n = int(found.valid.sum())
    index, labels = np.asarray(found.index)[:n], np.asarray(found.labels)[:n]
    assert_allclose(found.boxes[:n], np.array(boxes)[index], rtol=1e-6, atol=1e-6)
    assert (found.scores[:n] <= scores[index, labels] + 1e-12).all()
    assert (found.scores[:n] < scores[index, labels] - 1e-6).any()

"""YOLO's losses against loops over cells, priors and objects, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.tasks import yolo, yolo_v1
from jaxvision.types import Objects

CANVAS = (64, 96)
PRIORS = (((40, 30), (20, 50)), ((8, 10), (14, 9), (25, 25)))
SHAPES = ((2, 3), (4, 6))
K = 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logit, target):
    return -target * np.log(sigmoid(logit)) - (1 - target) * np.log(1 - sigmoid(logit))


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / whole if whole else 0.0


def make_objects(random, n, ignored, rows=6):
    corner = random.uniform(0, 50, (rows, 2))
    boxes = np.concatenate([corner, np.minimum(corner + random.uniform(3, 45, (rows, 2)), [96, 64])], 1)
    valid = np.arange(rows) < n + ignored
    ignore = (np.arange(rows) >= n) & valid
    labels = random.integers(0, K, rows).astype(np.int32)
    weight = random.uniform(0.5, 1.5, rows)
    return boxes, labels, valid, ignore, weight


def owners(boxes):
    """(map, row, column, prior) of the prediction that is responsible, to the object."""
    found = {}
    for number, box in enumerate(boxes):
        w, h = box[2] - box[0], box[3] - box[1]
        best, where = -1.0, None
        for m, own in enumerate(PRIORS):
            for k, (pw, ph) in enumerate(own):
                shared = min(w, pw) * min(h, ph)
                likeness = shared / (w * h + pw * ph - shared)
                if likeness > best:
                    best, where = likeness, (m, k)
        m, k = where
        stride = CANVAS[0] / SHAPES[m][0]
        column, row = (box[0] + box[2]) / 2 // stride, (box[1] + box[3]) / 2 // stride
        found[m, int(row), int(column), k] = number
    return found


def yolo_by_loops(outputs, boxes, labels, weight, ignored, threshold):
    found = owners(boxes)
    terms = np.zeros(3)
    for m, output in enumerate(outputs):
        stride = CANVAS[0] / SHAPES[m][0]
        for row, column, k in np.ndindex(output.shape[:3]):
            t = output[row, column, k]
            centre = (sigmoid(t[0]) + column) * stride, (sigmoid(t[1]) + row) * stride
            side = np.exp(t[2]) * PRIORS[m][k][0], np.exp(t[3]) * PRIORS[m][k][1]
            box = [centre[0] - side[0] / 2, centre[1] - side[1] / 2, centre[0] + side[0] / 2, centre[1] + side[1] / 2]
            owner = found.get((m, row, column, k))
            if owner is None:
                if all(overlap(box, other) <= threshold for other in (*boxes, *ignored)):
                    terms[1] += cross_entropy(t[4], 0)
                continue
            mine = boxes[owner]
            w, h = mine[2] - mine[0], mine[3] - mine[1]
            place = (mine[0] + mine[2]) / 2 / stride - column, (mine[1] + mine[3]) / 2 / stride - row
            size = np.log(w / PRIORS[m][k][0]), np.log(h / PRIORS[m][k][1])
            by_box = cross_entropy(t[0], place[0]) + cross_entropy(t[1], place[1])
            by_box += ((t[2] - size[0]) ** 2 + (t[3] - size[1]) ** 2) / 2
            terms[0] += by_box * (2 - w * h / (CANVAS[0] * CANVAS[1])) * weight[owner]
            terms[1] += cross_entropy(t[4], 1) * weight[owner]
            target = np.eye(K)[labels[owner]]
            terms[2] += sum(cross_entropy(t[5 + c], target[c]) for c in range(K)) * weight[owner]
    return terms


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_the_loss_and_the_grid_equal_loops(float64, threshold):
    random = np.random.default_rng(1)
    anchors = yolo.anchors_of(SHAPES, PRIORS, CANVAS)
    terms = jax.jit(lambda p, t: (yolo.loss_terms(p, anchors, t, CANVAS, threshold), yolo.responsible(t, anchors)))
    ignoring = 0
    for n, ignored in ((0, 0), (1, 1), (3, 0), (4, 2), (6, 0)):
        boxes, labels, valid, ignore, weight = make_objects(random, n, ignored)
        outputs = [random.normal(size=(*shape, len(own), 5 + K)) for shape, own in zip(SHAPES, PRIORS, strict=True)]
        flat = np.concatenate([output.reshape(-1, 5 + K) for output in outputs])
        if n:
            flat[17, :4] = 0.1  # near its prior
        outputs = [flat[:12].reshape(2, 3, 2, 8), flat[12:].reshape(4, 6, 3, 8)]
        target = Objects(*map(jnp.asarray, (boxes, labels, valid, ignore)), weight=jnp.asarray(weight))
        (found, counts), _ = terms(jnp.asarray(flat), target)
        expected = yolo_by_loops(outputs, boxes[:n], labels, weight, boxes[n : n + ignored], threshold)
        assert_allclose([found[name] for name in ("box_loss", "objectness_loss", "class_loss")], expected, rtol=1e-9)
        assert counts == dict.fromkeys(found, 1)
        ignoring += abs(expected[1] - yolo_by_loops(outputs, boxes[:n], labels, weight, [], 1.0)[1]) > 1e-9
        alone = Objects(*map(jnp.asarray, (boxes, labels, valid & ~ignore, ignore)))
        owner = np.full(len(flat), -1)
        for (m, row, column, k), number in owners(boxes[:n]).items():
            kinds = len(PRIORS[m])
            owner[(0, 12)[m] + (row * SHAPES[m][1] + column) * kinds + k] = number
        assert_array_equal(yolo.responsible(alone, anchors), owner)
    assert ignoring > 0 or threshold > 0.5


def v1_by_loops(output, boxes, labels, weight, count=2):
    rows, columns = output.shape[:2]
    owner = {}
    for number, box in enumerate(boxes):
        owner[int((box[1] + box[3]) / 2 / 64 * rows), int((box[0] + box[2]) / 2 / 96 * columns)] = number
    terms = np.zeros(3)
    for row, column in np.ndindex(rows, columns):
        cell = output[row, column]
        predicted = cell[: 5 * count].reshape(count, 5)
        number = owner.get((row, column))
        best, overlaps = None, [0.0] * count
        if number is not None:
            mine = boxes[number]
            for k, (x, y, w, h, _) in enumerate(predicted):
                cx, cy, bw, bh = (column + x) / columns * 96, (row + y) / rows * 64, w * w * 96, h * h * 64
                overlaps[k] = overlap([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], mine)
            best = int(np.argmax(overlaps))
            target = np.eye(K)[labels[number]]
            terms[2] += weight[number] * np.sum((cell[5 * count :] - target) ** 2)
        for k in range(count):
            if k != best:
                terms[1] += 0.5 * predicted[k, 4] ** 2
                continue
            cx, cy = (mine[0] + mine[2]) / 2 / 96 * columns - column, (mine[1] + mine[3]) / 2 / 64 * rows - row
            wanted = [cx, cy, np.sqrt((mine[2] - mine[0]) / 96), np.sqrt((mine[3] - mine[1]) / 64)]
            terms[0] += 5 * weight[number] * np.sum((predicted[k, :4] - wanted) ** 2)
            terms[1] += weight[number] * (predicted[k, 4] - overlaps[k]) ** 2
    return terms


def test_the_loss_of_the_first_equals_loops(float64):
    random = np.random.default_rng(2)
    terms = jax.jit(lambda o, t: yolo_v1.loss_terms(o, t, CANVAS))
    for n in (0, 1, 3, 6):
        boxes, labels, valid, ignore, weight = make_objects(random, n, 0)
        output = random.uniform(0, 1, (3, 4, 10 + K))
        target = Objects(*map(jnp.asarray, (boxes, labels, valid, ignore)), weight=jnp.asarray(weight))
        found, counts = terms(jnp.asarray(output), target)
        expected = v1_by_loops(output, boxes[:n], labels, weight)
        assert_allclose([found[name] for name in ("box_loss", "confidence_loss", "class_loss")], expected, rtol=1e-9)
        assert counts == dict.fromkeys(found, 1)


def test_the_overlap_that_a_confidence_should_be_has_no_gradient(float64):
    boxes, *others, weight = make_objects(np.random.default_rng(2), 3, 0)
    target = Objects(jnp.asarray(boxes), *map(jnp.asarray, others), weight=jnp.asarray(weight))
    output = jnp.asarray(np.random.default_rng(3).uniform(0, 1, (3, 4, 10 + K)))
    of_confidence = jax.grad(lambda o: yolo_v1.loss_terms(o, target, CANVAS).sums["confidence_loss"])
    slopes = np.asarray(jax.jit(of_confidence)(output))[..., :10].reshape(3, 4, 2, 5)
    assert_array_equal(slopes[..., :4], 0)
    assert np.all(slopes[..., 4] != 0)


def test_what_is_predicted_where_the_target_is_gives_the_target_back(float64):
    """Encoding by the oracle's formulae, decoding by ours."""
    anchors = yolo.anchors_of(SHAPES, PRIORS, CANVAS)
    box = np.array([30.0, 10.0, 52.0, 36.0])
    (where,) = owners([box])
    m, row, column, k = where
    index = (0, 12)[m] + (row * SHAPES[m][1] + column) * len(PRIORS[m]) + k
    stride = CANVAS[0] / SHAPES[m][0]
    place = np.array([41 / stride - column, 23 / stride - row])
    flat = np.zeros((len(anchors.cells), 5 + K))
    flat[index, :2] = np.log(place / (1 - place))
    flat[index, 2:4] = np.log(np.array([22, 26]) / PRIORS[m][k])
    assert_allclose(yolo.boxes_of(jnp.asarray(flat), anchors)[index], box, rtol=1e-9)

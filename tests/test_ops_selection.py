import jax
import numpy as np
import pytest
import test_ops_other_nms as loops
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.ops.nms import greedy
from jaxvision.ops.other_nms import fast, matrix, soft
from jaxvision.ops.selection import best_of_each_class


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_loops(boxes, scores, above, candidates, overlap, count):
    found = []
    for label in range(scores.shape[1]):
        order = [i for i in np.argsort(-scores[:, label], kind="stable") if (boxes[i, 2:] > boxes[i, :2]).all()]
        kept = []
        for i in order[:candidates]:
            if scores[i, label] > above and all(iou(boxes[i], boxes[j]) <= overlap for j in kept):
                kept.append(i)
        found += [(scores[i, label], label, i) for i in kept]
    found.sort(key=lambda each: -each[0])
    return found[:count]


def test_it_equals_loops_over_classes_and_boxes():
    random = np.random.default_rng(0)
    options = {"score_threshold": 0.2, "pre_nms_top_k": 12, "nms": greedy(0.4), "max_detections": 30}
    run = jax.jit(lambda boxes, scores: best_of_each_class(boxes, scores, **options))
    for case in range(20):
        corner = random.integers(0, 12, (25, 2))
        boxes = np.concatenate([corner, corner + random.integers(0, 9, (25, 2))], 1).astype(np.float32)
        scores = np.round(random.uniform(0, 1, (25, 3)), 1 if case % 2 else 6).astype(np.float32)
        found = jax.device_get(run(boxes, scores))
        expected = by_loops(boxes, scores, np.float32(0.2), 12, 0.4, 30)
        n = len(expected)
        assert found[3].tolist() == [True] * n + [False] * (30 - n)
        assert_array_equal(found[1][:n], [label for _, label, _ in expected])
        assert_array_equal(found[0][:n], boxes[[i for *_, i in expected]])
        assert_allclose(found[2][:n], [score for score, *_ in expected], rtol=0)
        assert_array_equal(found.index[:n], [i for *_, i in expected])
        assert not found[0][n:].any()
        assert not found.index[n:].any()


def test_fewer_boxes_than_rows_and_none_at_all():
    boxes = np.float32([[0, 0, 2, 2]])
    options = {"score_threshold": 0.5, "pre_nms_top_k": 5, "nms": greedy(0.5), "max_detections": 3}
    found = best_of_each_class(jax.numpy.asarray(boxes), jax.numpy.ones((1, 1)), **options)
    assert found[3].tolist() == [True, False, False]
    none = best_of_each_class(jax.numpy.asarray(boxes), jax.numpy.zeros((1, 1)), **options)
    assert not none[3].any()


@pytest.mark.parametrize(
    ("nms", "loop"),
    [
        (soft(0.4), lambda *rows: loops.soft(*rows, 0.4)),
        (matrix(1.5), lambda *rows: loops.matrix(*rows, 1.5)),
        (fast(0.4), lambda *rows: np.where(loops.fast(*rows, 0.4), rows[1], -1)),
    ],
)
def test_scores_are_what_nms_leaves_and_above_the_threshold_again(float64, nms, loop):
    boxes, _, _, _ = loops.crowd(2)
    scores = np.random.default_rng(3).uniform(0, 1, (len(boxes), 2))
    options = {"score_threshold": 0.3, "pre_nms_top_k": len(boxes), "nms": nms, "max_detections": 70}
    found = jax.device_get(jax.jit(lambda *each: best_of_each_class(*each, **options))(boxes, scores))
    expected, alike, area = [], np.zeros(len(boxes), int), (boxes[:, 2:] > boxes[:, :2]).all(1)
    for label in range(2):
        left = loop(boxes, scores[:, label], area & (scores[:, label] > 0.3), alike)
        expected += [(left[i], label, i) for i in range(len(boxes)) if left[i] > 0.3]
    expected.sort(key=lambda each: -each[0])
    n = found.valid.sum()
    assert 0 < n == len(expected) < ((scores > 0.3) & area[:, None]).sum()
    assert_allclose(found.scores[:n], [score for score, *_ in expected], rtol=1e-12)
    assert_array_equal(found.labels[:n], [label for _, label, _ in expected])
    assert_array_equal(found.index[:n], [i for *_, i in expected])

import jax
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

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
    options = {"above": 0.2, "candidates": 12, "overlap": 0.4, "count": 30}
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
        assert not found[0][n:].any()


def test_fewer_boxes_than_rows_and_none_at_all():
    boxes = np.float32([[0, 0, 2, 2]])
    options = {"above": 0.5, "candidates": 5, "overlap": 0.5, "count": 3}
    run = jax.jit(lambda boxes, scores: best_of_each_class(boxes, scores, **options))
    assert run(boxes, np.ones((1, 1)))[3].tolist() == [True, False, False]
    assert not run(boxes, np.zeros((1, 1)))[3].any()

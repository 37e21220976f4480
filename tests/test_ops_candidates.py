"""The best candidates against a greedy loop."""

import jax
import jax.numpy as jnp
import numpy as np
from test_ops_nms import greedy as greedy_loop

from jaxvision.ops.candidates import best_candidates
from jaxvision.ops.nms import greedy
from jaxvision.ops.other_nms import soft


def test_best_candidates_are_those_of_the_loop(float64):
    best = jax.jit(lambda *rows: best_candidates(*rows, score_threshold=0.1, nms=greedy(0.4), max_detections=12))
    for seed in range(8):
        random = np.random.default_rng(seed)
        corner = random.uniform(0, 40, (30, 2))
        boxes = np.concatenate([corner, corner + random.uniform(5, 30, (30, 2))], 1)
        labels, scores = random.integers(0, 3, 30).astype(np.int32), np.round(random.random(30), 1)
        valid = random.random(30) < (0.8 if seed else 0.1)
        kept = np.flatnonzero(greedy_loop(boxes, scores, valid & (scores > 0.1), 0.4, labels))
        expected = sorted(kept, key=lambda row: (-scores[row], row))[:12]
        found, names, values, there, index = map(np.asarray, best(*map(jnp.asarray, (boxes, labels, scores, valid))))
        n = len(expected)
        assert there.tolist() == [True] * n + [False] * (12 - n)
        np.testing.assert_array_equal(found[:n], boxes[expected])
        np.testing.assert_array_equal(names[:n], labels[expected])
        np.testing.assert_array_equal(values[:n], scores[expected])
        np.testing.assert_array_equal(index[:n], expected)
        assert not found[n:].any()
        assert not values[n:].any()


def test_fewer_candidates_than_rows_are_padded():
    best = jax.jit(lambda *rows: best_candidates(*rows, score_threshold=0, nms=greedy(0.5), max_detections=3))
    found = best(np.float32([[0, 0, 4, 4]]), np.int32([2]), np.float32([0.5]), np.array([True]))
    assert [x.tolist() for x in found[1:]] == [[2, 0, 0], [0.5, 0, 0], [True, False, False], [0, 0, 0]]


def test_soft_scores_are_sorted_again_and_above_the_threshold_again():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [50, 0, 60, 10], [50, 0, 60, 9]])
    labels, scores = np.int32([0, 0, 1, 0, 0]), np.float32([0.9, 0.8, 0.7, 0.6, 0.5])
    found = best_candidates(
        *map(jnp.asarray, (boxes, labels, scores, scores > 0)), score_threshold=0.12, nms=soft(0.5), max_detections=5
    )
    # The twin of the first falls to 0.8 exp(-2) = 0.108; the last, which overlaps by 0.9, to 0.5 exp(-1.62) = 0.099.
    assert found.valid.tolist() == [True, True, True, False, False]
    assert found.index.tolist() == [0, 2, 3, 0, 0]
    np.testing.assert_allclose(found.scores[:3], [0.9, 0.7, 0.6], rtol=1e-6)
    again = found.renumbered(jnp.int32([7, 5, 3, 1, 9]))
    assert again.index.tolist() == [7, 3, 1, 0, 0]

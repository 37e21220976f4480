"""The best candidates against a greedy loop."""

import jax
import jax.numpy as jnp
import numpy as np
from test_ops_nms import greedy

from jaxvision.ops.candidates import best_candidates


def test_best_candidates_are_those_of_the_loop(float64):
    best = jax.jit(lambda *rows: best_candidates(*rows, overlap=0.4, count=12))
    for seed in range(8):
        random = np.random.default_rng(seed)
        corner = random.uniform(0, 40, (30, 2))
        boxes = np.concatenate([corner, corner + random.uniform(5, 30, (30, 2))], 1)
        labels, scores = random.integers(0, 3, 30).astype(np.int32), np.round(random.random(30), 1)
        valid = random.random(30) < (0.8 if seed else 0.1)
        kept = np.flatnonzero(greedy(boxes, scores, valid, 0.4, labels))
        expected = sorted(kept, key=lambda row: (-scores[row], row))[:12]
        found, names, values, there = map(np.asarray, best(*map(jnp.asarray, (boxes, labels, scores, valid))))
        n = len(expected)
        assert there.tolist() == [True] * n + [False] * (12 - n)
        np.testing.assert_array_equal(found[:n], boxes[expected])
        np.testing.assert_array_equal(names[:n], labels[expected])
        np.testing.assert_array_equal(values[:n], scores[expected])
        assert not found[n:].any()
        assert not values[n:].any()


def test_fewer_candidates_than_rows_are_padded():
    best = jax.jit(lambda *rows: best_candidates(*rows, overlap=0.5, count=3))
    found = best(np.float32([[0, 0, 4, 4]]), np.int32([2]), np.float32([0.5]), np.array([True]))
    assert [x.tolist() for x in found[1:]] == [[2, 0, 0], [0.5, 0, 0], [True, False, False]]

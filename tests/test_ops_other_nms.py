"""Soft, fast and matrix NMS against loops."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.ops.other_nms import fast_nms, matrix_nms, soft_nms


def overlap(a, c):
    width, height = min(a[2], c[2]) - max(a[0], c[0]), min(a[3], c[3]) - max(a[1], c[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (c[2] - c[0]) * (c[3] - c[1]) - shared
    return shared / union if union else 0.0


def crowd(seed, n=30):
    random = np.random.RandomState(seed)
    corner = random.randint(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + random.randint(0, 20, (n, 2))], 1).astype(np.float64)
    boxes[3] = boxes[11]
    return boxes, random.randint(1, 20, n) / 20, random.random_sample(n) < 0.8, random.randint(0, 2, n)


def rivals(i, j, valid, labels):
    return valid[i] and valid[j] and labels[i] == labels[j]


def soft(boxes, scores, valid, labels, sigma):
    scores, waiting = np.where(valid, scores, 0.0), set(np.flatnonzero(valid))
    while waiting:
        best = max(sorted(waiting), key=lambda i: scores[i])
        waiting.remove(best)
        for i in waiting:
            if labels[i] == labels[best]:
                scores[i] *= np.exp(-(overlap(boxes[i], boxes[best]) ** 2) / sigma)
    return scores


def ahead(i, scores, valid):
    return [j for j in np.flatnonzero(valid) if scores[j] > scores[i] or (scores[j] == scores[i] and j < i)]


def fast(boxes, scores, valid, labels, threshold):
    kept = valid.copy()
    for i in np.flatnonzero(valid):
        for j in ahead(i, scores, valid):
            kept[i] &= not (labels[i] == labels[j] and overlap(boxes[i], boxes[j]) > threshold)
    return kept


def matrix(boxes, scores, valid, labels, sigma):
    result = np.where(valid, scores, 0.0)
    of = lambda i: [(j, overlap(boxes[i], boxes[j]) * (labels[i] == labels[j])) for j in ahead(i, scores, valid)]
    worst = {i: max((o for _, o in of(i)), default=0.0) for i in np.flatnonzero(valid)}
    for i in np.flatnonzero(valid):
        result[i] *= min([np.exp(-sigma * (o**2 - worst[j] ** 2)) for j, o in of(i)] + [1.0])
    return result


@pytest.mark.parametrize("seed", range(4))
def test_they_equal_their_loops(float64, seed):
    boxes, scores, valid, labels = crowd(seed)
    assert_allclose(SOFT(boxes, scores, valid, 0.5, labels), soft(boxes, scores, valid, labels, 0.5), rtol=1e-12)
    assert_array_equal(FAST(boxes, scores, valid, 0.4, labels), fast(boxes, scores, valid, labels, 0.4))
    assert_allclose(MATRIX(boxes, scores, valid, 2.0, labels), matrix(boxes, scores, valid, labels, 2.0), rtol=1e-12)


SOFT, FAST, MATRIX = (jax.jit(each, static_argnums=3) for each in (soft_nms, fast_nms, matrix_nms))


def test_without_labels_all_compete(float64):
    boxes, scores, valid, _ = crowd(9)
    alike = np.zeros(len(boxes), int)
    assert_array_equal(FAST(boxes, scores, valid, 0.4), fast(boxes, scores, valid, alike, 0.4))

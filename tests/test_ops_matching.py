"""Matching against loops in NumPy and against SciPy; sampling keeps its counts."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxvision.ops import matching
from jaxvision.ops.matching import BACKGROUND, IGNORED


def case(seed, objects=5, anchors=30):
    """Overlaps in steps of a tenth, so that ties abound, and which objects there are."""
    random = np.random.RandomState(seed)
    overlap = random.randint(0, 10, (objects, anchors)).astype(np.float32) / 10
    return overlap * (random.random_sample(overlap.shape) < 0.4), random.random_sample(objects) < 0.7


def looped(overlap, valid, high, low, low_quality):
    """Section 3.1.2 of the Faster R-CNN paper, anchor by anchor, with torchvision's rule for low quality."""
    found = []
    for anchor in range(overlap.shape[1]):
        rivals = [(overlap[g, anchor], -g) for g in np.flatnonzero(valid)]
        best, which = max(rivals, default=(-1.0, 0))
        match = BACKGROUND if best < low else IGNORED if best < high else -which
        if low_quality and any(overlap[g, anchor] == overlap[g].max() for g in np.flatnonzero(valid)):
            match = -which
        found.append(match)
    return found


@pytest.mark.parametrize("low_quality", [False, True])
def test_by_threshold_equals_the_loop(low_quality):
    match = jax.jit(lambda o, v: matching.by_threshold(o, v, high=0.7, low=0.3, low_quality=low_quality))
    for seed in range(20):
        overlap, valid = case(seed)
        expected = looped(overlap, valid, np.float32(0.7), np.float32(0.3), low_quality)
        np.testing.assert_array_equal(match(overlap, valid), expected)


def test_bipartite_gives_every_object_its_best_anchor():
    match = jax.jit(lambda o, v: matching.bipartite(o, v, threshold=0.5))
    for seed in range(20):
        overlap, valid = case(seed)
        expected = np.array(looped(overlap, valid, 0.5, 0.5, False))
        for g in np.flatnonzero(valid):
            expected[overlap[g].argmax()] = g
        np.testing.assert_array_equal(match(overlap, valid), expected)


@pytest.mark.parametrize("rule", ["threshold", "bipartite", "hungarian"])
def test_without_objects_all_is_background(rule):
    match = {
        "threshold": lambda overlap, none: matching.by_threshold(overlap, none, high=0.7, low=0.3, low_quality=True),
        "bipartite": lambda overlap, none: matching.bipartite(overlap, none, threshold=0.5),
        "hungarian": lambda overlap, none: matching.hungarian(overlap.T, none),
    }[rule]
    overlap = np.random.RandomState(0).random_sample((4, 9)).astype(np.float32)
    found = jax.jit(match)(overlap, np.zeros(4, bool))
    assert (np.asarray(found) == BACKGROUND).all()


def best_pairs(overlap, valid):
    """YOLACT's loop: the best pair of all, then the best of the objects and anchors that are left."""
    left, match = np.where(valid[:, None], overlap, -1.0), np.full(overlap.shape[1], BACKGROUND)
    for _ in range(int(valid.sum())):
        if left.max() < 0:
            break
        g = left.max(1).argmax()
        a = left[g].argmax()
        match[a] = g
        left[g], left[:, a] = -1, -1
    return match


@pytest.mark.parametrize("shape", [(5, 30), (6, 4), (1, 7)])
def test_greedy_takes_the_best_pairs_first(shape):
    match = jax.jit(matching.greedy)
    for seed in range(20):
        overlap, valid = case(seed, *shape)
        found = np.asarray(match(overlap, valid))
        np.testing.assert_array_equal(found, best_pairs(overlap, valid))
        assert (found >= 0).sum() == min(valid.sum(), shape[1])


@pytest.mark.parametrize(("predictions", "objects"), [(12, 7), (100, 100)])
def test_hungarian_costs_what_scipys_does(predictions, objects):
    match = jax.jit(matching.hungarian)
    for seed in range(10):
        random = np.random.RandomState(seed)
        cost = random.standard_normal((predictions, objects)).astype(np.float32)
        valid = random.random_sample(objects) < 0.6
        found = np.asarray(match(cost, valid))
        rows, columns = linear_sum_assignment(cost[:, valid])
        matched = np.flatnonzero(found >= 0)
        assert sorted(found[matched]) == np.flatnonzero(valid).tolist()
        assert cost[matched, found[matched]].sum() == pytest.approx(cost[:, valid][rows, columns].sum(), abs=1e-4)


def test_hungarian_of_more_objects_than_predictions_gives_the_first():
    cost, valid = (
        np.random.RandomState(0).standard_normal((3, 6)).astype(np.float32),
        np.array([0, 1, 1, 0, 1, 1], bool),
    )
    found = np.asarray(jax.jit(matching.hungarian)(cost, valid))
    assert sorted(found) == [1, 2, 4]


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"), [(3, 40, (3, 13)), (30, 40, (8, 8)), (30, 5, (8, 5)), (0, 40, (0, 16))]
)
def test_samples_hold_their_fraction(positives, negatives, expected):
    positive, negative = np.zeros(80, bool), np.zeros(80, bool)
    where = np.random.RandomState(0).permutation(80)
    positive[where[:positives]], negative[where[positives : positives + negatives]] = True, True
    draw = jax.jit(lambda key, *masks: matching.sample(key, *masks, count=16, positive_fraction=0.5))
    chosen = set()
    for seed in range(8):
        index, there = map(np.asarray, draw(jax.random.key(seed), positive, negative))
        taken = index[there]
        assert len(set(taken)) == len(taken)
        assert (positive[taken].sum(), negative[taken].sum()) == expected
        assert positive[taken][: expected[0]].all()
        chosen |= set(taken)
    assert len(chosen) > sum(expected)  # other ones every time


def test_fewer_candidates_than_rows_are_padded():
    draw = jax.jit(lambda key, *masks: matching.sample(key, *masks, count=6, positive_fraction=0.5))
    index, there = draw(jax.random.key(0), np.ones(3, bool), np.zeros(3, bool))
    assert index.shape == there.shape == (6,)
    assert there.sum() == 3

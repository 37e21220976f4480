"""Suppression against the textbook's loop: ties, duplicates, chains, padding, every threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops import nms as module
from jaxvision.ops.nms import nms

THRESHOLDS = (0.1, 0.3, 0.45, 0.5, 0.7, 0.9)


def overlap(a, c):
    width, height = min(a[2], c[2]) - max(a[0], c[0]), min(a[3], c[3]) - max(a[1], c[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (c[2] - c[0]) * (c[3] - c[1]) - shared
    return shared / union if union else 0.0


def greedy(boxes, scores, valid, threshold, labels):
    """The loop of the textbook, in float64."""
    kept = np.zeros(len(boxes), bool)
    for i in sorted(np.flatnonzero(valid), key=lambda i: -scores[i]):
        rivals = [j for j in np.flatnonzero(kept) if labels[i] == labels[j]]
        kept[i] = all(overlap(boxes[i], boxes[j]) <= threshold for j in rivals)
    return kept


def crowd(seed, n, kinds=1):
    """Boxes that overlap a lot, on whole pixels, with ties of score, duplicates, empty boxes and padding."""
    random = np.random.RandomState(seed)
    corner, side = random.randint(0, 30, (n, 2)), random.randint(0, 25, (n, 2))
    boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
    twins = random.randint(0, n, n // 4)
    boxes[random.permutation(n)[: len(twins)]] = boxes[twins]
    scores = random.randint(0, max(n // 2, 1), n).astype(np.float32)
    return boxes, scores, random.random_sample(n) < 0.8, random.randint(0, kinds, n)


JITTED = jax.jit(nms, static_argnums=3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(THRESHOLDS), st.sampled_from((1, 3)))
def test_keeps_what_the_loop_keeps(seed, threshold, kinds):
    boxes, scores, valid, labels = crowd(seed, 40, kinds)
    found = JITTED(boxes, scores, valid, threshold, labels)
    np.testing.assert_array_equal(found, greedy(boxes, scores, valid, threshold, labels))


@pytest.mark.parametrize("classes", [None, 2, 20])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_block_by_block_keeps_the_same(monkeypatch, threshold, classes):
    small = {False: module.Sizes(16, 8, 16), True: module.Sizes(16, 8, 8)}  # else all are settled at once
    monkeypatch.setattr(module, "SMALL_SIZES", small)
    monkeypatch.setattr(module, "SIZES", small)
    apart = classes is not None
    in_blocks = jax.jit(
        lambda boxes, scores, valid, labels: nms(boxes, scores, valid, threshold, labels if apart else None)
    )
    for seed in range(5):
        boxes, scores, valid, labels = crowd(seed, 75, classes or 1)
        expected = greedy(boxes, scores, valid, threshold, labels)
        np.testing.assert_array_equal(in_blocks(boxes, scores, valid, labels), expected)
        two = jax.vmap(in_blocks)(*(np.stack([each, each[::-1]]) for each in (boxes, scores, valid, labels)))
        np.testing.assert_array_equal(two[0], expected)


@pytest.mark.parametrize("classes", [None, 20])
@pytest.mark.parametrize("sizes", ["SIZES", "SMALL_SIZES"])
def test_the_blocks_of_every_backend_keep_the_same(monkeypatch, sizes, classes):
    monkeypatch.setattr(module, "SMALL_SIZES", getattr(module, sizes))
    boxes, scores, valid, labels = crowd(0, 1100, classes or 1)
    boxes += 40 * np.random.RandomState(1).randint(0, 20, (1100, 1))  # apart, so that many are kept
    found = jax.jit(nms, static_argnums=3)(boxes, scores, valid, 0.5, None if classes is None else labels)
    np.testing.assert_array_equal(found, greedy(boxes, scores, valid, 0.5, labels))


def test_a_chain_settles_one_by_one():
    n = 60  # each overlaps its neighbours only, so every second one is kept
    left = np.arange(n) * 5.0
    boxes = np.stack([left, np.zeros(n), left + 8, np.full(n, 4.0)], 1).astype(np.float32)
    found = JITTED(boxes, -np.arange(n, dtype=np.float32), np.ones(n, bool), 0.2)
    np.testing.assert_array_equal(found, np.arange(n) % 2 == 0)


def test_one_survives_of_equals_the_first():
    boxes = np.tile(np.float32([[0, 0, 9, 9]]), (5, 1))
    kept = JITTED(boxes, np.ones(5, np.float32), np.array([False, True, True, True, True]), 0.5)
    assert kept.tolist() == [False, True, False, False, False]


def test_nothing_valid_keeps_nothing():
    assert not np.any(JITTED(np.ones((5, 4), np.float32), np.ones(5, np.float32), np.zeros(5, bool), 0.5))


def test_images_of_a_batch_do_not_meet():
    batch = [crowd(seed, 40, 3) for seed in range(4)]
    stacked = [jnp.asarray(np.stack(each)) for each in zip(*batch, strict=True)]
    boxes, scores, valid, labels = stacked
    found = jax.jit(jax.vmap(lambda b, s, v, k: nms(b, s, v, 0.45, k)))(boxes, scores, valid, labels)
    for row, one in zip(found, batch, strict=True):
        np.testing.assert_array_equal(row, greedy(*one[:3], 0.45, one[3]))

"""SimOTA against loops in NumPy: equal, cell by cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.ops import simota

SIDE, STRIDES, CLASSES, ROWS = 64, (8, 16, 32), 4, 7


def cells():
    """Centres and strides of all cells of a canvas."""
    found = [
        ((x + 0.5) * stride, (y + 0.5) * stride, stride)
        for stride in STRIDES
        for y in range(SIDE // stride)
        for x in range(SIDE // stride)
    ]
    centres = np.array([each[:2] for each in found])
    return centres, np.array([[float(each[2])] for each in found])


def overlap_of(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def match_by_loops(cost, overlap, allowed):
    """What the authors' code does with the cells that are near any object."""
    objects, width = cost.shape
    takers = {cell: [] for cell in range(width)}
    for g in range(objects):
        candidates = [cell for cell in range(width) if allowed[g, cell]]
        if not candidates:
            continue
        best = sorted((overlap[g, cell] for cell in candidates), reverse=True)[:10]
        wanted = max(int(np.sum(best)), 1)
        for cell in sorted(candidates, key=lambda cell: (cost[g, cell], cell))[:wanted]:
            takers[cell].append(g)
    match = np.full(width, -1)
    for cell, rivals in takers.items():
        if len(rivals) == 1:
            match[cell] = rivals[0]
        elif rivals:
            real = [g for g in range(objects) if allowed[g, cell]]
            match[cell] = min(real, key=lambda g: (cost[g, cell], g))
    return match


def simota_by_loops(predicted, probability, centres, strides, boxes, labels, valid):
    near = np.zeros((len(boxes), len(predicted)), bool)
    for g, cell in np.ndindex(near.shape):
        middle = (boxes[g, :2] + boxes[g, 2:]) / 2
        near[g, cell] = valid[g] and (np.abs(centres[cell] - middle) < 1.5 * strides[cell, 0]).all()
    allowed = near.any(0) & valid[:, None]
    cost, overlap = np.zeros(near.shape), np.zeros(near.shape)
    for g, cell in zip(*np.nonzero(allowed), strict=True):
        overlap[g, cell] = overlap_of(boxes[g], predicted[cell])
        target = np.arange(CLASSES) == labels[g]
        by_class = -np.log(np.where(target, probability[cell], 1 - probability[cell])).sum()
        cost[g, cell] = by_class - 3 * np.log(overlap[g, cell] + 1e-8) + 1e6 * (not near[g, cell])
    return match_by_loops(cost, overlap, allowed)


def case(seed):
    """Predictions that mostly lie about the objects, and rows of objects of which some are real."""
    random = np.random.default_rng(seed)
    centres, strides = cells()
    middle = random.uniform(0, SIDE, (ROWS, 2))
    side = np.exp(random.uniform(np.log(2), np.log(60), (ROWS, 2)))
    boxes = np.concatenate([middle - side / 2, middle + side / 2], 1)
    labels = random.integers(0, CLASSES, ROWS).astype(np.int32)
    valid = random.random(ROWS) < random.choice([0.0, 0.3, 0.9])
    if seed % 3 == 0:
        boxes[3], labels[3], valid[[2, 3]] = boxes[2], labels[2], True  # the same object twice
    if seed % 4 == 1:
        boxes[5] += 500  # far from all cells
    near = boxes[random.integers(0, ROWS, len(centres))] + random.normal(0, 1.5, (len(centres), 4))
    loose = centres + random.normal(0, 4, centres.shape)
    loose = np.concatenate([loose - strides, loose + strides * random.uniform(0.2, 2, (len(centres), 2))], 1)
    predicted = np.where(random.random((len(centres), 1)) < 0.7, near, loose)
    predicted[:, 2:] = np.maximum(predicted[:, 2:], predicted[:, :2] + 0.5)
    probability = random.uniform(0.001, 0.999, (len(centres), CLASSES))
    return predicted, probability, centres, strides, boxes, labels, valid


def test_the_match_equals_loops(float64):
    match = jax.jit(simota.simota)
    shares, claimed = [], 0
    for seed in range(60):
        predicted, probability, *rest = case(seed)
        expected = simota_by_loops(predicted, probability, *rest)
        found = match(jnp.asarray(predicted), jnp.log(probability), *map(jnp.asarray, rest))
        assert_array_equal(found, expected)
        valid = rest[-1]
        shares.append((expected >= 0).sum() / max(valid.sum(), 1))
        claimed += len(set(expected[expected >= 0]))
    assert max(shares) > 3  # more than one cell an object
    assert claimed > 60
    assert min(shares) == 0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_of_equal_costs_the_first_cell_and_the_first_object_win(data):
    """Few different costs, and overlaps whose sums are exact."""
    objects, width = 4, 14
    numbers = lambda low, high: st.lists(st.integers(low, high), min_size=objects * width, max_size=objects * width)
    shaped = lambda drawn: np.array(drawn, np.float32).reshape(objects, width)
    cost, overlap = shaped(data.draw(numbers(0, 3))), shaped(data.draw(numbers(0, 4))) / 4
    some, valid = (data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) for n in (width, objects))
    allowed = np.array(valid)[:, None] & np.array(some)[None]
    assert_array_equal(jitted(cost, overlap, allowed), match_by_loops(cost, overlap, allowed))


jitted = jax.jit(simota.dynamic_k)


def test_an_object_takes_all_its_cells_where_there_are_fewer_than_ten():
    """Three cells with overlaps that add up to 2.6: the two that cost least."""
    match = jitted(np.float32([[3, 1, 2]]), np.float32([[0.9, 0.8, 0.9]]), np.ones((1, 3), bool))
    assert_array_equal(match, [-1, 0, 0])


def test_the_nearest_cells_are_within_one_and_a_half_cells_on_both_axes(float64):
    """One object in the middle of a cell of stride 8, the predictions of all cells alike."""
    centres, strides = cells()
    box = np.array([[20.0, 20.0, 36.0, 36.0]])
    predicted = np.tile(box, (len(centres), 1))
    probability = np.full((len(centres), CLASSES), -1.0)
    objects = box, np.zeros(1, np.int32), np.ones(1, bool)
    match = jax.jit(simota.simota)(predicted, probability, centres, strides, *objects)
    found = {(*centres[i], strides[i, 0]) for i in np.flatnonzero(np.asarray(match) == 0)}
    eights = {(x, y, 8.0) for x in (20.0, 28.0, 36.0) for y in (20.0, 28.0, 36.0)}
    assert eights < found
    assert len(found) == 10  # ten overlaps of 1, and the first ten cells of equal cost


@pytest.mark.parametrize("logit", [-800.0, -3.0, 0.0, 2.0, 800.0])
def test_class_costs_are_pytorchs_cross_entropy(logit):
    """Logarithms are cut at -100 there."""
    logits = np.array([[logit, -1.0, 0.5]])
    with np.errstate(over="ignore", divide="ignore"):
        p = 1 / (1 + np.exp(-logits))
        cut = lambda x: np.maximum(np.log(x), -100)
        each = lambda label: -(cut(p[0, label]) + sum(cut(1 - p[0, c]) for c in range(3) if c != label))
        expected = [[each(0)], [each(2)]]
    log_probability = jax.nn.log_sigmoid(jnp.asarray(logits, jnp.float32))
    assert_allclose(simota.class_cost(log_probability, jnp.asarray([0, 2])), expected, rtol=2e-5)

"""Connected parts of a map of classes as objects: maps whose parts are known, measured against annotated ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision.data.source import Example, annotations
from jaxvision.masks import runs
from jaxvision.metrics.components import components, parts_of
from jaxvision.types import Batch, PixelScores

SIDE = 40
CLASSES = ("disc", "bar")


class Truth(NamedTuple):
    """A source, as far as metrics know it."""

    read: object


def masks():
    """Two discs that touch each other by a corner of their pixels alone, and a bar."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    disc = lambda cx, cy, r: (x - cx) ** 2 + (y - cy) ** 2 <= r**2
    return [disc(10, 10, 6), disc(28, 12, 5), (y > 25) & (y < 34) & (x > 4) & (x < 30)], [0, 0, 1]


def read(indices):
    found, labels = masks()
    boxes = [runs.box(runs.encode(mask)) for mask in found]
    objects = annotations(np.stack(boxes), labels, area=[mask.sum() for mask in found])
    example = Example(np.zeros((SIDE, SIDE, 3), np.uint8), objects=objects._replace(masks=np.stack(found)))
    return [example for _ in indices]


def scores(maps, shrink=1):
    """Scores of which the largest is that of the map, on a map that is smaller by a factor."""
    small = jax.nn.one_hot(jnp.asarray(maps)[:, ::shrink, ::shrink], 3) * 4.0
    return PixelScores(small)


def batch(count):
    size = jnp.full((count, 2), SIDE, jnp.int32)
    index = jnp.arange(count, dtype=jnp.int32)
    return Batch(jnp.zeros((count, SIDE, SIDE, 3), jnp.uint8), size, size, index, index >= 0)


def rows_of(metric, maps):
    return metric.condense(jax.device_get(dict(jax.jit(metric.observe)(scores(maps), batch(len(maps))))))


def exact():
    found, labels = masks()
    return sum((mask * (label + 1) for mask, label in zip(found, labels, strict=True)), np.zeros((SIDE, SIDE), int))


def test_a_map_without_faults_finds_all():
    metric = components(CLASSES, lambda: Truth(read))
    found = metric.compute(rows_of(metric, np.stack([exact(), exact()])))
    assert found["mask_AP"] == found["AP"] == found["mask_AP/bar"] == 1
    assert found["recall"] == 1


def test_what_is_missed_split_and_invented():
    """One disc is missed, the bar cut in two parts, of which one is half of it, and a spot invented."""
    map = exact()
    map[masks()[0][1]] = 0
    map[:, 15:17] = 0
    map[36:38, 36:38] = 1
    metric = components(CLASSES, lambda: Truth(read), smallest=1)
    rows = rows_of(metric, map[None])
    assert rows["detected"].sum() == 4
    assert metric.compute(rows)["recall"] == pytest.approx(2 / 3)
    larger = components(CLASSES, lambda: Truth(read), smallest=5)
    assert rows_of(larger, map[None])["detected"].sum() == 3


def test_parts_hang_together_by_sides_and_have_their_mean_probability():
    labels = np.zeros((5, 6), int)
    labels[0, 0] = labels[1, 1] = labels[1, 2] = 1
    labels[3, 2:6] = 2
    probability = np.linspace(0, 1, 30).reshape(5, 6)
    found = list(parts_of(labels, lambda label: probability))
    assert [each.label for each in found] == [0, 0, 1]
    assert [each.box for each in found] == [(0, 0, 1, 1), (1, 1, 3, 2), (2, 3, 6, 4)]
    assert [each.score for each in found] == pytest.approx([0, probability[1, 1:3].mean(), probability[3, 2:].mean()])
    for each, mask in zip(found, (labels == 1, labels == 1, labels == 2), strict=True):
        decoded = runs.decode(each.mask)
        assert decoded.sum() == (each.box[2] - each.box[0]) * (each.box[3] - each.box[1])
        assert not (decoded & ~mask).any()
    assert_array_equal(runs.decode(found[2].mask), labels == 2)


def test_the_best_are_kept_and_no_part_is_none():
    metric = components(CLASSES, lambda: Truth(read), most=2)
    rows = rows_of(metric, np.stack([exact(), np.zeros_like(exact())]))
    assert rows["detected"].tolist() == [[True, True], [False, False]]
    assert np.isfinite(metric.compute(rows)["mask_AP"])


def test_scores_of_other_classes_are_refused():
    metric = components(CLASSES[:1], lambda: Truth(read))
    with pytest.raises(ValueError, match="scores are of 3 classes, not of the background and 1 class of objects"):
        metric.observe(scores(exact()[None]), batch(1))

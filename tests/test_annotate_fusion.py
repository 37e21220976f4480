"""Weighted boxes fusion, by hand, and against the authors' package: python -m pytest -m parity tests/test_annotate_fusion.py

That needs `ensemble-boxes`, which is in the extra `parity`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.annotate.fusion import Found, Member, fuse
from jaxvision.errors import ConfigError


def lists(seed, count, objects, labels=3):
    """Lists of boxes around the same places, some left out, with scores that are all different."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.6, (objects, 2))
    places = np.concatenate([low, low + rng.uniform(0.1, 0.4, (objects, 2))], 1)
    found = []
    for _ in range(count):
        kept = rng.random(objects) < 0.8
        boxes = np.clip(places[kept] + rng.normal(0, 0.02, (kept.sum(), 4)), 0, 1)
        found.append(Found(boxes, rng.random(len(boxes)), rng.integers(0, labels, len(boxes))))
    return found


@pytest.mark.parity
@pytest.mark.parametrize("confidence", ["avg", "max"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_published_code(confidence, weighted):
    import ensemble_boxes as published

    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = lists(seed, count=1 + seed % 4, objects=int(rng.integers(0, 25)))
        weights = rng.uniform(0.5, 3, len(found)).tolist() if weighted else None
        options = {
            "weights": weights,
            "iou_threshold": rng.uniform(0.3, 0.7),
            "skip_box_threshold": rng.uniform(0, 0.3),
        }
        ours = fuse(found, confidence=confidence, **options)
        boxes, scores, labels = published.weighted_boxes_fusion(
            *([each[column].tolist() for each in found] for column in range(3)),
            weights=weights,
            iou_thr=options["iou_threshold"],
            skip_box_thr=options["skip_box_threshold"],
            conf_type=confidence,
        )
        assert [each.label for each in ours] == labels.tolist()
        np.testing.assert_allclose([each.score for each in ours], scores, atol=1e-6)
        np.testing.assert_allclose(np.array([each.box for each in ours]).reshape(-1, 4), boxes, atol=1e-6)


def test_two_of_three_lists_have_it():
    one = Found(np.array([[0.0, 0, 10, 10]]), np.array([0.9]), np.array([4]))
    other = Found(np.array([[2.0, 0, 12, 10], [50, 50, 60, 60]]), np.array([0.3, 0.6]), np.array([4, 4]))
    none = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    first, second = fuse([one, other, none])
    assert first.box == pytest.approx([0.5, 0, 10.5, 10])  # 0.9 and 0.3: a quarter of the way
    assert first.score == pytest.approx((0.9 + 0.3) / 3)
    assert first.members == (Member(0, 0), Member(1, 0))
    assert second.score == pytest.approx(0.6 / 3)
    assert second.members == (Member(1, 1),)


def test_objects_of_other_labels_stay_apart():
    box = np.array([[0.0, 0, 10, 10]])
    found = fuse([Found(box, np.array([0.9]), np.array([label])) for label in (0, 1)])
    assert [each.label for each in found] == [0, 1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 15))
def test_each_object_is_in_one(seed, count, objects):
    found = lists(seed, count, objects)
    members = sorted(member for each in fuse(found) for member in each.members)
    assert members == [(number, row) for number, each in enumerate(found) for row in range(len(each.scores))]
    assert all(0 <= each.score <= 1 for each in fuse(found))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_are_one_positive_number_a_list(weights):
    with pytest.raises(ConfigError, match="2 positive numbers"):
        fuse(lists(0, 2, 3), weights=weights)

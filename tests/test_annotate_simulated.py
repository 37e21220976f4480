"""The simulated annotators: mistakes as they are told, and corrections counted by hand."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.annotate import agreement, simulated
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.simulated import Mistake
from jaxvision.annotate.store import Store
from jaxvision.formats.labelled import LabelledImage, LabelledObject
from jaxvision.masks.runs import encode

CLASSES = ("cat", "cup", "tie")


def thing(label, *box, **more):
    return LabelledObject(label, tuple(map(float, box)), **more)


def images(count, seed=0, each=4):
    rng = np.random.default_rng(seed)
    for number in range(count):
        low, sides = rng.uniform(0, 60, (each, 2)), rng.uniform(8, 40, (each, 2))
        objects = [
            thing(CLASSES[rng.integers(3)], *corner, *(corner + side)) for corner, side in zip(low, sides, strict=True)
        ]
        yield LabelledImage(f"{number}.png", (100, 100), tuple(objects))


def iou_of(a, b):
    """Pixel by pixel, of corners that are whole numbers."""
    first, second = np.zeros((2, 40, 40), bool)
    for mask, box in ((first, a), (second, b)):
        mask[box[1] : box[3], box[0] : box[2]] = True
    return (first & second).sum() / max((first | second).sum(), 1)


def test_iou_is_that_of_pixels():
    corners = np.random.default_rng(0).integers(0, 40, (2, 12, 4))
    corners = np.concatenate([corners[..., :2], np.maximum(corners[..., :2], corners[..., 2:])], -1)
    expected = [[iou_of(a, b) for b in corners[1]] for a in corners[0]]
    np.testing.assert_allclose(agreement.iou(*corners.astype(float)), expected)


def test_masks_decide_where_both_have_one():
    ring = np.zeros((20, 20), bool)
    ring[2:18, 2:18] = True
    hole = ring.copy()
    hole[6:14, 6:14] = False
    box = thing("cup", 2, 2, 18, 18)
    solid, hollow = box._replace(segmentation=encode(ring)), box._replace(segmentation=encode(hole))
    square = box._replace(segmentation=((2.0, 2.0, 18.0, 2.0, 18.0, 18.0, 2.0, 18.0),))
    found = agreement.overlap([solid, box], [hollow, square, box], (20, 20))
    np.testing.assert_allclose(found, [[hole.sum() / ring.sum(), 1, 1], [1, 1, 1]])


def test_of_a_crowd_the_part_that_it_covers_counts():
    crowd = thing("cup", 0, 0, 40, 40, crowd=True)
    found = agreement.overlap([thing("cup", 10, 10, 20, 20), thing("cup", 30, 30, 50, 50)], [crowd], (60, 60))
    np.testing.assert_allclose(found[:, 0], [1, 0.25])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1000))
def test_pairs_are_the_best_assignment(rows, columns, seed):
    rng = np.random.default_rng(seed)
    a, b = (
        [thing(CLASSES[rng.integers(3)], *(low := rng.integers(0, 6, 2)), *(low + 4)) for _ in range(n)]
        for n in (rows, columns)
    )
    table = agreement.iou(agreement.boxes_of(a), agreement.boxes_of(b))

    def worth(chosen):
        return sum(table[r, c] + 1e-3 * (a[r].label == b[c].label) for r, c in chosen if table[r, c] > 0.3)

    small, large, turned = (rows, columns, False) if rows <= columns else (columns, rows, True)
    best = max(
        worth((c, r) if turned else (r, c) for r, c in enumerate(order))
        for order in itertools.permutations(range(large), small)
    )
    found = agreement.pairs(a, b, 0.3)
    assert worth((r, c) for r, c, _ in found) == pytest.approx(best)
    assert all(iou > 0.3 for _, _, iou in found)


def test_mistakes_are_as_many_as_asked_for_a_third_each_and_told():
    truth = list(images(50))
    found = simulated.spoilt(truth, CLASSES, 0.06, seed=1)
    ways = Counter(way for each in found for way, _ in each.mistakes)
    assert ways == dict.fromkeys(Mistake, 4)
    for before, after in zip(truth, found, strict=True):
        spoilt = {row: way for way, row in after.mistakes}
        left = iter(after.image.objects)
        for row, each in enumerate(before.objects):
            way = spoilt.get(row)
            if way is Mistake.MISSING:
                continue
            now = next(left)
            if way is None:
                assert now == each
            elif way is Mistake.MISNAMED:
                assert now.label in set(CLASSES) - {each.label}
                assert now.box == each.box
            else:
                [[iou]] = agreement.iou(np.array([now.box]), np.array([each.box]))
                assert 0.1 <= iou <= 0.7
                assert min(now.box) >= 0
                assert max(now.box) <= 100
                assert now.label == each.label
        assert next(left, None) is None
    assert found == simulated.spoilt(truth, CLASSES, 0.06, seed=1)
    assert found != simulated.spoilt(truth, CLASSES, 0.06, seed=2)


def test_boxes_that_no_box_is_near_enough_to_are_left_alone():
    flat, outside, far = (5.0, 5.0, 5.0, 9.0), (120.0, 5.0, 130.0, 9.0), (-99.0, 20.0, 1.0, 60.0)
    beyond, whole = (-49.0, 20.0, 51.0, 60.0), (0.0, 0.0, 100.0, 100.0)
    objects = tuple(LabelledObject("cat", box) for box in (flat, outside, far, beyond, whole) * 6)
    for seed in range(5):
        [found] = simulated.spoilt([LabelledImage("a.png", (100, 100), objects)], CLASSES, 1.0, seed)
        assert sorted(row for _, row in found.mistakes) == [row for row in range(30) if row % 5 > 2]
        assert Counter(way for way, _ in found.mistakes) == dict.fromkeys(Mistake, 4)


def test_what_can_not_be_spoilt_is_refused():
    with pytest.raises(ValueError, match=r"spoilt\(fraction=1.5\), 3 classes: allowed"):
        simulated.spoilt([], CLASSES, 1.5, 0)
    with pytest.raises(ValueError, match="two classes"):
        simulated.spoilt([], ("cat",), 0.5, 0)


TRUTH = [thing("cat", 0, 0, 10, 10), thing("cup", 20, 20, 40, 40)]


@pytest.mark.parametrize(
    ("found", "actions"),
    [
        (TRUTH, []),
        ([TRUTH[1]._replace(score=0.9), TRUTH[0]], []),
        ([], ["add", "add"]),
        ([TRUTH[0]], ["add"]),
        ([*TRUTH, thing("tie", 60, 60, 70, 70)], ["delete"]),
        ([*TRUTH, TRUTH[0]], ["delete"]),
        ([TRUTH[0]._replace(label="tie"), TRUTH[1]], ["rename"]),
        ([TRUTH[0], thing("cup", 20, 20, 40, 36)], ["move"]),
        ([TRUTH[0], thing("cup", 20, 20, 40, 39)], []),
        ([TRUTH[0], thing("tie", 20, 20, 40, 36)], ["rename", "move"]),
        ([TRUTH[0], thing("cup", 30, 30, 50, 50)], ["delete", "add"]),
        ([TRUTH[0]._replace(label="tie"), TRUTH[0], TRUTH[1]], ["delete"]),
    ],
)
def test_a_reviewer_does_what_is_needed(found, actions):
    assert [change.action for change in simulated.review(found, TRUTH)] == actions


def test_corrections_are_counted_per_hundred_objects():
    pairs = [(TRUTH, TRUTH), ([], TRUTH), ([TRUTH[0]._replace(label="tie")], TRUTH[:1])]
    found = simulated.effort((simulated.review(*pair), pair[1]) for pair in pairs)
    assert found.actions == {"add": 2, "rename": 1}
    assert found.objects == 5
    assert found.per_hundred == pytest.approx(60)
    assert np.isnan(simulated.effort([([], [])]).per_hundred)


def test_a_review_in_the_store_makes_the_record_the_truth_and_costs_what_it_says(tmp_path):
    truth = list(images(12, seed=7))
    spoilt = simulated.spoilt(truth, CLASSES, 0.4, seed=7)
    source = Source("model", "0")
    with Store(tmp_path / "a.sqlite", create=True) as store:
        reviews = []
        for each, right in zip(spoilt, truth, strict=True):
            guesses = tuple(
                Annotation(0, one.label, one.box, score=0.7, sources=(source,)) for one in each.image.objects
            )
            store.put(ImageRecord(right.name, "0" * 64, right.size, guesses), who="model")
            record = store.get(right.name)
            made = simulated.changes(record, right.objects)
            store.apply_all([(record.name, change, record.version) for change in made], "human:a")
            reviews.append((made, right.objects))
            after = store.get(right.name)
            kept = [one for one in after.objects if one.verdict != "rejected"]
            assert sorted((one.label, one.box) for one in kept) == sorted((one.label, one.box) for one in right.objects)
            assert after.state == "reviewed"
            assert simulated.effort([(simulated.changes(after, right.objects), right.objects)]).actions.total() == 0
        mistakes = Counter(way for each in spoilt for way, _ in each.mistakes)
        found = simulated.effort(reviews)
        assert found.actions["rename"] >= mistakes[Mistake.MISNAMED] - 2
        assert found.actions.total() >= sum(mistakes.values())
        assert found.objects == 48


def test_a_spoilt_image_takes_one_correction_a_mistake_or_two_where_it_was_moved_far():
    truth = list(images(40, each=1))
    found = simulated.spoilt(truth, CLASSES, 0.5, seed=3)
    for each, before in zip(found, truth, strict=True):
        names = [change.action for change in simulated.review(each.image.objects, before.objects)]
        allowed = {
            Mistake.MISSING: [["add"]],
            Mistake.MISNAMED: [["rename"]],
            Mistake.MISPLACED: [["move"], ["delete", "add"]],
        }
        assert names in (allowed[each.mistakes[0][0]] if each.mistakes else [[]])

"""Order of review."""

import math
import time

import numpy as np
import pytest

from jaxvision.annotate import findings, order
from jaxvision.annotate.changes import Change, changed
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.rows import Row

BOX = (0.0, 0.0, 10.0, 10.0)
ASIDE = (50.0, 50.0, 60.0, 60.0)


def record(name, *objects, **more):
    numbered = tuple(each._replace(id=n) for n, each in enumerate(objects, 1))
    return ImageRecord(name, "", (100, 100), numbered, **more)


def guess(probability, box=BOX, **more):
    return Annotation(0, "a", box, probability=probability, **more)


def test_the_least_probable_comes_first_and_a_second_box_of_an_object_before():
    found = order.objects([record("b", guess(0.9), guess(0.6, ASIDE)), record("a", guess(0.8), guess(0.7))])
    assert [(place.name, place.id) for place in found] == [("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert [round(place.doubt, 6) for place in found[1:]] == [0.4, 0.2, 0.1]


def test_without_a_calibration_the_score_counts():
    objects = [guess(None, ASIDE, score=0.2), guess(None), guess(0.3, (20.0, 0.0, 30.0, 10.0), score=0.9)]
    assert order.doubts(objects) == pytest.approx([0.8, 0.5, 0.7])


def test_of_equal_ones_the_first_is_the_surer():
    first, second = order.doubts([guess(0.5), guess(0.5)])
    assert first == pytest.approx(0.5)
    assert second > first


def random_guesses(count, seed=0):
    rng = np.random.default_rng(seed)
    corners, sides = rng.uniform(0, 300, (count, 2)), rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + sides], 1).tolist()
    return [guess(round(float(rng.random()), 1), tuple(box)) for box in boxes]  # some are equally sure


@pytest.mark.parametrize("count", [0, 1, 40, 600])
def test_doubts_are_those_of_a_plain_loop(count):
    guesses, expected = random_guesses(count), []
    for place, each in enumerate(guesses):
        surer = [other for n, other in enumerate(guesses) if (-other.probability, n) < (-each.probability, place)]
        covered = max((findings.iou(each.box, other.box) for other in surer), default=0.0)
        right = min(max(each.probability, order.CLOSEST), 1 - order.CLOSEST)
        expected.append(1 / (1 + math.exp(math.log(right / (1 - right)) - order.CROWDED * covered)))
    assert order.doubts(guesses) == pytest.approx(expected, abs=1e-12)


def test_an_image_of_thousands_of_guesses_is_doubted_in_a_moment():
    guesses, before = random_guesses(3000), time.process_time()
    order.doubts(guesses)
    assert time.process_time() - before < 3  # seconds; 13 where each pair is looked at alone


def test_what_was_decided_is_not_shown():
    decided = [guess(0.1, human=True, verdict="accepted"), guess(0.1, verdict="rejected")]
    assert order.objects([record("a", *decided), record("b", guess(0.5), state="reviewed")]) == []
    assert order.images([record("a", *decided), record("b", guess(0.5), state="reviewed"), record("c")]) == []


@pytest.mark.parametrize("change", [Change("note", 1, "a cup?"), Change("attribute", 1, ("colour", "red"))])
def test_who_notes_something_has_not_decided(change):
    before = record("a", guess(0.3), guess(0.6, ASIDE))
    after = changed(Row(before, 3), change).record
    assert after.objects[0].human
    assert not after.objects[0].decided
    assert order.objects([after]) == order.objects([before])
    assert changed(Row(after, 3), Change("accept", 1)).record.objects[0].decided


def test_images_with_the_most_expected_errors_come_first():
    found = order.images([record("a", guess(0.9)), record("b", guess(0.6), guess(0.7, ASIDE)), record("c", guess(0.4))])
    assert [name for name, _ in found] == ["b", "c", "a"]
    assert [count for _, count in found] == pytest.approx([0.7, 0.6, 0.1])


def test_the_first_fifth_holds_most_of_what_is_wrong():
    rng = np.random.default_rng(0)
    records, wrong = [], {}
    for number in range(150):
        objects, right = [], []
        for place in range(4):
            probability = float(rng.beta(6, 1))
            box = (20.0 * place, 0.0, 20.0 * place + 10, 10.0)
            objects.append(guess(probability, box))
            right.append(rng.random() < probability)
            if rng.random() < 0.1:
                objects.append(guess(min(probability, 0.9), (box[0] + 1, 0.0, box[2], 10.0)))
                right.append(False)
        records.append(record(f"{number:03}", *objects))
        wrong |= {(f"{number:03}", n): not each for n, each in enumerate(right, 1)}
    shown = order.objects(records)
    first = shown[: len(shown) // 5]
    assert sum(wrong[place.name, place.id] for place in first) >= 0.5 * sum(wrong.values())

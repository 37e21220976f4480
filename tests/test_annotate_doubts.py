"""Doubts about annotations: each kind by hand, laws of the scores, and how well simulated mistakes are found."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from jaxvision.annotate import doubts, simulated
from jaxvision.annotate.doubts import DoubtKind
from jaxvision.formats.labelled import LabelledImage, LabelledObject
from jaxvision.masks.runs import encode

CLASSES = ("cat", "cup", "tie")
SIZE = (100, 100)


def thing(label, *box, score=None, **more):
    return LabelledObject(label, tuple(map(float, box)), score=score, **more)


CAT, CUP = thing("cat", 10, 10, 30, 30), thing("cup", 50, 50, 90, 90)
RIGHT = (CAT._replace(score=0.9), CUP._replace(score=0.95))


def found_in(*objects, predictions=RIGHT):
    return doubts.doubts_of(LabelledImage("a.png", SIZE, objects), predictions)


def test_what_agrees_is_hardly_doubted():
    assert max(each.score for each in found_in(CAT, CUP)) <= 0.1
    assert found_in(predictions=()) == []
    assert doubts.suspicion(found_in(CAT, CUP)) <= 0.1
    assert doubts.suspicion([]) == 0


def test_a_confident_prediction_without_an_annotation_is_a_missing_object():
    first = found_in(CUP)[0]
    assert (first.kind, first.object, first.annotated, first.predicted) == (DoubtKind.MISSING, None, None, RIGHT[0])
    assert first.score == pytest.approx(0.9)
    beside = thing("cup", 11, 11, 30, 30, score=0.5)
    again = [each for each in found_in(CUP, predictions=(*RIGHT, beside)) if each.kind is DoubtKind.MISSING]
    assert len(again) == len([each for each in found_in(CUP) if each.kind is DoubtKind.MISSING])


def test_another_class_at_the_same_place_is_a_misnamed_object():
    first = found_in(CAT, CUP._replace(label="tie"))[0]
    assert (first.kind, first.object, first.predicted) == (DoubtKind.MISNAMED, 1, RIGHT[1])
    assert first.iou == pytest.approx(1)
    assert first.score == pytest.approx(0.95)


def test_a_box_beside_the_prediction_of_its_class_is_misplaced():
    moved = thing("cup", 60, 60, 100, 100)
    first = found_in(CAT, moved)[0]
    assert (first.kind, first.object, first.annotated, first.predicted) == (DoubtKind.MISPLACED, 1, moved, RIGHT[1])
    assert first.iou == pytest.approx(900 / (1600 + 1600 - 900))
    assert first.score > 0.9


def test_an_annotation_where_nothing_is_predicted_may_be_spurious():
    first = found_in(CAT, CUP, thing("tie", 70, 5, 90, 25))[0]
    assert (first.kind, first.object, first.predicted, first.iou) == (DoubtKind.SPURIOUS, 2, None, None)


def test_the_more_a_box_is_moved_the_more_it_is_doubted_and_neighbours_of_one_class_are_not():
    scores = [found_in(CAT, thing("cup", 50 + d, 50, 90 + d, 90))[0].score for d in (4, 8, 12, 16, 20)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 0.5
    neighbour = thing("cup", 30, 50, 70, 90)
    pair = found_in(CUP, neighbour, predictions=(RIGHT[1], neighbour._replace(score=0.9)))
    assert doubts.suspicion(pair) <= 0.1


def test_crowds_and_difficult_objects_are_not_doubted_and_explain_what_lies_on_them():
    assert found_in(CAT, thing("cup", 40, 40, 100, 100, crowd=True), predictions=RIGHT)[0].score <= 0.1
    assert found_in(CAT, CUP._replace(label="tie", difficult=True))[0].score <= 0.1


def test_probabilities_take_the_place_of_scores():
    unsure = RIGHT[0]._replace(attributes={"probability": 0.2})
    assert found_in(CUP, predictions=(unsure, RIGHT[1]))[0].score == pytest.approx(0.2)
    assert doubts.confidence(CAT) == 1


def test_masks_of_one_box_are_told_apart():
    left, right = np.zeros((2, 100, 100), bool)
    left[50:90, 50:62], right[50:90, 62:90] = True, True
    left[50, 50:90] = right[89, 50:90] = True
    annotated, other = CUP._replace(segmentation=encode(left)), RIGHT[1]._replace(segmentation=encode(right))
    assert doubts.suspicion(found_in(annotated, predictions=(RIGHT[1],))) <= 0.1
    first = found_in(annotated, predictions=(other,))[0]
    assert first.score > 0.4
    same = found_in(annotated, predictions=(RIGHT[1]._replace(segmentation=encode(left)),))
    assert doubts.suspicion(same) <= 0.1


BOXES = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(5, 40)] * 2)


@st.composite
def objects(draw, scored):
    listed = draw(st.lists(st.tuples(st.sampled_from(CLASSES), BOXES, st.floats(0.01, 1)), max_size=5))
    return tuple(thing(k, x, y, x + w, y + h, score=p if scored else None) for k, (x, y, w, h), p in listed)


@settings(max_examples=30, deadline=None)
@given(objects(False), objects(True), st.randoms(use_true_random=False))
def test_scores_are_in_0_to_1_one_an_annotation_and_depend_on_no_order(annotated, found, shuffle):
    told = doubts.doubts_of(LabelledImage("a", SIZE, annotated), found)
    assert all(0 < each.score <= 1 for each in told)
    assert [each.score for each in told] == sorted((each.score for each in told), reverse=True)
    named = [each.object for each in told if each.object is not None]
    assert len(set(named)) == len(named)
    assert all(annotated[each.object] == each.annotated for each in told if each.object is not None)
    order = list(annotated)
    shuffle.shuffle(order)
    again = doubts.doubts_of(LabelledImage("a", SIZE, tuple(order)), found)
    assert [each.score for each in told] == pytest.approx([each.score for each in again])


def simulation(seed, count=300, fraction=0.05):
    """Images, and what a middling detector finds in them: it misses, confuses, shifts, makes up, and is unsure of it."""
    rng = np.random.default_rng(seed)
    truth, predictions = [], {}
    for number in range(count):
        real, found = [], []
        for _ in range(rng.integers(1, 7)):
            sides = rng.uniform(10, 40, 2)
            low = rng.uniform(0, 100 - sides)
            each = thing(CLASSES[rng.integers(3)], *low, *(low + sides))
            real.append(each)
            if rng.random() < 0.92:
                corners = np.asarray(each.box) + rng.normal(0, 0.05, 4) * np.tile(sides, 2)
                wrong = rng.random() < 0.08
                label = CLASSES[rng.integers(3)] if wrong else each.label
                found.append(thing(label, *corners, score=rng.beta(2, 2) if wrong else rng.beta(6, 1.5)))
        for _ in range(rng.poisson(0.5)):
            low = rng.uniform(0, 70, 2)
            found.append(thing(CLASSES[rng.integers(3)], *low, *(low + 20), score=rng.beta(1.5, 4)))
        truth.append(LabelledImage(f"{number}.png", SIZE, tuple(real)))
        predictions[f"{number}.png"] = tuple(found)
    return simulated.spoilt(truth, CLASSES, fraction, seed), predictions


def measured(spoilt, predictions):
    """AUROC by image, and the part of the faulty images among the first 20 %."""
    faulty = np.array([bool(each.mistakes) for each in spoilt])
    scores = np.array([doubts.suspicion(doubts.doubts_of(e.image, predictions[e.image.name])) for e in spoilt])
    first = np.argsort(-scores, kind="stable")[: len(faulty) // 5]
    return roc_auc_score(faulty, scores), faulty[first].sum() / faulty.sum()


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (7, 5), (3, 0)])
def test_the_best_of_the_others_is_that_without_the_row(shape):
    values = np.random.default_rng(0).integers(0, 4, shape).astype(float)
    found = doubts.of_others(values)
    assert found.shape == shape
    for row in range(len(values)):
        assert found[row].tolist() == np.delete(values, row, 0).max(0, initial=0).tolist()


def test_simulated_mistakes_come_first():
    found = [measured(*simulation(seed)) for seed in range(2)]
    assert np.mean([auroc for auroc, _ in found]) >= 0.85
    assert np.mean([first for _, first in found]) >= 0.65


def test_the_object_that_was_spoilt_is_the_one_that_is_doubted():
    spoilt, predictions = simulation(5, count=300)
    told = doubts.ranked([each.image for each in spoilt], predictions)[:60]
    names = {each.image.name: each for each in spoilt}
    right = [each.kind.value in {way.value for way, _ in names[each.image].mistakes} for each in told[:30]]
    assert np.mean(right) >= 0.6


def test_ranks_of_an_image_do_not_depend_on_its_company():
    spoilt, predictions = simulation(1, count=60)
    images = [each.image for each in spoilt]
    random.Random(0).shuffle(images)
    alone = {image.name: doubts.ranked([image], predictions) for image in images}
    together = doubts.ranked(images, predictions)
    for name, told in alone.items():
        assert [each for each in together if each.image == name] == told
    half = doubts.ranked(images[:30], predictions)
    names = {image.name for image in images[:30]}
    assert half == [each for each in together if each.image in names]
    assert doubts.ranked(images, {}) == []

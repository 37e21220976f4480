"""Records as a dataset to export, and as a source to train on."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxvision.annotate.exchange import dataset, exchange
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.source import source
from jaxvision.annotate.store import Change, Store
from jaxvision.data import order, placement, target
from jaxvision.data.source import concatenate
from jaxvision.data.streams import training
from jaxvision.data.subset import subset
from jaxvision.errors import DataError
from jaxvision.masks import runs

SSD, YOLO = Source("ssd", "0123456789abcdef"), Source("yolo", "fedcba")
SQUARE = ((2.0, 2.0, 2.0, 8.0, 8.0, 8.0, 8.0, 2.0),)


def guess(label="cup", x=2.0, score=0.5, **more):
    return Annotation(0, label, (x, 2.0, x + 6, 8.0), score=score, sources=(SSD,), **more)


def record(*objects, name="a.png", **more):
    numbered = tuple(each._replace(id=number) for number, each in enumerate(objects, 1))
    return ImageRecord(name, "12", (20, 30), numbered, **more)


def test_an_export_keeps_all_but_what_was_rejected_and_what_failed():
    fused = guess("tie", probability=0.25, attributes={"colour": "red"}, segmentation=SQUARE)._replace(
        sources=(SSD, YOLO)
    )
    person = Annotation(0, "cat", (0, 0, 4, 4), verdict="accepted", human=True)
    records = [
        record(guess("dog", verdict="rejected", human=True), guess(), fused._replace(score=0.9), person, name="b.png"),
        record(name="empty.png"),
        ImageRecord("a.png", "", (0, 0), failure="it is cut off"),
    ]
    found = exchange(iter(records), ["tie"])
    assert found.failures == (("a.png", "it is cut off"),)
    assert found.rejected == 1
    assert found.dataset.classes == ("tie", "cat", "cup")
    first, empty = found.dataset.images
    assert (first.name, first.size, empty.name, empty.objects) == ("b.png", (20, 30), "empty.png", ())
    assert [each.label for each in first.objects] == ["cat", "tie", "cup"]
    cat, tie, cup = first.objects
    assert (cat.score, cat.model, cat.attributes) == (None, None, {})
    assert (tie.score, tie.model) == (0.9, "ssd 0123456789ab + yolo fedcba")
    assert (tie.attributes, tie.segmentation) == ({"colour": "red", "probability": 0.25}, SQUARE)
    assert cup.attributes == {}
    whole = dataset(records, rejected=True)
    assert [each.attributes for each in whole.images[0].objects if each.label == "dog"] == [{"rejected": True}]


def test_what_an_export_can_not_say_is_refused():
    with pytest.raises(DataError, match="'probability' of a cup is taken"):
        dataset([record(guess(probability=0.5, attributes={"probability": 0.4}))])
    with pytest.raises(DataError, match="two records"):
        dataset([record(), record()])


def test_a_mask_that_is_none_of_the_image_is_named_by_the_id_of_its_object():
    objects = (
        guess(score=0.4)._replace(id=8, segmentation=runs.Runs((20, 30), b"51")),
        guess("tie", 12.0)._replace(id=9),
    )
    with pytest.raises(DataError, match=r"a\.png: object 8: segmentation: counts are '51', which stand for"):
        exchange([record()._replace(objects=objects)])


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)))
def test_an_export_depends_on_neither_the_order_of_images_nor_that_of_objects(images, places):
    objects = [
        guess(label, x, score)
        for label, x, score in zip("aabbcc", range(6), [0.5, 0.5, 0.9, 0.1, 0.5, 0.5], strict=True)
    ]
    objects[3] = objects[3]._replace(score=None, human=True)
    one = [record(*objects, name=str(each)) for each in range(6)]
    other = [record(*(objects[each] for each in places), name=str(each), version=each) for each in images]
    assert dataset(one) == dataset(other)


def test_an_export_after_two_runs_is_that_of_the_second_alone(tmp_path):
    first, second = record(guess(), guess("tie", 10.0)), record(guess("tie", 10.0), guess("cat", 15.0, 0.8))
    with Store(tmp_path / "twice", create=True) as twice, Store(tmp_path / "once", create=True) as once:
        twice.put(first, who="ssd")
        twice.put(second, who="ssd")
        once.put(second, who="ssd")
        assert dataset(twice.records()) == dataset(once.records())


@pytest.fixture
def photos(tmp_path):
    """Files of three images with their digests."""
    digests = {}
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        Image.fromarray(np.full((20, 30, 3), number * 40, np.uint8)).save(tmp_path / name)
        digests[name] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    return tmp_path, digests


def test_reviewed_records_are_a_source_with_weights(photos):
    folder, digests = photos
    accepted = [
        guess("cup", 2.0, 0.6, verdict="accepted", probability=0.8),
        guess("tie", 12.0, 0.7, verdict="accepted"),
    ]
    undecided = guess("tie", 20.0)
    drawn = Annotation(0, "cup", (1, 1, 9, 9), verdict="accepted", human=True)
    records = [
        record(
            guess("dog", 10.0, verdict="rejected", human=True),
            drawn,
            guess("tie", 15.0),
            name="b.png",
            state="reviewed",
        ),
        record(*accepted, undecided, name="a.png", state="accepted"),
        record(guess("cow", 1.0), name="c.png"),
        ImageRecord("d.png", "", (0, 0), state="accepted", failure="it is empty"),
    ]
    made = source([each._replace(sha256=digests.get(each.name, "")) for each in records], folder)
    assert (made.length, made.classes) == (2, ("cup", "tie"))
    assert made.notes == (
        "left out 2 of 4 records, not reviewed, not accepted, or not readable",
        "3 objects with a weight below 1: target.objects(..., weights=True) reads it",
    )
    first, second = made.read(np.arange(2))
    np.testing.assert_allclose(first.objects.weight, [0.8, 0.7, 0.5])
    assert first.objects.ignore.tolist() == [False, False, True]
    np.testing.assert_array_equal(second.objects.weight, [1, 1])
    assert [each.weight.tolist() for each in made.objects()] == [
        each.objects.weight.tolist() for each in (first, second)
    ]
    both = subset(concatenate(made, made), np.asarray([3, 0]))
    np.testing.assert_array_equal(both.read(np.asarray([0]))[0].objects.weight, [1, 1])


def test_a_note_alone_makes_no_guess_a_certain_one(photos):
    folder, digests = photos
    noted = {"human": True, "attributes": {"note": "a cup?"}, "probability": 0.3}
    objects = guess(verdict="accepted", probability=0.9), guess("tie", 12.0, **noted)
    made = source([record(*objects, state="accepted")._replace(sha256=digests["a.png"])], folder)
    (listed,) = made.objects()
    assert listed.weight.tolist() == pytest.approx([0.9, 0.3])
    assert listed.ignore.tolist() == [False, True]


def test_weights_reach_the_batch(photos):
    folder, digests = photos
    objects = [guess("cup", 2.0, 0.25, verdict="accepted"), guess("tie", 12.0, 0.75, verdict="accepted")]
    made = source([record(*objects, state="accepted")._replace(sha256=digests["a.png"])], folder)
    for weights in (True, False):
        form = target.objects(3, weights=weights)
        stream = training(
            lambda: made, order=order.shuffled(0), placer=placement.keep((32, 32)), batch_size=1, target=form
        )
        batch = next(stream.batches(0))
        if not weights:
            assert batch.target.weight is None
            continue
        np.testing.assert_array_equal(batch.target.weight, [[0.25, 0.75, 0]])
        assert stream.spec.target.weight.shape == (1, 3)


def test_an_image_that_changed_since_has_a_fault(photos):
    folder, digests = photos
    records = [
        record(guess(), name=name, state="reviewed")._replace(sha256=digests[name]) for name in ("a.png", "b.png")
    ]
    made = source(records, folder)
    Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(folder / "b.png")
    first, second = made.read(np.arange(2))
    assert first.fault is None
    assert second.fault == "b.png: the image is another than the one that was annotated"


def test_masks_of_a_source_are_those_of_the_records(photos):
    folder, digests = photos
    on = np.zeros((20, 30), bool)
    on[3:9, 4:11] = True
    objects = guess(segmentation=SQUARE), guess("tie", 4.0, segmentation=runs.encode(on))
    of = [record(*objects, state="reviewed")._replace(sha256=digests["a.png"])]
    (example,) = source(of, folder, masks=True).read(np.asarray([0]))
    polygon, lengths = (runs.decode(each) for each in example.objects.masks)
    np.testing.assert_array_equal(lengths, on)
    assert polygon.sum() == 36
    assert polygon[2:8, 2:8].all()


def test_what_can_not_be_trained_on_is_refused(photos):
    folder, _ = photos
    reviewed = record(guess("cupp"), state="reviewed")
    with pytest.raises(DataError, match="of 1 record none is reviewed or accepted"):
        source([record(guess())], folder)
    with pytest.raises(DataError, match=r"a.png: the label 'cupp' is no class; did you mean 'cup'\?"):
        source([reviewed], folder, ["cup"])
    with pytest.raises(DataError, match="object 1, a cupp, has no mask"):
        source([reviewed], folder, masks=True)


def test_reviewing_in_a_store_makes_a_source(photos):
    folder, digests = photos
    with Store(folder / "annotations.sqlite", create=True) as store:
        store.put(record(guess(), guess("tie", 12.0))._replace(sha256=digests["a.png"]), who="ssd")
        step = [("a.png", Change("reject", 2), 1), ("a.png", Change("reviewed"), 1)]
        store.apply_all(step, "human:me")
        made = source(store.records(), folder, ["cup", "tie"])
    assert [each.labels.tolist() for each in made.objects()] == [[0]]

"""Verdicts: what a calibration says of the records of a store, and the calibration of a store by a truth."""

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxvision.annotate import promises, rows
from jaxvision.annotate.checked import Checked, checked, model_of
from jaxvision.annotate.makers import Makers
from jaxvision.annotate.promises import USUAL, Calibration, Guesses, Promise
from jaxvision.annotate.records import Annotation, ImageRecord, State, Verdict
from jaxvision.annotate.store import Store
from jaxvision.errors import DataError, amount, nearest
from jaxvision.formats.annotation import AnnotatedImage, Listing

SETTING = "calibration"
"""Key of the calibration among the settings of a store."""
WHO = "calibrate"
AT_ONCE = 64
"""Records that are stored together: another process that writes waits so long."""
VERDICTS: dict[promises.Where, Verdict] = {"accept": "accepted", "review": "new", "drop": "rejected"}


class Pair(NamedTuple):
    """Record of a store, and the truth of its image."""

    record: ImageRecord
    truth: AnnotatedImage


class Found(NamedTuple):
    """Checked images of a store."""

    checked: Checked
    remarks: tuple[str, ...]
    """What was left out, a line each."""
    guesses: Guesses
    """Those of all images of the store that the same models labelled."""
    made_by: str
    """Digest of these models (`makers`)."""


class Applied(NamedTuple):
    """What a calibration did to a store."""

    images: int
    guesses: dict[promises.Where, int]
    """Guesses of each zone, those left out that a person has touched."""
    clear: int
    """Images with nothing to review: all of their guesses are accepted or dropped, at least one accepted."""
    others: int = 0
    """Guesses of other models or settings than the checked ones: nothing is known of them, so that they stay in review."""
    other_models: tuple[str, ...] = ()
    """The names of these models."""


def find(store: Store, truth: Listing) -> Found:
    """The checked images: those of the truth that the store has, with the guesses of the models.

    Of an object that a person has touched since, it is the guess before that counts. Guesses of classes that the truth does
    not have are left out: nobody has checked them. So are images that other models labelled than those of most of what is to
    be decided in the store, and those that persons worked on before these models labelled them: what is left there of
    their guesses is not what they find.

    Raises:
      DataError: for a truth without an image or a class of the store, and an image of another size there.
    """
    pairs, remarks = _pairs(store, truth)
    made_by, pairs, guesses, others = _of_the_same(store, pairs)
    remarks += others
    labels = {each.label for objects in guesses for each in objects}
    unknown = sorted(labels - set(truth.classes))
    if labels and len(unknown) == len(labels):
        raise DataError(f"the truth has no class {unknown[0]!r}{nearest(unknown[0], truth.classes)}")
    for label in unknown:
        count = sum(each.label == label for objects in guesses for each in objects)
        remarks.append(f"left out {amount(count, 'guess')} of class {label!r}, which the truth does not have")
    if not any(guesses):
        raise DataError("the checked images have no guess of a model with a score")
    found = checked(guesses, [_in_pixels(pair, truth.relative) for pair in pairs], truth.classes)
    return Found(found, tuple(remarks), _everywhere(store, made_by, found), made_by)


def _of_the_same(store: Store, pairs: Sequence[Pair]) -> tuple[str, list[Pair], list[list[Annotation]], list[str]]:
    """Which models are calibrated, the images that they labelled, their guesses there, and remarks on other images."""
    makers, remarks = Makers(store.settings), []
    listed = [(makers.of(pair.record), pair, model_guesses(store, pair.record)) for pair in pairs]
    pure = [each for each in listed if not makers.mixed(each[1].record, each[2])]
    count = Counter(made_by for made_by, _, guesses in pure if guesses)
    if len(count) > 1:
        waiting = Counter(dict.fromkeys(count, 0))
        for record in store.records():
            waiting[makers.of(record)] += len(_undecided(record))
        count = {each: (waiting[each], number) for each, number in count.items()}
    made_by = max(count, key=lambda each: (count[each], each), default="")
    of_it = [each for each in pure if each[0] == made_by or not (each[0] or each[2])]
    if mixed := len(listed) - len(pure):
        remarks.append(f"left out {amount(mixed, 'image')} that a person worked on before other models labelled it")
    if other := len(pure) - len(of_it):
        remarks.append(f"left out {amount(other, 'image')} that other models or settings labelled")
    return made_by, [pair for _, pair, _ in of_it], [guesses for *_, guesses in of_it], remarks


def _undecided(record: ImageRecord) -> list[Annotation]:
    """The guesses that are for a calibration to decide: no person has."""
    if record.state == "reviewed":
        return []
    return [each for each in record.objects if not each.human and each.score is not None]


def _everywhere(store: Store, made_by: str, found: Checked) -> Guesses:
    """The guesses of these models in the store, of the checked classes."""
    makers, classes = Makers(store.settings), {name: number for number, name in enumerate(found.classes)}
    models = {name: number for number, name in enumerate(found.models)}
    integers, scores = [array("q") for _ in range(3)], array("d")
    for number, record in enumerate(store.records()):
        if makers.of(record) == made_by:
            for each in record.objects:
                if each.label in classes and each.score is not None and each.sources:
                    model = models.setdefault(model_of(each), len(models))
                    for column, value in zip(integers, (number, classes[each.label], model), strict=True):
                        column.append(value)
                    scores.append(each.score)
    image, label, model = (np.array(each, np.int64) for each in integers)
    return Guesses(tuple(models), np.unique(image, return_inverse=True)[1], label, model, np.array(scores))


def _pairs(store: Store, truth: Listing) -> tuple[list[Pair], list[str]]:
    """Images that the store and the truth have, and remarks on others."""
    found, absent, unread = [], [], []
    for image in truth.images:
        record = store.get(image.name)
        if record is None:
            absent.append(image.name)
        elif record.failure is not None:
            unread.append(image.name)
        else:
            if image.size is not None and tuple(image.size) != tuple(record.size):
                sizes = (f"{height} x {width}" for height, width in (image.size, record.size))
                raise DataError(
                    "{}: its height and width are {} in the truth, {} in the store".format(image.name, *sizes)
                )
            found.append(Pair(record, image))
    if not found:
        names = store.names()
        example = f", such as {names[0]!r}" if names else ""
        asked = f", such as {truth.images[0].name!r}" if truth.images else ""
        raise DataError(
            f"no image of the truth{asked}, is in the store, whose names are paths below its folder{example}"
        )
    remarks = (
        [f"left out {amount(len(absent), 'image')} that the store does not have, first {absent[0]}"] if absent else []
    )
    remarks += [f"left out {amount(len(unread), 'image')} that can't be read, first {unread[0]}"] if unread else []
    return found, remarks


def _in_pixels(pair: Pair, relative: bool) -> AnnotatedImage:
    if not relative:
        return pair.truth
    height, width = pair.record.size
    scaled = [
        each._replace(box=(each.box[0] * width, each.box[1] * height, each.box[2] * width, each.box[3] * height))
        for each in pair.truth.objects
    ]
    return pair.truth._replace(objects=scaled)


def model_guesses(store: Store, record: ImageRecord) -> list[Annotation]:
    """The guesses of an image with a score, as the models made them: before a person accepted, moved or renamed them."""
    before: dict[int | None, Annotation] = {}
    if any(each.human for each in record.objects):
        for event in store.history(record.name):
            if event.object is not None and event.before and event.object not in before:
                before[event.object] = rows.annotation_of(json.loads(event.before))
    first = [before.get(each.id, each) if each.human else each for each in record.objects]
    return [each for each in first if each.score is not None and each.sources]


def judged(record: ImageRecord, calibration: Calibration, accept: bool = False) -> ImageRecord:
    """The record with the probabilities of its guesses; what a person has touched stays as it is.

    Args:
      record: of an image.
      calibration: of the models that labelled it.
      accept: whether guesses are accepted and rejected by their zones, and the image with them: where none is left to
        review, and one is accepted, its state is accepted, unless such images may miss more than was promised
        (`Calibration.complete`).
    """
    if record.state == "reviewed":
        return record
    objects = tuple(_judged_object(each, calibration, accept) for each in record.objects)
    standing = [each.verdict for each in objects if each.verdict != "rejected"]
    clear = accept and standing and all(each == "accepted" for each in standing)
    state: State = "accepted" if clear and calibration.complete else "new"
    return record._replace(objects=objects, state=state)


def unjudged(record: ImageRecord) -> ImageRecord:
    """The record without what any calibration said of it; what a person has touched stays as it is."""
    if record.state == "reviewed":
        return record
    objects = tuple(each if each.human else each._replace(probability=None, verdict="new") for each in record.objects)
    return record._replace(objects=objects, state="new")


def _judged_object(each: Annotation, calibration: Calibration, accept: bool) -> Annotation:
    if each.human or each.score is None:
        return each
    probability = promises.calibrated(calibration, each.label, each.score, model_of(each))
    verdict = VERDICTS[calibration.zone(each.label, probability)] if accept else "new"
    return each._replace(probability=probability, verdict=verdict)


def apply(store: Store, calibration: Calibration, accept: bool = False) -> Applied:
    """Keeps a calibration in a store and the probabilities that it gives to the guesses of its models; others have none."""
    makers = Makers(store.settings)
    images, clear, count = 0, 0, dict.fromkeys(VERDICTS, 0)
    others: Counter[str] = Counter()
    store.settings[SETTING] = calibration.as_json()
    names = store.names()
    for first in range(0, len(names), AT_ONCE):
        for record in _apply(store, names[first : first + AT_ONCE], calibration, accept, makers):
            images += 1
            if makers.of(record) != calibration.made_by:
                others.update(model_of(each) for each in _undecided(record))
                continue
            zones = _zones(record, calibration)
            clear += "accept" in zones and "review" not in zones
            for zone in zones:
                count[zone] += 1
    return Applied(images, count, clear, others.total(), tuple(sorted(others)))


def _apply(
    store: Store, names: Sequence[str], calibration: Calibration, accept: bool, makers: Makers
) -> list[ImageRecord]:
    """Judges records, read in the transaction that writes them: a person may be at work. Returns them as they were read."""
    with store.together():
        found = [record for record in map(store.get, names) if record is not None]
        for record in found:
            fits = makers.of(record) == calibration.made_by
            new = judged(record, calibration, accept) if fits else unjudged(record)
            if new != record:
                store.put(new, who=WHO)
    return found


def _zones(record: ImageRecord, calibration: Calibration) -> list[promises.Where]:
    """Zones of the guesses of an image that no person has touched."""
    untouched = [
        each for each in judged(record, calibration).objects if not each.human and each.probability is not None
    ]
    return [calibration.zone(each.label, each.probability) for each in untouched if each.probability is not None]


def of_store(store: Store) -> Calibration | None:
    """The calibration that a store keeps; None if there is none."""
    text = store.settings.get(SETTING)
    return None if text is None else promises.of_json(text)


def calibrate(
    store: Store, truth: Listing, promise: Promise = USUAL, *, accept: bool = False
) -> tuple[Found, Calibration, Applied]:
    """Calibrates a store by the truth of some of its images.

    Args:
      store: with the guesses of models.
      truth: all objects of a random sample of its images.
      promise: what is to hold of the zones.
      accept: as in `judged`.

    Returns:
      The checked images, what was learned from them, and what it did.
    """
    found = find(store, truth)
    calibration = promises.calibrate(found.checked, promise, found.guesses)._replace(made_by=found.made_by)
    return found, calibration, apply(store, calibration, accept)

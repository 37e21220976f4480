"""Verdicts: what a calibration says of the records of a store, and the calibration of a store by a truth."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from jaxvision.annotate import promises, schema
from jaxvision.annotate.checked import Checked, checked, model_of
from jaxvision.annotate.promises import USUAL, Calibration, Promise
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


class Applied(NamedTuple):
    """What a calibration did to a store."""

    images: int
    guesses: dict[promises.Where, int]
    """Guesses of each zone, those left out that a person has touched."""
    accepted: int
    """Images that need no look: all of their guesses are accepted or dropped, at least one accepted."""


def find(store: Store, truth: Listing) -> Found:
    """The checked images: those of the truth that the store has, with the guesses of the models.

    Of an object that a person has touched since, it is the guess before that counts. Guesses of classes that the truth does
    not have are left out: nobody has checked them.

    Raises:
      DataError: for a truth without an image or a class of the store, and an image of another size there.
    """
    pairs, remarks = _pairs(store, truth)
    guesses = [model_guesses(store, pair.record) for pair in pairs]
    labels = {each.label for objects in guesses for each in objects}
    unknown = sorted(labels - set(truth.classes))
    if labels and len(unknown) == len(labels):
        raise DataError(f"the truth has no class {unknown[0]!r}{nearest(unknown[0], truth.classes)}")
    for label in unknown:
        count = sum(each.label == label for objects in guesses for each in objects)
        remarks.append(f"left out {amount(count, 'guess')} of class {label!r}, which the truth does not have")
    if not any(guesses):
        raise DataError("the checked images have no guess of a model with a score")
    return Found(checked(guesses, [_in_pixels(pair, truth.relative) for pair in pairs], truth.classes), tuple(remarks))


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
                before[event.object] = schema.annotation_of(json.loads(event.before))
    first = [before.get(each.id, each) if each.human else each for each in record.objects]
    return [each for each in first if each.score is not None and each.sources]


def judged(record: ImageRecord, calibration: Calibration, accept: bool = False) -> ImageRecord:
    """The record with the probabilities of its guesses; what a person has touched stays as it is.

    Args:
      record: of an image.
      calibration: of the store.
      accept: whether guesses are accepted and rejected by their zones, and the image with them: where none is left to
        review, and one is accepted, its state is accepted.
    """
    if record.state == "reviewed":
        return record
    objects = tuple(_judged_object(each, calibration, accept) for each in record.objects)
    standing = [each.verdict for each in objects if each.verdict != "rejected"]
    done: State = "accepted" if accept and standing and all(each == "accepted" for each in standing) else "new"
    return record._replace(objects=objects, state=done)


def _judged_object(each: Annotation, calibration: Calibration, accept: bool) -> Annotation:
    if each.human or each.score is None:
        return each
    probability = promises.calibrated(calibration, each.label, each.score, model_of(each))
    verdict = VERDICTS[calibration.zone(each.label, probability)] if accept else "new"
    return each._replace(probability=probability, verdict=verdict)


def apply(store: Store, calibration: Calibration, accept: bool = False) -> Applied:
    """Keeps a calibration in a store and the probabilities that it gives to all guesses."""
    images, accepted, count = 0, 0, dict.fromkeys(VERDICTS, 0)
    store.settings[SETTING] = calibration.as_json()
    for records in _portions(store.records()):
        with store.together():
            for record in records:
                new = judged(record, calibration, accept)
                if new != record:
                    store.put(new, who=WHO)
        for record in records:
            zones = _zones(record, calibration)
            images += 1
            accepted += "accept" in zones and "review" not in zones
            for zone in zones:
                count[zone] += 1
    return Applied(images, count, accepted)


def _zones(record: ImageRecord, calibration: Calibration) -> list[promises.Where]:
    """Zones of the guesses of an image that no person has touched."""
    untouched = [
        each for each in judged(record, calibration).objects if not each.human and each.probability is not None
    ]
    return [calibration.zone(each.label, each.probability) for each in untouched if each.probability is not None]


def _portions(records: Iterator[ImageRecord]) -> Iterator[Sequence[ImageRecord]]:
    while portion := list(islice(records, AT_ONCE)):
        yield portion


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
    calibration = promises.calibrate(found.checked, promise)
    return found, calibration, apply(store, calibration, accept)

"""Source of reviewed records: what people and promises have made sure of is what the next model is trained on.

source.source(store.records(), photos)
Give `target=target.objects(rows, weights=True)` to the streams, so that accepted guesses count by their probability.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvision.annotate import rows
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.data import objects
from jaxvision.data.source import Annotations, Example, Source
from jaxvision.errors import DataError, amount, nearest
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Listing
from jaxvision.formats.fingerprint import digest
from jaxvision.masks.polygons import of_polygons
from jaxvision.masks.runs import Runs


def source(
    records: Iterable[ImageRecord], folder: Path, classes: Sequence[str] | None = None, *, masks: bool = False
) -> Source:
    """The images of which all objects are known: those that a person has looked at all of, and those that were accepted.

    An image is accepted only where of the objects of such images no more are missed than was promised
    (`promises.Calibration.complete`): what is missed is background here.

    An object's weight is 1 where a person decided on it, or looked at all of its image and let it stand; that of an accepted
    guess is its probability, or its score where nothing was calibrated. Rejected objects are not there; a guess of an
    accepted image that nobody accepted is to be ignored. An image that has changed since has a fault.

    Args:
      records: of a store; others than those above, and failures, are left out, and counted in the source's `notes`.
      folder: of the images.
      classes: labels in their order; None: those of the objects, sorted.
      masks: whether objects have their masks.

    Raises:
      DataError: if no image is left, for an object of none of the classes, or with `masks` one that has no mask.
      FileNotFoundError: if an image is not there.
    """
    listed = sorted(records, key=lambda record: record.name)
    used = [each for each in listed if each.state in ("reviewed", "accepted") and each.failure is None]
    if not used:
        raise DataError(f"of {amount(len(listed), 'record')} none is reviewed or accepted; review some first")
    kept = [[each for each in record.objects if each.verdict != "rejected"] for record in used]
    names = tuple(sorted({each.label for found in kept for each in found}) if classes is None else classes)
    listing = _listing(used, kept, Path(folder), names)
    given = objects.listing_source(f"records of {folder}", listing, _masks(used, kept) if masks else None)
    weights = [_weights(record, found) for record, found in zip(used, kept, strict=True)]
    notes = _notes(len(listed) - len(used), len(listed), weights)
    return _weighted(given, weights, [each.sha256 for each in used])._replace(notes=notes)


def _notes(left_out: int, total: int, weights: Sequence[np.ndarray]) -> tuple[str, ...]:
    lighter = sum(int((each < 1).sum()) for each in weights)
    told = (
        f"left out {left_out:,} of {amount(total, 'record')}, not reviewed, not accepted, or not readable"
        * bool(left_out),
        f"{amount(lighter, 'object')} with a weight below 1: target.objects(..., weights=True) reads it"
        * bool(lighter),
    )
    return tuple(filter(None, told))


def weight(record: ImageRecord, each: Annotation) -> float:
    """The weight of an object in training, from 0 to 1."""
    if each.decided or record.state == "reviewed":
        return 1.0
    known = (value for value in (each.probability, each.score, 1.0) if value is not None)
    return min(max(next(known), 0.0), 1.0)


def _weights(record: ImageRecord, found: Sequence[Annotation]) -> np.ndarray:
    return np.asarray([weight(record, each) for each in found], np.float32)


def _listing(
    used: Sequence[ImageRecord], kept: Sequence[Sequence[Annotation]], folder: Path, classes: tuple[str, ...]
) -> Listing:
    """The records as annotation files would have them."""
    labels = {name: number for number, name in enumerate(classes)}
    images = []
    for number, (record, found) in enumerate(zip(used, kept, strict=True)):
        annotated = [_annotated(record, each, labels) for each in found]
        file = folder / record.name
        images.append(AnnotatedImage(record.name, file, "the store", number, record.size, annotated))
    content = (
        rows.dumps([record.name, record.sha256, record.state, *map(rows.plain, record.objects)]) for record in used
    )
    return Listing("store", folder, classes, tuple(range(1, len(classes) + 1)), images, digest(*content))


def _annotated(record: ImageRecord, each: Annotation, labels: Mapping[str, int]) -> AnnotatedObject:
    if each.label not in labels:
        raise DataError(f"{record.name}: the label {each.label!r} is no class{nearest(each.label, list(labels))}")
    undecided = record.state == "accepted" and each.verdict == "new"
    return AnnotatedObject(f"object {each.id}", labels[each.label], each.box, ignore=undecided, id=each.id)


def _masks(used: Sequence[ImageRecord], kept: Sequence[Sequence[Annotation]]) -> Callable[[int], Sequence[Runs]]:
    """Masks of the objects of an image, made when they are asked for."""
    for record, found in zip(used, kept, strict=True):
        for each in found:
            if each.segmentation is None:
                raise DataError(
                    f"{record.name}: object {each.id}, a {each.label}, has no mask, and masks=True needs it"
                )

    def of(each: Annotation, record: ImageRecord) -> Runs:
        mask = each.segmentation
        assert mask is not None
        return mask if isinstance(mask, Runs) else of_polygons(mask, record.size)

    return lambda index: [of(each, used[index]) for each in kept[index]]


def _weighted(given: Source, weights: Sequence[np.ndarray], digests: Sequence[str]) -> Source:
    """The source with a weight of each object, and a fault of each image that is not the one of this digest any more."""

    def one(index: int, example: Example) -> Example:
        if isinstance(example.image, bytes) and example.image and _digest(example.image) != digests[index]:
            return example._replace(fault=f"{given.name(index)}: the image is another than the one that was annotated")
        found = example.objects
        if found is None or len(found.boxes) != len(weights[index]):  # an unreadable image has none
            return example
        return example._replace(objects=found._replace(weight=weights[index]))

    def read(indices: np.ndarray) -> list[Example]:
        return [one(index, each) for index, each in zip(np.asarray(indices).tolist(), given.read(indices), strict=True)]

    def listed() -> list[Annotations]:
        assert given.objects is not None
        return [each._replace(weight=of) for each, of in zip(given.objects(), weights, strict=True)]

    return given._replace(read=read, objects=listed)


def _digest(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()

"""Exchange: what a store holds as a dataset in the form between formats, for `formats` to write."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxvision.annotate import rows
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.errors import DataError
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Value

DIGITS = 12
"""Digits of a checkpoint's digest that the version of a model shows."""
PROBABILITY = "probability"
"""Name of the attribute that holds the calibrated probability of an object."""


class Exchange(NamedTuple):
    """Dataset of records, and what is not in it."""

    dataset: Dataset
    failures: tuple[tuple[str, str], ...]
    """Names of the images that can't be read, each with the reason; they are left out."""
    rejected: int
    """Number of rejected objects, which are left out."""


def dataset(records: Iterable[ImageRecord], classes: Sequence[str] = (), *, rejected: bool = False) -> Dataset:
    """The dataset of `exchange`."""
    return exchange(records, classes, rejected=rejected).dataset


def exchange(records: Iterable[ImageRecord], classes: Sequence[str] = (), *, rejected: bool = False) -> Exchange:
    """Records as a dataset: images in order of name, those without objects too; objects in an order that is theirs alone.

    What persons drew comes first, then the best score; ids and versions, which tell of the past, have no part in it. So
    datasets of the same records are equal, byte for byte once they are written, whoever found them when.

    Args:
      records: `Store.records()`, or those of them that are wanted.
      classes: in this order; labels of none of them come after, sorted.
      rejected: whether what persons rejected is there, too, with an attribute `rejected`, for training with negatives.

    Raises:
      DataError: for two records of one name, a mask that is none of its image, and an attribute `probability` that
        contradicts the calibrated probability.
    """
    images, failures, left_out, labels = [], [], 0, set()
    for record in sorted(records, key=lambda record: record.name):
        if images and record.name == images[-1].name:
            raise DataError(f"{record.name}: there are two records of it")
        if record.failure is not None:
            failures.append((record.name, record.failure))
            continue
        kept = [each for each in record.objects if rejected or each.verdict != "rejected"]
        left_out += len(record.objects) - len(kept)
        labels |= {each.label for each in kept}
        _check_masks(record.name, record.size, kept)
        objects = tuple(labelled(each) for each in sorted(kept, key=_place))
        images.append(LabelledImage(record.name, record.size, objects))
    more = sorted(labels.difference(classes))
    return Exchange(Dataset((*classes, *more), images), tuple(failures), left_out)


def _check_masks(name: str, size: Size, objects: Sequence[Annotation]) -> None:
    for each in objects:
        try:
            rows.mask_for(each.segmentation, size)
        except ValueError as error:
            raise DataError(f"{name}: object {each.id}: {error}") from error


def _place(each: Annotation) -> tuple[bool, float, str]:
    """The place of an object among the others of its image."""
    return each.score is not None, -(each.score or 0.0), rows.content(each)


def labelled(each: Annotation) -> LabelledObject:
    """An object for export; its probability is an attribute.

    Raises:
      DataError: for another attribute of that name.
    """
    attributes: dict[str, Value] = dict(each.attributes)
    if each.probability is not None and attributes.setdefault(PROBABILITY, each.probability) != each.probability:
        raise DataError(f"the attribute {PROBABILITY!r} of a {each.label} is taken by the calibrated one; rename it")
    if each.verdict == "rejected":
        attributes["rejected"] = True
    model = " + ".join(map(version, each.sources)) or None
    return LabelledObject(each.label, each.box, each.segmentation, each.score, attributes, model=model)


def version(source: Source) -> str:
    """Name and version of a model: the name as it was given, and the beginning of the digest of its variables."""
    return f"{source.model} {source.checkpoint[:DIGITS]}".strip()

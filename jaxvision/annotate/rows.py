"""Rows: records as they lie in a store, objects as JSON text, and back without a loss."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.errors import DataError, shown
from jaxvision.formats import rle
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import Segmentation, Value
from jaxvision.masks.runs import Runs

COLUMNS = "name, sha256, height, width, state, failure, note, version, next, labelling, objects"


class Row(NamedTuple):
    """Record as it lies in the store, with what only the store needs."""

    record: ImageRecord
    next: int = 1
    """Least id that no object of the image has had."""
    note: str = ""
    """What a person has noted of the image."""


def values(row: Row) -> tuple[Any, ...]:
    """The values of a row, in order of `COLUMNS`."""
    record = row.record
    size = int(record.size[0]), int(record.size[1])
    objects = dumps([plain(each) for each in record.objects])
    text = record.name, record.sha256, *size, record.state, record.failure, row.note
    return *text, record.version, row.next, record.labelling, objects


def row_of(found: tuple[Any, ...]) -> Row:
    """The row of its values. Raises DataError that names image and object for an object that is none."""
    name, sha256, height, width, state, failure, note, version, following, labelling, objects = found
    listed = tuple(_read(each, name) for each in json.loads(objects))
    record = ImageRecord(name, sha256, (height, width), listed, state, failure, version, labelling)
    return Row(record, following, note)


def _read(found: Mapping[str, Any], name: str) -> Annotation:
    try:
        return annotation_of(found)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        number = found.get("id") if isinstance(found, Mapping) else None
        raise DataError(f"{name}: object {shown(number)} can't be read: {shown(error)}") from error


def dumps(value: object) -> str:
    """JSON text, the same for the same value.

    Raises:
      DataError: for what JSON can't hold, such as a number that is not finite.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        raise DataError(f"a record can't hold {shown(value)}: {error}") from error


def plain(each: Annotation) -> dict[str, Any]:
    """An object as JSON has it; NumPy's numbers become Python's."""
    mask = each.segmentation
    return {
        "id": int(each.id),
        "label": each.label,
        "box": [float(side) for side in each.box],
        "segmentation": None if mask is None else _plain_mask(mask),
        "score": None if each.score is None else float(each.score),
        "probability": None if each.probability is None else float(each.probability),
        "attributes": {key: plain_value(value) for key, value in each.attributes.items()},
        "sources": [list(source) for source in each.sources],
        "verdict": each.verdict,
        "human": bool(each.human),
    }


def content(each: Annotation) -> str:
    """All of an object but its id, as text."""
    return dumps({**plain(each), "id": 0})


def _plain_mask(mask: Segmentation) -> dict[str, Any] | list[list[float]]:
    return mask.coco() if isinstance(mask, Runs) else [[float(side) for side in polygon] for polygon in mask]


def plain_value(value: Any) -> Any:
    """A value of an attribute as JSON has it."""
    if isinstance(value, tuple | list):
        return [str(each) for each in value]
    return value.item() if hasattr(value, "item") else value


def annotation_of(found: Mapping[str, Any]) -> Annotation:
    """The object that `plain` told; a list among its attributes becomes a tuple."""
    return Annotation(
        **{
            **found,
            "box": tuple(found["box"]),
            "segmentation": mask_of(found["segmentation"]),
            "attributes": {key: value_of(value) for key, value in found["attributes"].items()},
            "sources": tuple(Source(*source) for source in found["sources"]),
        }
    )


def mask_of(found: Any) -> Segmentation | None:
    """The mask of JSON: run lengths of COCO's form, or polygons."""
    if found is None:
        return None
    if isinstance(found, Mapping):
        return Runs((int(found["size"][0]), int(found["size"][1])), found["counts"].encode("ascii"))
    return tuple(tuple(map(float, polygon)) for polygon in found)


def mask_for(found: Any, size: Size) -> Segmentation | None:
    """The mask of JSON, or one that is a mask already, of an image of this height and width.

    Raises:
      ValueError: for run lengths of another size or that do not add up to it, and for what is no polygon.
    """
    if isinstance(found, Runs):
        found = found.coco()
    if isinstance(found, Mapping) and "counts" in found:
        return rle.runs(found, size)
    if found is None or not len(found):
        return None
    rle.compact([list(polygon) for polygon in found])
    return mask_of(found)


def value_of(found: Any) -> Value:
    """The value of an attribute that JSON has."""
    return tuple(found) if isinstance(found, list) else found


def finite(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Changes: what a person does to a record, as values, and the record after it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from jaxvision.annotate import rows
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.rows import Row
from jaxvision.errors import DataError, nearest, shown
from jaxvision.formats.annotation import FAR, Box
from jaxvision.formats.labelled import Segmentation
from jaxvision.masks.runs import Runs

Action = Literal["accept", "reject", "rename", "move", "add", "delete", "attribute", "segmentation", "reviewed", "note"]


class Conflict(DataError):
    """The record has changed since the change was made of it, or is another's now: nothing is done."""


class Change(NamedTuple):
    """What a person does to one object or image.

    `value` is by `action`: accept, reject, delete: None; rename: the label; move: the box; add: an `Annotation` or a mapping
    with `label` and `box`, perhaps `segmentation` and `attributes`; attribute: `(key, value)`, None as value removes it;
    segmentation: polygons, run lengths of the image's size, or None; reviewed: False takes it back; note: the text. What
    JSON makes of these (lists, `{"size", "counts"}`) is good too. A note of an object is its attribute "note".
    """

    action: Action
    object: int | None = None
    value: Any = None


def changed(row: Row, change: Change) -> Row:
    """The record after a change, one version later.

    Who corrects label, place or mask says how it is, so that the object is accepted, and without the score that the model
    gave to something else. A polygon or mask follows its box. An object that a model found is not deleted but rejected,
    so that no later run finds it again.

    Raises:
      DataError: for an object that there is not, an action that there is not, and a value that does not fit it.
    """
    if change.action not in get_args(Action):
        raise DataError(f"there is no action {change.action!r}{nearest(change.action, get_args(Action), 10)}")
    record = row.record._replace(version=row.record.version + 1)
    try:
        if change.action == "add":
            new = _added(change.value, record)._replace(id=row.next)
            return row._replace(record=with_objects(record, {new.id: new}), next=row.next + 1)
        if change.object is None:
            return _changed_image(row._replace(record=record), change)
        old = object_of(record, change.object)
        return row._replace(record=with_objects(record, {old.id: _changed_object(old, change, record)}))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{record.name}: {change.action} has no use for {shown(change.value)}") from error


def object_of(record: ImageRecord, number: int) -> Annotation:
    """The object of a record with this id; raises DataError where there is none."""
    for each in record.objects:
        if each.id == number:
            return each
    raise DataError(f"{record.name}: there is no object {number}")


def with_objects(record: ImageRecord, others: Mapping[int, Annotation | None]) -> ImageRecord:
    """The record with these objects in place of those with the same ids, in order of ids; None removes one."""
    known = [each.id for each in record.objects]
    if others.keys() <= set(known):
        kept = [others.get(number, each) for number, each in zip(known, record.objects, strict=True)]
        return record._replace(objects=tuple(each for each in kept if each is not None))
    objects: dict[int, Annotation | None] = {**dict(zip(known, record.objects, strict=True)), **others}
    return record._replace(objects=tuple(each for _, each in sorted(objects.items()) if each is not None))


def _changed_image(row: Row, change: Change) -> Row:
    if change.action == "reviewed":
        return row._replace(record=row.record._replace(state="new" if change.value is False else "reviewed"))
    if change.action == "note":
        return row._replace(note=_text(change.value or ""))
    raise DataError(f"{row.record.name}: {change.action} needs the number of an object")


def _changed_object(old: Annotation, change: Change, record: ImageRecord) -> Annotation | None:
    new = _CHANGES[change.action](old._replace(human=True), change.value)
    if new is None or new.segmentation == old.segmentation:
        return new
    return new._replace(segmentation=_mask(new.segmentation, record))


def _renamed(old: Annotation, value: Any) -> Annotation:
    if not value:
        raise ValueError
    return _corrected(old)._replace(label=_text(value))


def _moved(old: Annotation, value: Any) -> Annotation:
    box = box_of(value)
    mask = None if old.segmentation is None else followed(old.segmentation, old.box, box)
    return _corrected(old)._replace(box=box, segmentation=mask)


def _corrected(old: Annotation) -> Annotation:
    return old._replace(verdict="accepted", score=None, probability=None)


def _with_attribute(old: Annotation, value: Any) -> Annotation:
    key, new = value
    kept = {each: text for each, text in old.attributes.items() if each != _text(key)}
    if new is None:
        return old._replace(attributes=kept)
    new = rows.plain_value(new)
    if not isinstance(new, str | bool | list) and not rows.finite(new):
        raise ValueError
    return old._replace(attributes={**kept, key: rows.value_of(new)})


def _no_image(old: Annotation, value: Any) -> Annotation:
    raise ValueError


_CHANGES: Mapping[str, Callable[[Annotation, Any], Annotation | None]] = {
    "accept": lambda old, value: old._replace(verdict="accepted"),
    "reject": lambda old, value: old._replace(verdict="rejected"),
    "rename": _renamed,
    "move": _moved,
    "delete": lambda old, value: old._replace(verdict="rejected") if old.sources else None,
    "attribute": _with_attribute,
    "segmentation": lambda old, value: _corrected(old)._replace(segmentation=value),
    "note": lambda old, value: _with_attribute(old, ("note", value or None)),
    "reviewed": _no_image,
}


def _added(value: Any, record: ImageRecord) -> Annotation:
    """The object that a person drew."""
    given = value._asdict() if isinstance(value, Annotation) else value
    new = Annotation(0, _text(given["label"]), box_of(given["box"]), verdict="accepted", human=True)
    new = new._replace(segmentation=_mask(given.get("segmentation"), record))
    for each in given.get("attributes", {}).items():
        new = _with_attribute(new, each)
    if not new.label:
        raise ValueError
    return new


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # half a surrogate pair is no text
    return value


def _mask(value: Any, record: ImageRecord) -> Segmentation | None:
    try:
        return rows.mask_for(value, record.size)
    except ValueError as error:
        raise DataError(f"{record.name}: {error}") from error


def box_of(value: Any) -> Box:
    """The box of four numbers; raises ValueError for anything else, and a box without extent, or far away."""
    x0, y0, x1, y1 = map(float, value)
    if not all(abs(side) < FAR for side in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
        raise ValueError
    return x0, y0, x1, y1


def followed(mask: Segmentation, old: Box, new: Box) -> Segmentation | None:
    """A mask stretched as its box is; of run lengths None is left, for nobody has seen which pixels it would be now."""
    if isinstance(mask, Runs):
        return None
    scale = [(new[2 + k] - new[k]) / (old[2 + k] - old[k]) if old[2 + k] > old[k] else 1.0 for k in (0, 1)]
    return tuple(tuple(new[i % 2] + (side - old[i % 2]) * scale[i % 2] for i, side in enumerate(each)) for each in mask)

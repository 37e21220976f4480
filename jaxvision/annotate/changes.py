"""Changes: what a person does to a record, as values; and what a model's findings do to a record that a person has touched.

Pure functions of records; `store` keeps what they return.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from jaxvision.annotate import schema
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.schema import Row
from jaxvision.errors import DataError, nearest, shown
from jaxvision.formats.annotation import Box
from jaxvision.formats.labelled import Segmentation
from jaxvision.masks.runs import Runs

Action = Literal["accept", "reject", "rename", "move", "add", "delete", "attribute", "segmentation", "reviewed", "note"]
SAME_PLACE = 0.5
"""IoU of boxes above which a guess stands where a person has decided already."""


class Conflict(DataError):
    """The record has changed since the change was made of it, or is another's now: nothing is done."""


class ImageChanged(DataError):
    """The image is another since a person worked on its record: nothing is done."""


class Change(NamedTuple):
    """What a person does to one object or image.

    `value` is by `action`: accept, reject, delete: None; rename: the label; move: the box; add: an `Annotation` or a mapping
    with `label` and `box`, perhaps `segmentation` and `attributes`; attribute: `(key, value)`, None as value removes it;
    segmentation: polygons, run lengths or None; reviewed: False takes it back; note: the text. What JSON makes of
    these (lists, `{"size", "counts"}`) is good too. A note of an object is its attribute "note".
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
            new = _added(change.value)._replace(id=row.next)
            return row._replace(record=with_objects(record, {new.id: new}), next=row.next + 1)
        if change.object is None:
            return _changed_image(row._replace(record=record), change)
        old = object_of(record, change.object)
        return row._replace(record=with_objects(record, {old.id: _changed_object(old, change)}))
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


def with_objects(record: ImageRecord, changed: Mapping[int, Annotation | None]) -> ImageRecord:
    """The record with these objects in place of those with the same ids, in order of ids; None removes one."""
    objects = {each.id: each for each in record.objects} | changed
    return record._replace(objects=tuple(each for _, each in sorted(objects.items()) if each is not None))


def _changed_image(row: Row, change: Change) -> Row:
    if change.action == "reviewed":
        return row._replace(record=row.record._replace(state="new" if change.value is False else "reviewed"))
    if change.action == "note":
        return row._replace(note=_text(change.value or ""))
    raise DataError(f"{row.record.name}: {change.action} needs the number of an object")


def _changed_object(old: Annotation, change: Change) -> Annotation | None:
    return _CHANGES[change.action](old._replace(human=True), change.value)


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
    new = schema.plain_value(new)
    if not isinstance(new, str | bool | list) and not schema.finite(new):
        raise ValueError
    return old._replace(attributes={**kept, key: schema.value_of(new)})


def _no_image(old: Annotation, value: Any) -> Annotation:
    raise ValueError


_CHANGES: Mapping[str, Callable[[Annotation, Any], Annotation | None]] = {
    "accept": lambda old, value: old._replace(verdict="accepted"),
    "reject": lambda old, value: old._replace(verdict="rejected"),
    "rename": _renamed,
    "move": _moved,
    "delete": lambda old, value: old._replace(verdict="rejected") if old.sources else None,
    "attribute": _with_attribute,
    "segmentation": lambda old, value: _corrected(old)._replace(segmentation=_mask(value)),
    "note": lambda old, value: _with_attribute(old, ("note", value or None)),
    "reviewed": _no_image,
}


def _added(value: Any) -> Annotation:
    """The object that a person drew."""
    given = value._asdict() if isinstance(value, Annotation) else value
    new = Annotation(0, _text(given["label"]), box_of(given["box"]), verdict="accepted", human=True)
    new = new._replace(segmentation=_mask(given.get("segmentation")))
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


def _mask(value: Any) -> Segmentation | None:
    mask = value if isinstance(value, Runs) else schema.mask_of(value)
    if isinstance(mask, tuple) and not isinstance(mask, Runs):
        if any(len(each) < 6 or len(each) % 2 or not all(map(schema.finite, each)) for each in mask):
            raise ValueError
        return mask or None
    return mask


def box_of(value: Any) -> Box:
    """The box of four numbers; raises ValueError for anything else, and a box without extent."""
    x0, y0, x1, y1 = map(float, value)
    if not all(map(schema.finite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
        raise ValueError
    return x0, y0, x1, y1


def followed(mask: Segmentation, old: Box, new: Box) -> Segmentation | None:
    """A mask stretched as its box is; of run lengths None is left, for nobody has seen which pixels it would be now."""
    if isinstance(mask, Runs):
        return None
    scale = [(new[2 + k] - new[k]) / (old[2 + k] - old[k]) if old[2 + k] > old[k] else 1.0 for k in (0, 1)]
    return tuple(tuple(new[i % 2] + (side - old[i % 2]) * scale[i % 2] for i, side in enumerate(each)) for each in mask)


def touched(record: ImageRecord) -> bool:
    """Whether a person has touched the record: an object of it, or all by looking at it."""
    return record.state == "reviewed" or any(each.human for each in record.objects)


def found(old: Row | None, new: ImageRecord, *, redo: bool = False) -> Row:
    """The record after a run of models: the old one with `new`'s guesses in place of its own.

    What a person touched stays as it is: objects, and a record that a person has looked at all of. A guess that was not there
    before is left out where it lies (IoU above `SAME_PLACE`) on an object that a person touched, of whatever class, so that
    nothing is doubled; or on one of the same class that a person rejected. A guess equal to an old one keeps its id.
    With `redo` nothing of a person's work is left but its ids, which are never used again.

    Raises:
      ImageChanged: for another image than a person worked on, without `redo`.
      DataError: for two objects with one id.
    """
    check_ids(new)
    if old is None or redo:
        return _numbered(old, new, ())
    if not touched(old.record):
        return _numbered(old, new, ())
    if new.sha256 != old.record.sha256:
        raise ImageChanged(
            f"{new.name}: the image {'is another' if new.sha256 else 'cannot be read'} since a person worked on it; "
            "its record stays as it is (redo takes the new image, after a backup)"
        )
    if old.record.state == "reviewed":
        return old
    human = tuple(each for each in old.record.objects if each.human)
    return _numbered(old, new, human)


def check_ids(record: ImageRecord) -> None:
    """Raises DataError if two objects of a record have one id; 0 is none yet."""
    ids = [each.id for each in record.objects if each.id]
    if len(set(ids)) < len(ids) or any(each < 0 for each in ids):
        raise DataError(
            f"{record.name}: the ids of its objects are {shown(ids)}; allowed are 0 and different positive ones"
        )


def _numbered(old: Row | None, new: ImageRecord, human: Sequence[Annotation]) -> Row:
    """The record with human objects that stay and new ones, each with its id."""
    before = old.record.objects if old is not None else ()
    following = old.next if old is not None else 1
    guesses = {each.id: each for each in before if not each.human}
    equal: dict[str, list[int]] = {}
    for number, each in sorted(guesses.items(), reverse=True):
        equal.setdefault(content(each), []).append(number)
    kept = {each.id: each for each in human}
    same = {content(each) for each in human}
    waiting = []
    for each in new.objects:
        if each.human and (each.id in kept or content(each) in same):
            continue
        if numbers := equal.get(content(each)):
            number = numbers.pop()
            kept[number] = each._replace(id=number)
        elif each.human or not any(stands_for(person, each) for person in human):
            waiting.append(each)
    for each in waiting:
        taken = each.id in kept or not (each.id >= following or each.id in guesses)
        number = following if taken else each.id
        kept[number] = each._replace(id=number)
        following = max(following, number + 1)
    version = old.record.version + 1 if old is not None else 1
    objects = tuple(each for _, each in sorted(kept.items()))
    record = new._replace(objects=objects, version=version)
    return Row(record, following, old.note if old is not None else "")


def stands_for(person: Annotation, guess: Annotation) -> bool:
    """Whether a person has decided already what a guess says."""
    if person.verdict == "rejected" and person.label != guess.label:
        return False
    return iou(person.box, guess.box) > SAME_PLACE


def iou(one: Box, other: Box) -> float:
    """IoU of two boxes; 0 where neither has an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    either = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both
    return both / either if either > 0 else 0.0


def content(each: Annotation) -> str:
    """All of an object but its id, as text."""
    return schema.dumps({**schema.plain(each), "id": 0})


def same(one: Row | None, other: Row) -> bool:
    """Whether two rows say the same, whatever their versions."""
    if one is None:
        return False
    versionless = (row._replace(record=row.record._replace(version=0)) for row in (one, other))
    first, second = map(schema.values, versionless)
    return first == second

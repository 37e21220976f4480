"""Findings: what a run of models says of an image, beside what a person has done to its record."""

from collections.abc import Sequence

from jaxvision.annotate import rows
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.rows import Row
from jaxvision.errors import DataError, shown
from jaxvision.formats.annotation import Box

SAME_PLACE = 0.5
"""IoU of boxes above which a guess stands where a person has decided already."""


class ImageChanged(DataError):
    """The image is another since a person worked on its record: nothing is done."""


def touched(record: ImageRecord) -> bool:
    """Whether a person has touched the record: an object of it, or all by looking at it."""
    return record.state == "reviewed" or any(each.human for each in record.objects)


def found(old: Row | None, new: ImageRecord, *, redo: bool = False) -> Row:
    """The record after a run of models: the old one with `new`'s guesses in place of its own.

    What a person touched stays as it is: objects, and a record that a person has looked at all of. A guess that was not there
    before is left out where it lies (IoU above `SAME_PLACE`) on an object that a person touched, of whatever class, so that
    nothing is doubled; or on one of the same class that a person rejected. A guess that was there before stays and keeps its
    id: one with the id of an old one, or with its label, box, score and sources. One with the id of an object that a person
    has touched since is that object, as it was before.
    With `redo` nothing of a person's work is left but its ids, which are never used again.

    Raises:
      ImageChanged: for another image than a person worked on, without `redo`.
      DataError: for two objects with one id.
    """
    check_ids(new)
    if old is None or redo or not touched(old.record):
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
        equal.setdefault(_guessed(each), []).append(number)
    kept = {each.id: each for each in human}
    persons, same = set(kept), {rows.content(each) for each in human}
    waiting = []
    for each in new.objects:
        if each.id in persons or (each.human and rows.content(each) in same):
            continue
        if numbers := equal.get(_guessed(each)):
            number = numbers.pop(numbers.index(each.id) if each.id in numbers else -1)
            kept[number] = each._replace(id=number)
        elif each.human or each.id in guesses or not any(stands_for(person, each) for person in human):
            waiting.append(each)
    given = {each.id for each in waiting if each.id >= following or each.id in guesses} - set(kept) - {0}
    following = max([following, *(number + 1 for number in given)])
    for each in waiting:
        number = each.id if each.id in given else following
        kept[number] = each._replace(id=number)
        following = max(following, number + 1)
    version = old.record.version + 1 if old is not None else 1
    objects = tuple(each for _, each in sorted(kept.items()))
    record = new._replace(objects=objects, version=version)
    return Row(record, following, old.note if old is not None else "")


def _guessed(each: Annotation) -> str:
    """What a model guessed of an object, as text: not what was made of it since, nor what else was found of it."""
    return rows.dumps([each.label, *map(float, each.box), rows.plain_value(each.score), each.sources])


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


def same(one: Row | None, other: Row) -> bool:
    """Whether two rows say the same, whatever their versions."""
    if one is None:
        return False
    versionless = (row._replace(record=row.record._replace(version=0)) for row in (one, other))
    first, second = map(rows.values, versionless)
    return first == second

"""What is lost on the way from one format to another, counted and told."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from jaxvision.errors import DataError, amount, cut, printable, shown
from jaxvision.formats.annotation import number
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Value
from jaxvision.formats.segmentation import around

Place = Literal[
    "score",
    "model",
    "attributes",
    "attributes of images",
    "crowd",
    "difficult",
    "ids",
    "category ids",
    "classes",
    "mask",
    "box",
    "area",
]
"""What a format may have a place for.

"classes" are those without an object, "box" one that differs from its mask's, "area" one that differs from both.
"""
EVERY_PLACE: tuple[Place, ...] = get_args(Place)
LONGEST = 60
"""Characters of the name of an attribute or a field that are told."""


class Opened(NamedTuple):
    """A dataset that was read, and what of the file has no place in it."""

    dataset: Dataset
    left_out: list[Loss]


class Tally:
    """Counts of what is lost, in the order in which it is first met."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, what: str, count: int = 1) -> None:
        """Counts what is lost, in the singular."""
        if count:
            self.counts[what] += count

    def note_fields(self, fields: Mapping[str, Any], known: Iterable[str], of: str = "") -> None:
        """Counts the fields of a file that hold something and are none of those known."""
        for name in fields.keys() - set(known):
            if fields[name] not in (None, "", [], {}):
                self.note(f"field {cut(str(name), LONGEST)}{of}")

    def losses(self) -> list[Loss]:
        """All that was counted, sorted by what it is."""
        return [Loss(what, count) for what, count in sorted(self.counts.items())]


def told(losses: Iterable[Loss]) -> str:
    """`212 scores, 14 attributes colour, 3 masks with a hole`, for a terminal."""
    return ", ".join(_counted(each) for each in losses)


def _counted(loss: Loss) -> str:
    noun, space, rest = printable(" ".join(loss.what.split())).partition(" ")
    return f"{amount(loss.count, noun)}{space}{rest}"


def unplaced(dataset: Dataset, places: Iterable[Place]) -> Tally:
    """What of a dataset a format with these places can't hold."""
    tally, missing = Tally(), set(EVERY_PLACE) - set(places)
    for image in dataset.images:
        _note_image(image, missing, tally)
        for each in image.objects:
            _note_object(each, missing, tally)
    if "classes" in missing:
        used = {each.label for image in dataset.images for each in image.objects}
        tally.note("class without an object", len(set(dataset.classes) - used))
    if "category ids" in missing and numbered(dataset.category_ids) is not None:
        tally.note("id of a category", len(dataset.classes))
    return tally


def numbered(category_ids: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Ids of categories; None for 1, 2, ..., which say nothing."""
    return None if category_ids is None or list(category_ids) == list(range(1, len(category_ids) + 1)) else category_ids


def _note_image(image: LabelledImage, missing: set[Place], tally: Tally) -> None:
    if "ids" in missing:
        tally.note("id of an image", image.id is not None)
    if "attributes of images" in missing:
        for name in image.attributes:
            tally.note(f"attribute {cut(name, LONGEST)} of an image")


def _note_object(each: LabelledObject, missing: set[Place], tally: Tally) -> None:
    present = {
        "score": each.score is not None,
        "model": each.model is not None,
        "crowd": each.crowd,
        "difficult": each.difficult,
        "ids": each.id is not None,
        "mask": bool(each.segmentation),
        "box": bool(each.segmentation) and "mask" not in missing and around(each.segmentation) != each.box,
        "area": each.area is not None,
    }
    for place, what in WHAT.items():
        if place in missing:
            tally.note(what, present[place])
    if "attributes" in missing:
        for name in each.attributes:
            tally.note(f"attribute {cut(name, LONGEST)}")


WHAT = {
    "score": "score",
    "model": "name of a model",
    "crowd": "mark as crowd",
    "difficult": "mark as difficult",
    "ids": "id of an object",
    "mask": "mask",
    "box": "box beside its mask",
    "area": "area beside its mask or box",
}


def attributes_of(fields: object, tally: Tally, where: str) -> dict[str, Value]:
    """Attributes as JSON has them: texts, numbers, true and false, lists of texts; others are counted as lost.

    Raises:
      ValueError: for what is no mapping; `where` begins its message.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"{where}: attributes is {cut(repr(fields), 80)}; allowed is an object of names and values")
    found = {str(name): _value(value) for name, value in fields.items()}
    for name, value in found.items():
        if value is None:
            tally.note(f"attribute {cut(name, LONGEST)} that is no text, number, true or false")
    return {name: value for name, value in found.items() if value is not None}


def _value(value: object) -> Value | None:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(value, str | bool):
        return value
    return value if isinstance(value, int | float) and number(value) is not None else None


def score_of(value: object, where: str) -> float | None:
    """A score as JSON has it. Raises DataError for what is neither none nor from 0 to 1; `where` begins its message."""
    found = number(value)
    if value is not None and (found is None or not 0 <= found <= 1):
        raise DataError(f"{where}: score is {shown(value)}; allowed is 0 to 1")
    return found


def listed(value: Value) -> Any:
    """The value as JSON has it: several texts as a list."""
    return list(value) if isinstance(value, tuple) else value

"""Queue: which objects or images a person is shown, those that are most probably wrong first.

`Index` keeps what is known of all images but the masks, and follows what is stored, by this process or another.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from jaxvision.annotate import order
from jaxvision.annotate.records import Annotation, ImageRecord, Source, State
from jaxvision.annotate.store import Store
from jaxvision.formats.labelled import Value

MOST_VALUES = 50
"""Values of an attribute that are listed."""
FRACTION = re.compile(r" [01]\.\d+$")
"""What stands behind the name of a colour, as in `red 0.62` (`attributes`)."""


def wrongness(record: ImageRecord) -> list[float]:
    """How likely each object of an image is wrong (`order.doubts`); 0 where a person has decided, or it is rejected."""
    open_ones = order.undecided(record._replace(state="new"))
    doubts = dict(zip((each.id for each in open_ones), order.doubts(open_ones), strict=True))
    return [doubts.get(each.id, 0.0) for each in record.objects]


Order = Callable[[float], float]
"""How early an object is shown, from the probability that it is wrong: the higher, the earlier. An image has the sum."""
ORDERS: Mapping[str, Order] = {
    "likely wrong first": lambda wrong: wrong,
    "likely right first": lambda wrong: -wrong,
    "least certain first": lambda wrong: 1 - 2 * abs(wrong - 0.5),
}
"""Orders by the names that the page shows; the first is the default. Equal ones come in order of the images."""


class Filters(NamedTuple):
    """What is shown; None lets everything through."""

    label: str | None = None
    source: str | None = None
    """Name of a model."""
    low: float = 0.0
    """Least probability, or score where there is none (`order.sureness`); what a person has decided has 1."""
    high: float = 1.0
    attribute: tuple[str, Value] | None = None
    """Key and value, or one of the texts where it has several; of `colours` the name of one."""
    verdict: Literal["new", "accepted", "rejected", "human"] | None = "new"
    """New: not decided, in an image that nobody has looked at as a whole; human: touched by a person."""
    state: State | None = None
    """State of the image."""

    def fits(self, each: Annotation) -> bool:
        """Whether an object is shown, whatever its image."""
        sure = 1.0 if each.decided else order.sureness(each)
        return (
            (self.label is None or each.label == self.label)
            and (self.source is None or any(source.model == self.source for source in each.sources))
            and self.low <= sure <= self.high
            and (self.attribute is None or self.attribute[1] in _values(each, self.attribute[0]))
            and (self.verdict is None or (each.human if self.verdict == "human" else each.verdict == self.verdict))
        )

    def chosen(self, record: ImageRecord) -> list[Annotation]:
        """The objects of an image that are shown."""
        if self.state not in (None, record.state) or (self.verdict == "new" and record.state == "reviewed"):
            return []
        return [each for each in record.objects if self.fits(each)]

    def without_objects(self, record: ImageRecord) -> bool:
        """Whether an image that has no object is shown: no filter asks for one, and nobody has looked at it yet."""
        asks = self._replace(verdict=None, state=None) != Filters(verdict=None)
        fits = self.state in (None, record.state)
        return not record.objects and not asks and fits and (self.verdict is None or record.state != "reviewed")


class Entry(NamedTuple):
    """What is shown next."""

    number: int
    """Number of the image."""
    object: int | None
    """Id of the object; None for the whole image."""


class Queue(NamedTuple):
    """What is shown, in order."""

    entries: list[Entry]
    images: int
    objects: int
    """How many objects fit, in how many images; by images those without an object count, too."""


class Index:
    """What a store knows of its images, without masks, in memory. Images have numbers, which stay as long as it lives."""

    def __init__(self, store: Store):
        self.store = store
        self.records: list[ImageRecord] = []
        """By number."""
        self.wrong: list[dict[int, float]] = []
        """Probability that it is wrong of each object, by number of the image and id."""
        self.numbers: dict[str, int] = {}
        self.complete: set[int] = set()
        """Numbers of the images whose objects are all decided, but that are not reviewed (`order.complete`)."""
        self._sources: dict[tuple[Source, ...], tuple[Source, ...]] = {}
        self._seen = self._last()
        for record in store.records():
            self._keep(record)

    def follow(self) -> list[str]:
        """Takes in what was stored since the last call; the names of the images."""
        last = self._last()
        question = "SELECT DISTINCT name FROM events WHERE number > ? AND number <= ? ORDER BY name"
        names = [name for (name,) in self.store.ask(question, (self._seen, last))]
        for name in names:
            record = self.store.get(name)
            if record is not None:
                self._keep(record)
        self._seen = last
        return names

    def _last(self) -> int:
        return self.store.ask("SELECT coalesce(max(number), 0) FROM events")[0][0]

    def _keep(self, record: ImageRecord) -> None:
        number = self.numbers.setdefault(record.name, len(self.records))
        light = record._replace(objects=tuple(map(self._light, record.objects)))
        self.records[number : number + 1] = [light]
        wrong = zip((each.id for each in record.objects), wrongness(light), strict=True)
        self.wrong[number : number + 1] = [dict(wrong)]
        (self.complete.add if order.complete(light) else self.complete.discard)(number)

    def _light(self, each: Annotation) -> Annotation:
        return each._replace(segmentation=None, sources=self._sources.setdefault(each.sources, each.sources))

    def objects(self, filters: Filters, early: Order) -> Queue:
        """Objects, one by one."""
        found = [
            (early(self.wrong[number][each.id]), number, each.id)
            for number, record in enumerate(self.records)
            for each in filters.chosen(record)
        ]
        found.sort(key=lambda each: -each[0])
        return Queue([Entry(*each[1:]) for each in found], len({number for _, number, _ in found}), len(found))

    def images(self, filters: Filters, early: Order) -> Queue:
        """Images by their objects together; those without an object come last."""
        found, last, objects = [], [], 0
        for number, record in enumerate(self.records):
            chosen = filters.chosen(record)
            objects += len(chosen)
            if chosen:
                found.append((sum(early(self.wrong[number][each.id]) for each in chosen), number))
            elif filters.without_objects(record):
                last.append(number)
        found.sort(key=lambda each: -each[0])
        numbers = [*(number for _, number in found), *last]
        return Queue([Entry(number, None) for number in numbers], len(numbers), objects)

    def matching(self, filters: Filters) -> list[tuple[ImageRecord, list[Annotation]]]:
        """The images that have objects which fit, each with those."""
        pairs = ((record, filters.chosen(record)) for record in self.records)
        return [pair for pair in pairs if pair[1]]

    def labels(self) -> list[str]:
        """Labels of all objects, sorted."""
        return sorted({each.label for record in self.records for each in record.objects})

    def models(self) -> list[str]:
        """Names of all models that found something, sorted."""
        return sorted({source.model for sources in self._sources for source in sources})

    def attributes(self) -> dict[str, list[Value]]:
        """Values of each attribute, and texts where it has several, sorted, `MOST_VALUES` at most; of numbers none."""
        found: dict[str, set[Value]] = {}
        for record in self.records:
            for each in record.objects:
                for key in each.attributes:
                    values = found.setdefault(key, set())
                    if len(values) < MOST_VALUES:
                        values.update(value for value in _values(each, key) if isinstance(value, str | bool))
        return {key: sorted(values, key=str) for key, values in sorted(found.items())}


def _values(each: Annotation, key: str) -> tuple[Value, ...]:
    """The values of an attribute: one, several texts, or none; of `colours` the names, without the fractions after them."""
    value = each.attributes.get(key)
    if key == "colours" and isinstance(value, tuple):
        return tuple(dict.fromkeys(FRACTION.sub("", text) for text in value))
    return () if value is None else value if isinstance(value, tuple) else (value,)

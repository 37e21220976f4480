"""Queue: which objects or images a person is shown, those that are most probably wrong first.

`Index` keeps what is known of all images but the masks, and follows what is stored, by this process or another.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from jaxvision.annotate.records import Annotation, ImageRecord, Source, State
from jaxvision.annotate.store import Store
from jaxvision.formats.labelled import Value

UNKNOWN = 0.5
"""Probability that an object is right of which neither a probability nor a score is known."""
MOST_VALUES = 50
"""Values of an attribute that are listed."""


def wrongness(each: Annotation) -> float:
    """Probability that an object is wrong: 1 less its probability, or its score; 0 where a person has looked at it."""
    if each.human:
        return 0.0
    sure = each.probability if each.probability is not None else each.score
    return 1 - min(max(UNKNOWN if sure is None else sure, 0.0), 1.0)


Order = Callable[[Annotation], float]
"""How early an object is shown: the higher, the earlier."""
ORDERS: Mapping[str, Order] = {
    "likely wrong first": wrongness,
    "likely right first": lambda each: -wrongness(each),
    "least certain first": lambda each: -abs(wrongness(each) - 0.5),
}
"""Orders of a queue, by the names that the page shows; the first is the default. Equal ones come in order of the images."""


class Filters(NamedTuple):
    """What is shown; None lets everything through."""

    label: str | None = None
    source: str | None = None
    """Name of a model."""
    low: float = 0.0
    """Least probability, or score where there is none."""
    high: float = 1.0
    attribute: tuple[str, Value] | None = None
    verdict: Literal["new", "accepted", "rejected", "human"] | None = "new"
    state: State | None = None
    """State of the image."""

    def fits(self, each: Annotation) -> bool:
        """Whether an object is shown, whatever its image."""
        sure = each.probability if each.probability is not None else each.score
        return (
            (self.label is None or each.label == self.label)
            and (self.source is None or any(source.model == self.source for source in each.sources))
            and self.low <= (1.0 if sure is None else sure) <= self.high
            and (self.attribute is None or each.attributes.get(self.attribute[0]) == self.attribute[1])
            and (self.verdict is None or (each.human if self.verdict == "human" else each.verdict == self.verdict))
        )

    def chosen(self, record: ImageRecord) -> list[Annotation]:
        """The objects of an image that are shown."""
        if self.state is not None and record.state != self.state:
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
    """How many objects fit, in how many images."""


class Index:
    """What a store knows of its images, without masks, in memory. Images have numbers, which stay as long as it lives."""

    def __init__(self, store: Store):
        self.store = store
        self.records: list[ImageRecord] = []
        """By number."""
        self.numbers: dict[str, int] = {}
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

    def _light(self, each: Annotation) -> Annotation:
        return each._replace(segmentation=None, sources=self._sources.setdefault(each.sources, each.sources))

    def objects(self, filters: Filters, order: Order) -> Queue:
        """Objects, one by one."""
        found = [(number, each) for number, record in enumerate(self.records) for each in filters.chosen(record)]
        found.sort(key=lambda pair: -order(pair[1]))
        entries = [Entry(number, each.id) for number, each in found]
        return Queue(entries, len({number for number, _ in found}), len(found))

    def images(self, filters: Filters, order: Order) -> Queue:
        """Images by their objects together; those without an object come last."""
        found, objects = [], 0
        for number, record in enumerate(self.records):
            chosen = filters.chosen(record)
            objects += len(chosen)
            if chosen:
                found.append((_together(map(order, chosen)), number))
            elif filters.without_objects(record):
                found.append(((-math.inf, -math.inf), number))
        found.sort(key=lambda pair: pair[0], reverse=True)
        images = sum(first > -math.inf for (first, _), _ in found)
        return Queue([Entry(number, None) for _, number in found], images, objects)

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
        """Values of each attribute, sorted by their text, `MOST_VALUES` at most; of numbers none."""
        found: dict[str, set[Value]] = {}
        for record in self.records:
            for each in record.objects:
                for key, value in each.attributes.items():
                    values = found.setdefault(key, set())
                    if len(values) < MOST_VALUES and isinstance(value, str | bool | tuple):
                        values.add(value)
        return {key: sorted(values, key=str) for key, values in sorted(found.items())}


def _together(wrong: Iterable[float]) -> tuple[float, float]:
    """How early an image is shown: the probability that any of its objects is wrong, then their expected number.

    Of orders that are no probabilities, the highest of any object counts.
    """
    values = list(wrong)
    if min(values) < 0:
        return max(values), 0.0
    return 1 - math.prod(1 - value for value in values), sum(values)

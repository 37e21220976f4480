"""Makers: which models, with which settings and names of classes, made the guesses of an image.

What was learned from the guesses of some models holds for these alone: not for a model trained further, nor for the same one
beside a second, whose scores mean something else.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.run.digest import checksum

DIGITS = 16


def of_description(labelling: Mapping[str, Any]) -> str:
    """Digest of the makers of a run of `annotate label` (`streaming.description`): masks and attributes don't count."""
    return checksum({"models": labelling["models"], "names": labelling["names"]})[:DIGITS]


class Makers:
    """The makers of the guesses of a store's images."""

    def __init__(self, settings: Mapping[str, str]):
        self._settings = settings
        self._known: dict[str, Mapping[str, Any] | None] = {}

    def of(self, record: ImageRecord) -> str:
        """Digest of the makers of an image's guesses; where the store does not tell its labelling, of their sources."""
        told = self._labelling(record)
        if told is not None:
            return of_description(told)
        sources = sorted({source for each in record.objects for source in each.sources})
        return checksum({"sources": list(map(list, sources))})[:DIGITS] if sources else ""

    def mixed(self, record: ImageRecord, guesses: Iterable[Annotation]) -> bool:
        """Whether some of these guesses are of other models than the last that labelled the image."""
        told = self._labelling(record)
        models = {Source(*each) for each in told["models"]} if told is not None else set()
        return told is not None and any(not models.issuperset(each.sources) for each in guesses)

    def _labelling(self, record: ImageRecord) -> Mapping[str, Any] | None:
        key = record.labelling
        if key not in self._known:
            text = self._settings.get(f"labelling {key}") if key else None
            self._known[key] = None if text is None else json.loads(text)
        return self._known[key]

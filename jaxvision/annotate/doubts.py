"""Doubts: objects of a dataset that are probably wrong, from predictions of models that were not trained on their images.

An object is missing where a confident prediction has no annotation, misplaced where the predictions of its class lie beside
it, misnamed where another class is predicted in its place, spurious where nothing is. Every score depends on the image's
annotations and predictions alone, so the ranks of an image don't depend on its company.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvision.annotate.agreement import overlap
from jaxvision.annotate.exchange import PROBABILITY
from jaxvision.formats.labelled import LabelledImage, LabelledObject

AT = (0.3, 0.6)
"""IoU up to which two objects are at different places, and from which on they are at the same one."""
PLACED = (0.4, 0.7)
"""IoU up to which an annotation is misplaced by what a prediction says, and from which on it is well placed."""
NEAR = (0.05, 0.3)
"""IoU up to which a prediction has nothing to do with an annotation, and from which on it may be of the same object."""
DUPLICATE = 0.4
"""IoU with a more confident prediction above which one that has no annotation is not told once more."""
SPURIOUS = 0.5
"""Score of an annotation where nothing at all is predicted: detectors miss more than they make up."""


class DoubtKind(StrEnum):
    """What may be wrong with an object."""

    MISSING = "missing"
    MISPLACED = "misplaced"
    MISNAMED = "misnamed"
    SPURIOUS = "spurious"


class Doubt(NamedTuple):
    """Object that is probably wrong."""

    image: str
    kind: DoubtKind
    score: float
    """From 0 to 1, larger where it is more likely wrong."""
    object: int | None
    """Its number in the image, from 0; None for a missing one."""
    annotated: LabelledObject | None
    predicted: LabelledObject | None
    """The prediction that contradicts it; None for a spurious one."""
    iou: float | None
    """IoU of the two; None where one is missing."""


class Evidence(NamedTuple):
    """What an image's predictions say of its annotations."""

    iou: Float[np.ndarray, "n m"]
    """IoU of each annotation with each prediction."""
    same: Float[np.ndarray, "n m"]
    """1 where they are of one class, else 0."""
    confidence: Float[np.ndarray, "m"]
    """Probability of each prediction, or its score where there is none."""
    others: Float[np.ndarray, "n m"]
    """How well the best other annotation of its class is placed where each prediction is, from 0 to 1."""


def doubts_of(image: LabelledImage, found: Sequence[LabelledObject]) -> list[Doubt]:
    """Doubts of an image, the most likely first: one an annotation, and one a place where an annotation may be missing.

    A prediction that is more likely to be of a misplaced annotation is not told as a missing one, too. Masks are compared
    where both sides have one, else boxes. Crowds and difficult objects are not doubted, nor is what is predicted on them.

    Args:
      image: with its annotations, in pixels.
      found: predictions for it, with scores, by a model that has not seen its annotations; low scores (from 0.05, say) tell
        more.
    """
    sure = [number for number, each in enumerate(image.objects) if not (each.crowd or each.difficult)]
    annotated = [image.objects[number] for number in sure]
    evidence = _evidence(annotated, found, image)
    doubts, told = [], {}
    for row, number in enumerate(sure):
        kind, score, column = _doubt(evidence, row)
        if kind is DoubtKind.MISPLACED:
            told[column] = max(score, told.get(column, 0))
        other, iou = (None, None) if column is None else (found[column], float(evidence.iou[row, column]))
        doubts.append(Doubt(image.name, kind, score, number, annotated[row], other, iou))
    unsure = [each for each in image.objects if each.crowd or each.difficult]
    explained = np.concatenate([evidence.iou, overlap(found, unsure, image.size).T]) if unsure else evidence.iou
    for column, score in _missing(explained, evidence.confidence, overlap(found, found, image.size)):
        if score > told.get(column, 0):
            doubts.append(Doubt(image.name, DoubtKind.MISSING, score, None, None, found[column], None))
    return sorted((each for each in doubts if each.score > 0), key=lambda each: -each.score)


def _evidence(annotated: Sequence[LabelledObject], found: Sequence[LabelledObject], image: LabelledImage) -> Evidence:
    names = [np.asarray([each.label for each in objects], object) for objects in (annotated, found)]
    same = (names[0][:, None] == names[1][None]).astype(np.float64).reshape(len(annotated), len(found))
    iou, sure = overlap(annotated, found, image.size), np.asarray([confidence(each) for each in found])
    return Evidence(iou, same, sure, of_others(same * ramp(iou, PLACED)))


def of_others(values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """The largest value, 0 or more, that any other row has in each column."""
    if len(values) < 2:
        return np.zeros_like(values)
    second, first = np.partition(values, -2, axis=0)[-2:]
    return np.where(np.arange(len(values))[:, None] == values.argmax(0), second, first)


def confidence(each: LabelledObject) -> float:
    """Calibrated probability of a prediction where it has one, else its score, else 1."""
    probability = each.attributes.get(PROBABILITY, each.score)
    return float(probability) if isinstance(probability, int | float) else 1.0


def _doubt(evidence: Evidence, row: int) -> tuple[DoubtKind, float, int | None]:
    """What is most likely wrong with an annotation, how likely, and the prediction that says so."""
    iou, same, sure = evidence.iou[row], evidence.same[row], evidence.confidence
    at = sure * ramp(iou, AT)
    named, other = same * at, (1 - same) * at
    right = (same * sure * ramp(iou, PLACED)).max(initial=0)
    beside = same * sure * ramp(iou, NEAR) * (1 - evidence.others[row])
    candidates = (
        (DoubtKind.MISNAMED, other * (1 - named.max(initial=0))),
        (DoubtKind.MISPLACED, beside * (1 - right)),
        (DoubtKind.SPURIOUS, np.asarray([SPURIOUS * (1 - at.max(initial=0))])),
    )
    kind, scores = max(candidates, key=lambda each: each[1].max(initial=0))
    return kind, float(scores.max(initial=0)), None if kind is DoubtKind.SPURIOUS else int(scores.argmax())


def _missing(
    iou: Float[np.ndarray, "n m"], sure: Float[np.ndarray, "m"], among: Float[np.ndarray, "m m"]
) -> Iterable[tuple[int, float]]:
    """Predictions that no annotation explains, each place once, and how likely an annotation is missing there."""
    kept: list[int] = []
    for column in np.argsort(-sure, kind="stable").tolist():
        if not (among[column, kept] > DUPLICATE).any():
            kept.append(column)
            yield column, float(sure[column] * (1 - ramp(iou[:, column], AT).max(initial=0)))


def ramp(iou: Float[np.ndarray, "*n"], ends: tuple[float, float]) -> Float[np.ndarray, "*n"]:
    """0 up to the first end, 1 from the second on, linear between them."""
    return np.clip((iou - ends[0]) / (ends[1] - ends[0]), 0, 1)


def ranked(images: Iterable[LabelledImage], predictions: Mapping[str, Sequence[LabelledObject]]) -> list[Doubt]:
    """Doubts of all images, the most likely first; images without an entry in the predictions have none.

    Args:
      images: annotated.
      predictions: by the names of the images.
    """
    doubts = [
        each for image in images if image.name in predictions for each in doubts_of(image, predictions[image.name])
    ]
    return sorted(doubts, key=lambda each: -each.score)


def suspicion(doubts: Iterable[Doubt]) -> float:
    """How likely an image has an object that is wrong, from 0 to 1: the score of its worst doubt."""
    return max((each.score for each in doubts), default=0.0)

"""Doubts: objects of a dataset that are probably wrong, from predictions of models that were not trained on their images.

An object is missing where a confident prediction has no annotation, misplaced where the predictions of its class lie beside
it, misnamed where another class is predicted in its place, spurious where nothing is. Every score depends on the image's
annotations and predictions alone, so the ranks of an image don't depend on its company.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxvision.annotate.agreement import overlap
from jaxvision.formats.annotation import Box
from jaxvision.formats.labelled import LabelledImage, LabelledObject

AT = (0.3, 0.6)
"""IoU up to which two objects are at different places, and from which on they are at the same one."""
PLACED = (0.55, 0.8)
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

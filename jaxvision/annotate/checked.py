"""Checked images: which guesses of models were right, by a truth that a person has made.

A guess is right if it has found an object of its class that no better guess of its image has found (IoU at least 0.5).
Guesses in crowds and difficult objects are left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.annotate.records import Annotation
from jaxvision.formats.annotation import AnnotatedImage
from jaxvision.metrics.matching import matches, pairs
from jaxvision.metrics.tables import Annotated, Detected, Tables


class Checked(NamedTuple):
    """Guesses of checked images and the objects that these have."""

    images: int
    classes: tuple[str, ...]
    models: tuple[str, ...]
    image: Int[np.ndarray, "n"]
    """Number of each guess's image."""
    label: Int[np.ndarray, "n"]
    model: Int[np.ndarray, "n"]
    score: Float[np.ndarray, "n"]
    right: Bool[np.ndarray, "n"]
    true_image: Int[np.ndarray, "m"]
    """Number of each true object's image, the ignored left out."""
    true_label: Int[np.ndarray, "m"]

    def of_images(self, images: Int[np.ndarray, "k"]) -> "Checked":
        """Only these images, numbered in this order."""
        place = np.full(self.images, -1)
        place[images] = np.arange(len(images))
        image, true = place[self.image], place[self.true_image]
        kept, real = (np.flatnonzero(each >= 0)[np.argsort(each[each >= 0], kind="stable")] for each in (image, true))
        return Checked(
            len(images),
            self.classes,
            self.models,
            image[kept],
            self.label[kept],
            self.model[kept],
            self.score[kept],
            self.right[kept],
            true[real],
            self.true_label[real],
        )


def checked(
    guesses: Sequence[Sequence[Annotation]], truth: Sequence[AnnotatedImage], classes: Sequence[str]
) -> Checked:
    """The guesses of each image with its truth.

    Args:
      guesses: of each image; all have a score.
      truth: the same images, boxes in pixels; their labels are numbers of `classes`.
      classes: names; guesses of other classes nobody has checked, so that they are left out.
    """
    listed = [(number, each) for number, objects in enumerate(guesses) for each in objects if each.label in classes]
    models = tuple(sorted({model_of(each) for _, each in listed}))
    true = [(number, each) for number, image in enumerate(truth) for each in image.objects]
    found = _tables(listed, true, tuple(classes), len(truth))
    detected, annotated = found.detected, found.annotated
    match = matches(found, pairs(found))
    counts = ~np.append(annotated.ignore, False)[match]
    model = np.array([models.index(model_of(listed[place][1])) for place in detected.place], int)
    real = ~annotated.ignore
    return Checked(
        len(truth),
        tuple(classes),
        models,
        detected.image[counts],
        detected.label[counts],
        model[counts],
        detected.score[counts],
        match[counts] >= 0,
        annotated.image[real],
        annotated.label[real],
    )


def _tables(
    listed: Sequence[tuple[int, Annotation]], true: Sequence[tuple], names: tuple[str, ...], images: int
) -> Tables:
    """The tables that the metrics match: the best guess of an image first."""
    image, score = np.array([each[0] for each in listed], int), np.array([each.score for _, each in listed], float)
    place = np.lexsort((-score, image))
    label = np.array([names.index(each.label) for _, each in listed], int)
    box = np.array([each.box for _, each in listed], float).reshape(-1, 4)
    detected = Detected(image[place], label[place], score[place], box[place], place)
    boxes = np.array([each.box for _, each in true], float).reshape(-1, 4)
    columns = ([number for number, _ in true], [each.label for _, each in true])
    of_image, of_class = (np.array(each, int) for each in columns)
    ignore = np.array([each.ignore for _, each in true], bool)
    return Tables(images, len(names), detected, Annotated(of_image, of_class, boxes, ignore, np.zeros(len(true))))


def model_of(each: Annotation) -> str:
    """Name of the model that made a guess, or of all that were fused into it."""
    return " + ".join(sorted({source.model for source in each.sources}))

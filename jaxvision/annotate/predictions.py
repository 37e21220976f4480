"""Guesses: what a model of any task predicts for an image, as objects with the names that are written.

Detections are objects as they are, with their masks if there are some; of a panoptic map each segment is one; of a map of
classes each connected part of a class, but for one called background; what a classifier says is an object with the box of
the whole image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxvision.draw.palette import BACKGROUND
from jaxvision.errors import ConfigError
from jaxvision.experiment import Output, Record, Selection
from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.masks import runs
from jaxvision.masks.class_map import class_map
from jaxvision.masks.runs import Runs
from jaxvision.metrics.components import parts_of, probabilities
from jaxvision.types import Canvas, ClassScores, PixelScores, Prediction

SMALLEST = 16
"""Pixels that a connected part of a map of classes must have."""


class Guess(NamedTuple):
    """Object that a model found in an image."""

    label: str
    box: Box
    score: float
    mask: Runs | None = None


def output_of(prediction: Prediction, output: Output) -> Output:
    """How predictions of this type become records that `guesses` reads: those of pixels by their connected parts."""
    return Output(parts_record) if isinstance(prediction, PixelScores) else output


def check(prediction: Prediction, model: str, *, tiled: bool) -> None:
    """Raises ConfigError where a classifier is to see tiles."""
    if tiled and isinstance(prediction, ClassScores):
        raise ConfigError(
            f"--tiles= is for models that find objects or the class of each pixel; {model} is a classifier"
        )


def parts_record(scores: PixelScores, canvas: Canvas, selection: Selection) -> Record:
    """The connected parts of each class of a map as objects; their score is the mean probability over their pixels."""
    logits = np.asarray(scores.logits)
    logits = logits.astype(np.promote_types(logits.dtype, np.float32) if logits.dtype.kind == "f" else np.float32)
    numbers = class_map(logits, canvas).astype(np.int32) + 1
    for label, name in enumerate(selection.classes, 1):
        if name == BACKGROUND:
            numbers[numbers == label] = 0
    of = probabilities(logits, canvas)
    parts = parts_of(numbers, lambda number: of(number - 1), SMALLEST)
    objects = [
        {"label": selection.classes[part.label], "score": part.score, "box": part.box, "segmentation": part.mask.coco()}
        for part in parts
        if part.score >= selection.score_threshold
    ]
    return {"height": numbers.shape[0], "width": numbers.shape[1], "objects": objects}


def guesses(record: Record, size: Size, names: Mapping[str, str], least: float) -> list[Guess]:
    """What a record says of an image.

    Args:
      record: of `Model.stream`, all classes of a classifier.
      size: height and width of the image.
      names: from the classes of the model to those that are written; others are left out.
      least: score below which a class of a classifier is left out.

    Raises:
      ConfigError: for a record of another form.
    """
    for key, read in _READERS.items():
        if key in record:
            return list(read(record[key], size, names, least))
    raise ConfigError(
        f"a record of {', '.join(record)} holds no objects; those of detectors, segmenters and classifiers do"
    )


def _objects(found: Sequence[Record], size: Size, names: Mapping[str, str], least: float) -> Iterator[Guess]:
    for each in found:
        if each["label"] in names and each["score"] >= least:
            mask = runs.of_coco(each["segmentation"]) if "segmentation" in each else None
            x0, y0, x1, y1 = map(float, each["box"])
            yield Guess(names[each["label"]], (x0, y0, x1, y1), float(each["score"]), mask)


def _classes(found: Sequence[Record], size: Size, names: Mapping[str, str], least: float) -> Iterator[Guess]:
    """The best class, those with one name counted together."""
    total: dict[str, float] = {}
    for each in found:
        if each["name"] in names and each["probability"] is not None:
            name = names[each["name"]]
            total[name] = total.get(name, 0.0) + each["probability"]
    best = max(total, key=total.__getitem__, default=None)
    if best is not None and total[best] >= least:
        yield Guess(best, (0.0, 0.0, float(size[1]), float(size[0])), min(total[best], 1.0))


_READERS: Mapping[str, Callable[..., Iterator[Guess]]] = {
    "objects": _objects,
    "segments": _objects,
    "classes": _classes,
}


def mirrored(found: Guess, size: Size) -> Guess:
    """What was found in the mirrored image, in the image as it is."""
    (x0, y0, x1, y1), width = found.box, size[1]
    mask = None if found.mask is None else runs.encode(runs.decode(found.mask)[:, ::-1])
    return found._replace(box=(width - x1, y0, width - x0, y1), mask=mask)

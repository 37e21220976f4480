"""How predictions are written: a record an image, as lines of a table, a line of JSON, or part of a COCO-like JSON file."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from jaxvision.errors import ConfigError
from jaxvision.types import ClassScores, Detections, Prediction

SUFFIXES = (".csv", ".jsonl", ".json")
Where = tuple[str, int | None]
"""A file, and the number of the frame if it is a video."""
Record = dict[str, Any]
"""A prediction as JSON data."""


class Shown(NamedTuple):
    """How large an image is: `(height, width)`."""

    size: tuple[int, int]
    """Of its content on the canvas."""
    original_size: tuple[int, int]
    """Of the file."""


class Wanted(NamedTuple):
    """What to tell of a prediction."""

    classes: Sequence[str]
    top: int
    """Of a classifier: so many classes."""
    score: float
    """Of a detector: what has this score or a higher one."""


class Form(NamedTuple):
    """How the predictions of one type are written."""

    check: Callable[[Prediction, Sequence[str]], None]
    """`(shapes, classes)`: raises ConfigError if they don't fit."""
    record: Callable[[Prediction, int, Shown, Wanted], Record]
    """`(prediction, row, shown, wanted)`: JSON data for one image; the arrays are NumPy's."""
    columns: Callable[[int], list[str]]
    """`(top)`: the names of the cells."""
    lines: Callable[[Record], list[list]]
    """A record as lines of a table."""
    objects: bool
    """Whether there are boxes: to draw, and for a COCO-like file."""


def check_classes(scores: ClassScores, classes: Sequence[str]) -> None:
    """Raises ConfigError if there are not as many scores as classes."""
    if scores.logits.shape[-1] != len(classes):
        raise ConfigError(f"the model gives scores for {scores.logits.shape[-1]} classes, the data have {len(classes)}")


def class_record(scores: ClassScores, row: int, classes: Sequence[str], top: int) -> Record:
    """The `top` classes, best first, with their probabilities (null where not finite).

    In float32 at least. Of equal scores the class with the smaller number comes first.
    """
    logits = np.asarray(scores.logits[row])
    logits = logits.astype(np.promote_types(logits.dtype, np.float32) if logits.dtype.kind == "f" else np.float32)
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max())
        probabilities = powers / powers.sum()
    best = np.argsort(-logits, kind="stable")[:top]
    return {"classes": [{"name": classes[i], "probability": _finite(probabilities[i])} for i in best]}


def _finite(value: np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None


def class_columns(top: int) -> list[str]:
    """`class_1`, `probability_1`, ..."""
    return [f"{what}_{i}" for i in range(1, top + 1) for what in ("class", "probability")]


def class_cells(record: Record) -> list:
    """The values of `class_columns`."""
    return [value for each in record["classes"] for value in (each["name"], each["probability"])]


def check_objects(found: Detections, classes: Sequence[str]) -> None:
    """Any number of classes will do."""


def objects_record(found: Detections, row: int, shown: Shown, wanted: Wanted) -> Record:
    """The objects with a score that is high enough, in the order of the prediction.

    Boxes are `x0 y0 x1 y1` in pixels of the image file, to a hundredth, cut to the image, for content that shows all of it;
    what has no extent there is left out. `category_id` is 1 more than the number of the class.

    Raises:
      ConfigError: for a label that is no class.
    """
    height, width = shown.original_size
    scale = np.array([width / shown.size[1], height / shown.size[0]] * 2)
    boxes = np.clip(np.asarray(found.boxes[row], np.float64) * scale, 0, [width, height] * 2).round(2)
    scores = np.asarray(found.scores[row], np.float64)
    extent = (boxes[:, 2:] > boxes[:, :2]).all(1)
    kept = np.flatnonzero(np.asarray(found.valid[row]) & (scores >= wanted.score) & extent)
    labels = np.asarray(found.labels[row])[kept].tolist()
    if labels and not 0 <= min(labels) <= max(labels) < len(wanted.classes):
        raise ConfigError(
            f"the model finds classes {min(labels)} to {max(labels)}, the data have {len(wanted.classes)}"
        )
    each = zip(labels, scores[kept].tolist(), boxes[kept].tolist(), strict=True)
    objects = [
        {"label": wanted.classes[label], "category_id": label + 1, "score": score, "box": box}
        for label, score, box in each
    ]
    return {"height": height, "width": width, "objects": objects}


def objects_columns(top: int) -> list[str]:
    """Label, score, corners."""
    del top
    return ["label", "score", "x0", "y0", "x1", "y1"]


def objects_lines(record: Record) -> list[list]:
    """A line an object, with the values of `objects_columns`."""
    return [[each["label"], each["score"], *each["box"]] for each in record["objects"]]


FORMS = {
    ClassScores: Form(
        check_classes,
        lambda scores, row, shown, wanted: class_record(scores, row, wanted.classes, wanted.top),
        class_columns,
        lambda record: [class_cells(record)],
        objects=False,
    ),
    Detections: Form(check_objects, objects_record, objects_columns, objects_lines, objects=True),
}


def form_of(shapes: Prediction, classes: Sequence[str]) -> Form:
    """How to write such predictions.

    Raises:
      ConfigError: for a type that can't be written, and one that doesn't fit the classes.
    """
    if type(shapes) not in FORMS:
        known = ", ".join(kind.__name__ for kind in FORMS)
        raise ConfigError(f"predictions of type {type(shapes).__name__} can't be written; those of type {known} can")
    form = FORMS[type(shapes)]
    form.check(shapes, classes)
    return form


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A text file that is there once the block has ended without an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


Write = Callable[[Where, Record], object]
"""Adds the record of a file or frame."""


@contextmanager
def writer(suffix: str, file: TextIO, form: Form, wanted: Wanted) -> Iterator[Write]:
    """Writes records as the suffix says; all is written once the block has ended."""
    kinds = {".csv": _table, ".jsonl": _json_lines, ".json": _coco}
    with kinds[suffix](file, form, wanted) as write:
        yield write


@contextmanager
def _table(file: TextIO, form: Form, wanted: Wanted) -> Iterator[Write]:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["file", "frame", *form.columns(wanted.top)])
    yield lambda where, record: table.writerows([*where, *line] for line in form.lines(record))


@contextmanager
def _json_lines(file: TextIO, form: Form, wanted: Wanted) -> Iterator[Write]:
    yield lambda where, record: file.write(json.dumps({**_place(where), **record}) + "\n")


@contextmanager
def _coco(file: TextIO, form: Form, wanted: Wanted) -> Iterator[Write]:
    """A file like those of COCO's annotations, with scores; only the images wait in memory for their turn."""
    images, objects = [], 0

    def write(where: Where, record: Record) -> None:
        nonlocal objects
        place = _place(where)
        size = {"height": record["height"], "width": record["width"]}
        images.append({"id": len(images) + 1, "file_name": place.pop("file"), **place, **size})
        for each in record["objects"]:
            objects += 1
            x0, y0, x1, y1 = each["box"]
            corner = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
            named = {"id": objects, "image_id": len(images), "category_id": each["category_id"]}
            more = {"bbox": corner, "area": round(corner[2] * corner[3], 2), "iscrowd": 0, "score": each["score"]}
            file.write((",\n" if objects > 1 else "\n") + json.dumps({**named, **more}))

    categories = [{"id": number, "name": name} for number, name in enumerate(wanted.classes, start=1)]
    file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
    yield write
    file.write('],\n"images": [\n' + ",\n".join(map(json.dumps, images)) + "]}\n")


def _place(where: Where) -> Record:
    name, frame = where
    return {"file": name} if frame is None else {"file": name, "frame": frame}

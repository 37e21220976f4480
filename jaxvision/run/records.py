"""How predictions are written: a record an image, as lines of a table, a line of JSON, or part of a COCO-like JSON file.

`CLASSES` and `OBJECTS` are the outputs of classifiers and detectors, those of maps are in `map_records`; an `Evaluation` may
have one of its own, such as `map_records.panoptic(things)`. Masks are COCO's run lengths, of the size of the image file.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import numpy as np
from PIL import Image

from jaxvision.draw.boxes import colour_of, with_boxes
from jaxvision.draw.masks import with_masks
from jaxvision.draw.palette import distinct
from jaxvision.errors import ConfigError, amount, raised_as
from jaxvision.experiment import Output, Record, Selection
from jaxvision.masks import runs
from jaxvision.masks.paste import run_lengths
from jaxvision.run.coco_masks import mask_of, segmentation
from jaxvision.run.map_records import PIXELS
from jaxvision.types import Canvas, ClassScores, Detections, PixelScores, Prediction

SUFFIXES = (".csv", ".jsonl", ".json")
Where = tuple[str, int | None]
"""A file, and the number of the frame if it is a video."""


def check_classes(scores: ClassScores, classes: Sequence[str]) -> None:
    """Raises ValueError if there are not as many scores as classes."""
    if scores.logits.shape[-1] != len(classes):
        raise ValueError(
            f"the model gives scores for {amount(scores.logits.shape[-1], 'class')}, the data have {len(classes)}"
        )


def class_record(scores: ClassScores, canvas: Canvas, selection: Selection) -> Record:
    """The `top_k` classes, best first, with their probabilities (null where not finite).

    In float32 at least. Of equal scores the class with the smaller number comes first. `set`, where the model gives one,
    holds all classes of the prediction set, best first.
    """
    logits = np.asarray(scores.logits)
    logits = logits.astype(np.promote_types(logits.dtype, np.float32) if logits.dtype.kind == "f" else np.float32)
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max())
        probabilities = powers / powers.sum()
    order = np.argsort(-logits, kind="stable")
    best = order[: selection.top_k]
    record = {"classes": [{"name": selection.classes[i], "probability": _finite(probabilities[i])} for i in best]}
    return (
        record
        if scores.members is None
        else {**record, "set": [selection.classes[i] for i in order if scores.members[i]]}
    )


def _finite(value: np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None


def class_columns(selection: Selection) -> list[str]:
    """`class_1`, `probability_1`, ..."""
    count = min(selection.top_k, len(selection.classes))
    return [f"{what}_{i}" for i in range(1, count + 1) for what in ("class", "probability")]


def class_lines(record: Record) -> list[list]:
    """One line, with the values of `class_columns`."""
    return [[value for each in record["classes"] for value in (each["name"], each["probability"])]]


def set_columns(selection: Selection) -> list[str]:
    """Those of `class_columns`, and `set`."""
    return [*class_columns(selection), "set"]


def set_lines(record: Record) -> list[list]:
    """One line, with the values of `set_columns`; the classes of the set with semicolons between."""
    return [[*line, "; ".join(record["set"])] for line in class_lines(record)]


def objects_record(found: Detections, canvas: Canvas, selection: Selection) -> Record:
    """The objects with a score that is high enough, in the order of the prediction.

    Boxes are `x0 y0 x1 y1` in pixels of the image file, to a hundredth, cut to the image; what has no extent there is left
    out. `category_id` is 1 more than the number of the class. Of a detector with masks each has `segmentation` and `area`,
    the pixels of its mask.

    Raises:
      ConfigError: for a label that is no class.
    """
    height, width = canvas.original_size
    boxes = canvas.in_file(found.boxes).round(2)
    scores = np.asarray(found.scores, np.float64)
    extent = (boxes[:, 2:] > boxes[:, :2]).all(1)
    kept = np.flatnonzero(np.asarray(found.valid) & (scores >= selection.score_threshold) & extent)
    labels = np.asarray(found.labels)[kept].tolist()
    if labels and not 0 <= min(labels) <= max(labels) < len(selection.classes):
        raise ConfigError(
            f"the model finds classes {min(labels)} to {max(labels)}, the data have {len(selection.classes)}"
        )
    each = zip(labels, scores[kept].tolist(), boxes[kept].tolist(), strict=True)
    objects = [
        {"label": selection.classes[label], "category_id": label + 1, "score": score, "box": box}
        for label, score, box in each
    ]
    if found.masks is not None:
        for record, mask in zip(objects, run_lengths(found.masks, kept, canvas), strict=True):
            record |= {"segmentation": segmentation(mask, polygons=selection.polygons), "area": runs.area(mask)}
    return {"height": int(height), "width": int(width), "objects": objects}


def objects_columns(selection: Selection) -> list[str]:
    """Label, score, corners."""
    del selection
    return ["label", "score", "x0", "y0", "x1", "y1"]


def objects_lines(record: Record) -> list[list]:
    """A line an object, with the values of `objects_columns`."""
    return [[each["label"], each["score"], *each["box"]] for each in record["objects"]]


def objects_annotations(record: Record) -> list[Record]:
    """The objects with COCO's `x y width height`, and their scores; the area is that of the mask, if there is one."""
    annotations = []
    for each in record["objects"]:
        x0, y0, x1, y1 = each["box"]
        width, height = round(x1 - x0, 2), round(y1 - y0, 2)
        box = {"bbox": [x0, y0, width, height], "area": each.get("area", round(width * height, 2)), "iscrowd": 0}
        mask = {"segmentation": each["segmentation"]} if "segmentation" in each else {}
        annotations.append({"category_id": each["category_id"], **box, **mask, "score": each["score"]})
    return annotations


def draw_objects(pixels: np.ndarray, record: Record) -> Image.Image:
    """The image with the boxes, their labels and scores; masks, where there are any, in a colour for each object."""
    objects = record["objects"]
    boxes = np.array([each["box"] for each in objects], np.float64).reshape(-1, 4)
    texts = [f"{each['label']} {each['score']:.2f}" for each in objects]
    if not any("segmentation" in each for each in objects):
        return with_boxes(pixels, boxes, texts, [colour_of(each["category_id"] - 1) for each in objects])
    colours = [distinct(number) for number in range(len(objects))]
    size = record["height"], record["width"]
    masks = [mask_of(each["segmentation"], size) for each in objects]
    return with_boxes(with_masks(pixels, masks, colours), boxes, texts, colours, lines=False)


CLASSES = Output(class_record, class_columns, class_lines, check=check_classes)
"""Output of `ClassScores`: the best classes with their probabilities."""
SETS = Output(class_record, set_columns, set_lines, check=check_classes)
"""Output of `ClassScores` with prediction sets."""
OBJECTS = Output(objects_record, objects_columns, objects_lines, objects_annotations, draw_objects)
"""Output of `Detections`: boxes with labels and scores, and masks if they have some, in pixels of the image file."""


def output_of(shapes: Prediction, classes: Sequence[str], given: Output | None = None) -> Output:
    """How to write such predictions: as given, else as classes, objects or pixels.

    Raises:
      ConfigError: for predictions of another type where no output is given, and those that don't fit the classes.
    """
    known = {ClassScores: CLASSES, Detections: OBJECTS, PixelScores: PIXELS}
    output = given or known.get(type(shapes))
    if output is None:
        raise ConfigError(
            f"predictions of type {type(shapes).__name__} can't be written; those of type ClassScores, Detections, "
            "PixelScores can, and others whose Evaluation has an `output`"
        )
    with raised_as(ConfigError):
        output.check(shapes, classes)
    return output


def check_suffix(suffix: str, output: Output) -> None:
    """Raises ConfigError if predictions of this output can't be written to such a file."""
    able = {".csv": output.columns and output.lines, ".jsonl": output.record, ".json": output.annotations}
    if not able[suffix]:
        can = ", ".join(name for name, possible in able.items() if possible)
        raise ConfigError(f"predictions of this model can't be written as {suffix}; allowed: {can}")


Write = Callable[[Where, tuple[int, int], Record], object]
"""`(where, size, record)`: adds the record of a file or frame of this height and width."""


@contextmanager
def writer(suffix: str, file: TextIO, output: Output, selection: Selection) -> Iterator[Write]:
    """Writes records as the suffix says, which fits (`check_suffix`); all is written once the block has ended."""
    writers = {".csv": _table, ".jsonl": _json_lines, ".json": _coco}
    with writers[suffix](file, output, selection) as write:
        yield write


@contextmanager
def _table(file: TextIO, output: Output, selection: Selection) -> Iterator[Write]:
    columns, lines = output.columns, output.lines
    assert columns is not None
    assert lines is not None
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["file", "frame", *columns(selection)])
    yield lambda where, size, record: table.writerows(map(cell, [*where, *line]) for line in lines(record))


def cell(value: object) -> object:
    """A value of a table; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    formula = isinstance(value, str) and value[:1] in tuple("=+-@\t\r") and any(sign in value for sign in "(|!")
    return f"'{value}" if formula else value


@contextmanager
def _json_lines(file: TextIO, output: Output, selection: Selection) -> Iterator[Write]:
    yield lambda where, size, record: file.write(json.dumps({**_place(where), **record}) + "\n")


@contextmanager
def _coco(file: TextIO, output: Output, selection: Selection) -> Iterator[Write]:
    """A file like those of COCO's annotations; only the images wait in memory for their turn."""
    annotations = output.annotations
    assert annotations is not None
    images, count = [], 0

    def write(where: Where, size: tuple[int, int], record: Record) -> None:
        nonlocal count
        place = _place(where)
        extent = {"height": int(size[0]), "width": int(size[1])}
        images.append({"id": len(images) + 1, "file_name": place.pop("file"), **place, **extent})
        for each in annotations(record):
            count += 1
            file.write((",\n" if count > 1 else "\n") + json.dumps({"id": count, "image_id": len(images), **each}))

    named = [{"id": number, "name": name} for number, name in enumerate(selection.classes, start=1)]
    categories = named if output.categories is None else output.categories(selection)
    file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
    yield write
    file.write('],\n"images": [\n' + ",\n".join(map(json.dumps, images)) + "]}\n")


def _place(where: Where) -> Record:
    name, frame = where
    return {"file": name} if frame is None else {"file": name, "frame": frame}

"""All detections and all objects of an evaluation as two flat tables, image after image, in float64.

Boxes are `x0 y0 x1 y1` in pixels of the image files; images are numbered from 0 in the order of the rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Detected(NamedTuple):
    """Detections, the best of each image first; of equal scores the one that came first."""

    image: Int[np.ndarray, "n"]
    label: Int[np.ndarray, "n"]
    score: Float[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]
    place: Int[np.ndarray, "n"]
    """Which detection of its image it is in the rows."""


class Annotated(NamedTuple):
    """Objects as annotated."""

    image: Int[np.ndarray, "m"]
    label: Int[np.ndarray, "m"]
    box: Float[np.ndarray, "m 4"]
    ignore: Bool[np.ndarray, "m"]
    area: Float[np.ndarray, "m"]


class Tables(NamedTuple):
    """Detections and annotated objects of an evaluation."""

    images: int
    classes: int
    detected: Detected
    annotated: Annotated


def tables(rows: Mapping[str, np.ndarray], classes: int) -> Tables:
    """The rows of `metrics.detection` or `metrics.instances` as tables.

    Raises:
      ValueError: no rows; a label that is no class; a box or score that is not finite.
    """
    images, rows = len(rows["scores"]), completed(rows)
    if not images:
        raise ValueError("no examples to compute metrics of: the rows are empty")
    detected, annotated = detections_of(rows), _annotated(rows)
    _check(rows, detected, classes, "a detection")
    _check(rows, annotated, classes, "an object")
    return Tables(images, classes, detected, annotated)


TRUE_COLUMNS = ("true_boxes", "true_labels", "ignore", "area")
"""Columns of `metrics.detection` that rows of `metrics.instances` have as one table of each image, `true_objects`."""


def completed(rows: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The rows with the columns of objects in the place of `true_objects`, padded to one width."""
    if "true_objects" not in rows:
        return rows
    each = [np.frombuffer(row, np.float64).reshape(-1, 7) for row in rows["true_objects"]]
    width = max((len(objects) for objects in each), default=0)
    padded = np.zeros((len(each), width, 7))
    for row, objects in enumerate(each):
        padded[row, : len(objects)] = objects
    columns = (padded[..., :4], padded[..., 4].astype(np.int32), padded[..., 5] > 0, padded[..., 6])
    count = np.array([len(objects) for objects in each], np.int64).reshape(-1, 1)
    return {**rows, **dict(zip(TRUE_COLUMNS, columns, strict=True)), "annotated": np.arange(width)[None] < count}


def detections_of(rows: Mapping[str, np.ndarray]) -> Detected:
    """The detections alone."""
    image, place = np.nonzero(rows["detected"])
    score = np.asarray(rows["scores"][image, place], np.float64)
    order = np.lexsort((-score, image))
    image, place = image[order], place[order]
    label = np.asarray(rows["labels"][image, place], np.int64)
    return Detected(image, label, score[order], _boxes(rows["boxes"][image, place]), place)


def _annotated(rows: Mapping[str, np.ndarray]) -> Annotated:
    image, place = np.nonzero(rows["annotated"])
    label, ignore, area = (rows[name][image, place] for name in ("true_labels", "ignore", "area"))
    box = _boxes(rows["true_boxes"][image, place])
    return Annotated(image, label.astype(np.int64), box, ignore.astype(bool), area.astype(np.float64))


def _boxes(corners: np.ndarray) -> Float[np.ndarray, "n 4"]:
    """Boxes in float64; one without extent, or a negative one, is a point or a line."""
    box = np.array(corners, np.float64).reshape(-1, 4)
    box[:, 2:] = np.maximum(box[:, :2], box[:, 2:])
    return box


def _check(rows: Mapping[str, np.ndarray], table: Detected | Annotated, classes: int, what: str) -> None:
    numbers = table.score if isinstance(table, Detected) else table.area
    finite = np.isfinite(table.box).all(1) & np.isfinite(numbers)
    for wrong, text in (
        (~finite, "a box, score or area that is not finite"),
        ((table.label < 0) | (table.label >= classes), f"a label that is none of 0 to {classes - 1}"),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            row = table.image[first]
            where = f"the example with index {rows['index'][row]}" if "index" in rows else f"row {row}"
            label = table.label[first]
            raise ValueError(f"{where} has {what} with {text}: label {label}, box {table.box[first].tolist()}")

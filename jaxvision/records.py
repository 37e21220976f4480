"""How predictions are written: a record an image, as a line of a table or of JSON."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from jaxvision.experiment import ConfigError
from jaxvision.types import ClassScores, Prediction

SUFFIXES = (".csv", ".jsonl")
Where = tuple[str, int | None]
"""A file, and the number of the frame if it is a video."""
Record = dict[str, Any]
"""A prediction as JSON data."""


class Form(NamedTuple):
    """How the predictions of one type are written."""

    check: Callable[[Prediction, Sequence[str]], None]
    """`(shapes, classes)`: raises ConfigError if they don't fit."""
    record: Callable[[Prediction, int, Sequence[str], int], Record]
    """`(prediction, row, classes, top)`: JSON data for one image; the arrays are NumPy's."""
    columns: Callable[[int], list[str]]
    """`(top)`: the names of the cells."""
    cells: Callable[[Record], list]
    """A record as a line of a table."""


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


FORMS = {ClassScores: Form(check_classes, class_record, class_columns, class_cells)}


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


def writer(suffix: str, file: TextIO, form: Form, top: int) -> Callable[[Where, Record], object]:
    """The function that writes file and frame and a record as one line: of a table, or of JSON."""
    if suffix == ".csv":
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "frame", *form.columns(top)])
        return lambda where, record: table.writerow([*where, *form.cells(record)])

    def write_json(where: Where, record: Record) -> None:
        name, frame = where
        place = {"file": name} if frame is None else {"file": name, "frame": frame}
        file.write(json.dumps({**place, **record}) + "\n")

    return write_json

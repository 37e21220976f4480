"""Doubts as a table, an object a line, and as pictures of the first of them."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from jaxvision.annotate.doubts import Doubt, confidence
from jaxvision.data.decode import pixels_of
from jaxvision.draw.boxes import with_boxes
from jaxvision.draw.style import GREEN, VERMILLION
from jaxvision.errors import replacing
from jaxvision.formats.labelled import LabelledObject
from jaxvision.run import pictures
from jaxvision.run.records import cell

SUFFIXES = (".csv", ".jsonl")
CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = (
    *("rank", "image", "doubt", "score", "object", "id", "label", *CORNERS),
    *("predicted", "probability", *(f"predicted_{corner}" for corner in CORNERS), "iou"),
)
"""Columns of the table: what is annotated, then what was predicted; boxes in pixels, objects counted from 0."""
LEAST_SIDE = 480
"""Pixels of the longer side that a picture has at least about: names must fit it."""


def write(path: Path, doubts: Sequence[Doubt]) -> None:
    """The table as `.csv` or `.jsonl`, which the suffix says; a file that is there is replaced once all is written."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        (_write_csv if path.suffix == ".csv" else _write_lines)(file, doubts)


def _write_csv(file: TextIO, doubts: Sequence[Doubt]) -> None:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([cell(value) for value in row.values()] for row in rows(doubts))


def _write_lines(file: TextIO, doubts: Sequence[Doubt]) -> None:
    file.writelines(
        json.dumps({key: value for key, value in row.items() if value != ""}) + "\n" for row in rows(doubts)
    )


def rows(doubts: Sequence[Doubt]) -> Iterator[dict[str, Any]]:
    """Lines of the table, values by `COLUMNS`; what there is not is empty."""
    for rank, each in enumerate(doubts, 1):
        said, found = each.annotated, each.predicted
        values = [rank, each.image, str(each.kind), round(each.score, 4), _or_empty(each.object)]
        values += ["", "", *[""] * 4] if said is None else [_or_empty(said.id), said.label, *_corners(said)]
        values += ["", "", *[""] * 4] if found is None else [found.label, round(confidence(found), 4), *_corners(found)]
        yield dict(zip(COLUMNS, [*values, "" if each.iou is None else round(each.iou, 4)], strict=True))


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value


def _corners(each: LabelledObject) -> list[float]:
    return [round(side, 2) for side in each.box]


def draw(folder: Path, doubts: Sequence[Doubt], files: Mapping[str, Path], first: int) -> int:
    """Writes a picture of each of the first doubts, `<rank>_<name>.jpg`; returns of how many the image could not be read.

    Vermillion is what is annotated, green what is predicted.
    """
    failed = 0
    for rank, doubt in enumerate(doubts[:first], 1):
        try:
            image = picture(pixels_of(files[doubt.image].read_bytes()), doubt)
        except (OSError, ValueError):
            failed += 1
            continue
        pictures.save(folder, rank, (doubt.image, None), image)
    return failed


def picture(pixels: np.ndarray, doubt: Doubt) -> Image.Image:
    """The image, `h w 3` or `h w`, with the annotated box and the predicted one; a small one enlarged."""
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    times = max(1, LEAST_SIDE // max(pixels.shape[:2]))
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    parts = [
        (doubt.annotated, VERMILLION, f"{doubt.kind} {doubt.score:.2f}: "),
        (doubt.predicted, GREEN, "predicted: "),
    ]
    labels = [(each, colour, f"{says}{each.label}") for each, colour, says in parts if each is not None]
    boxes = np.asarray([each.box for each, _, _ in labels], np.float64) * times
    return with_boxes(pixels, boxes, [text for _, _, text in labels], [colour for _, colour, _ in labels])

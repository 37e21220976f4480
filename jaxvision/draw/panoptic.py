"""Pictures of evaluated panoptic segmentation: ground truth, prediction and errors side by side, and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from jaxvision.draw.classification import rows_of, spread
from jaxvision.draw.figure import save
from jaxvision.draw.masks import CLEAR, greyed, with_classes
from jaxvision.draw.palette import BLACK, distinct
from jaxvision.draw.segmentation import CONFUSED, INVENTED, MISSED, PANELS, RIGHT, VOID, error_key, with_errors
from jaxvision.draw.side_by_side import Panel, Shown, enlarged, enlargement, side_by_side
from jaxvision.draw.style import MUTED
from jaxvision.errors import amount
from jaxvision.metrics.panoptic import qualities
from jaxvision.metrics.panoptic_maps import MapPair, unpacked
from jaxvision.types import Batch, Canvas, Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Images on a sheet."""
NAMED = 0.01
"""Fraction of an image from which on a segment bears the name of its class."""


def report(folder: Path, name: str, rows: Mapping[str, np.ndarray], stream: Stream, of: str = "") -> None:
    """Writes `<name>_predictions.png`, and `<name>_worst.png` if any segment is wrong and the sample is not of all images.

    The worst images have the smallest PQ, the mean of the classes with a segment, true or predicted. Segments that match have
    the same colour on both sides. On the map of errors a pixel is missed where no segment was predicted, invented where
    nothing is annotated beside a segment that matches none, confused where the classes differ or the segments don't match.

    Args:
      folder: an existing folder.
      name: the evaluation's.
      rows: those of `metrics.panoptic`, for every example.
      stream: that of the evaluation, for the images and the names of the classes.
      of: what the predictions are by, such as "step 64, averaged weights".
    """
    each = np.array([image_quality(*both) for both in zip(rows["iou"], rows["counts"], strict=True)])
    worst = np.argsort(each, kind="stable")[:SHOWN]  # NaN, no segment at all, comes last
    sheets = {
        "predictions": (f"{name}: a sample", spread(len(each), SHOWN)),
        "worst": (f"{name}: the images with the smallest PQ", worst[(each[worst] < 1) & (len(each) > SHOWN)]),
    }
    for kind, (title, numbers) in sheets.items():
        if len(numbers):
            save(sheet(rows, numbers, stream, title, of), folder / f"{name}_{kind}.png")


def image_quality(iou: np.ndarray, counts: np.ndarray) -> float:
    """PQ of one image; NaN without a segment."""
    known = qualities(iou, counts)["PQ"]
    return float(np.nanmean(known)) if not np.isnan(known).all() else float("nan")


def sheet(
    rows: Mapping[str, np.ndarray], numbers: Sequence[int] | np.ndarray, stream: Stream, title: str, of: str = ""
) -> Figure:
    """These rows' images, each by itself, with the segments of the ground truth, those of the prediction, and the errors."""
    about = stream.about()
    place = {int(rows["index"][number]): int(number) for number in numbers}
    shown = {}
    present: set[int] = set()
    for example, batch, row in rows_of(stream, place):
        number = place[example]
        maps = unpacked(rows["maps"][number])
        right, wrong, missed = rows["counts"][number].sum(0).tolist()
        quality = image_quality(rows["iou"][number], rows["counts"][number])
        note = f"PQ {quality:.2f}: {right} matched, {missed} missed, {amount(wrong, 'false positive')}"
        partner = matched(maps)
        kind = errors(maps, partner)
        present |= set(np.unique(kind).tolist())
        pictures = panels(image_of(batch, row, maps.true.shape), maps, partner, kind, about.classes)
        shown[number] = Shown(pictures, about.name(example), note)
    text = "  ·  ".join(filter(None, (PANELS, of)))
    return side_by_side([shown[int(number)] for number in numbers], title, text, [error_key(present)])


def panels(
    image: UInt8[np.ndarray, "h w 3"],
    maps: MapPair,
    partner: Int[np.ndarray, " _"],
    kind: Int[np.ndarray, "h w"],
    classes: Sequence[str],
) -> list[Panel]:
    """The four pictures of an image: itself, its true and its predicted segments over a grey copy of it, and the errors."""
    times = enlargement(image.shape)
    image, found, true, kind = (enlarged(each, times) for each in (image, maps.found, maps.true, kind))
    grey = greyed(image)
    truth = [BLACK, *(MUTED if crowd else distinct(n) for n, crowd in enumerate(maps.crowd))]
    fresh = len(truth) - 1
    guess = [BLACK] + [
        truth[partner[n]] if partner[n] else distinct(fresh + n) for n in range(1, len(maps.found_labels) + 1)
    ]
    pictures = ((true, maps.true_labels, truth), (found, maps.found_labels, guess))
    drawn = [
        Panel(with_classes(grey, ids, colours, CLEAR), names(ids, labels, colours, classes))
        for ids, labels, colours in pictures
    ]
    return [Panel(image), *drawn, Panel(with_errors(image, kind))]


def matched(maps: MapPair) -> Int[np.ndarray, " _"]:
    """The true segment that each predicted one matches, by its number; 0 for none, as for number 0, void.

    By the pixels that were kept: of large images it may differ from what was counted.
    """
    shape = len(maps.true_labels) + 1, len(maps.found_labels) + 1
    pair = maps.true.astype(np.int64) * shape[1] + maps.found
    shared = np.bincount(pair.reshape(-1), minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(1)[:, None] + shared.sum(0)[None] - shared - shared[0][None]
    same = np.zeros(shape, bool)
    same[1:, 1:] = (maps.true_labels[:, None] == maps.found_labels[None]) & ~maps.crowd[:, None]
    iou = np.where(same, shared / np.maximum(union, 1), 0)
    return np.where(iou.max(0) > 0.5, iou.argmax(0), 0)


def errors(maps: MapPair, partner: Int[np.ndarray, " _"]) -> Int[np.ndarray, "h w"]:
    """What each pixel is, of `draw.segmentation`: RIGHT, CONFUSED, MISSED, INVENTED or VOID, where nothing is annotated."""
    crowd = np.append(True, maps.crowd)[maps.true]
    kind = np.where(partner[maps.found] == maps.true, RIGHT, CONFUSED)
    kind[maps.found == 0] = MISSED
    kind[crowd] = VOID
    kind[crowd & (maps.found > 0) & (partner[maps.found] == 0)] = INVENTED
    return kind


def names(
    ids: Int[np.ndarray, "h w"], labels: Int[np.ndarray, " n"], colours: Sequence[str], classes: Sequence[str]
) -> list[tuple[np.ndarray, str, str]]:
    """Box, class and colour of the segments that are large enough to bear a name, the largest first."""
    found = []
    area = np.bincount(ids.reshape(-1), minlength=len(labels) + 1)
    for number in np.argsort(-area[1:], kind="stable") + 1:
        if area[number] >= NAMED * ids.size:
            rows, columns = (np.flatnonzero((ids == number).any(axis)) for axis in (1, 0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
            found.append((box, classes[int(labels[number - 1])], colours[number]))
    return found


def image_of(batch: Batch, row: int, size: tuple[int, ...]) -> UInt8[np.ndarray, "h w 3"]:
    """The image as the batch shows it, at the size of a map of the whole file; black where it shows nothing."""
    (height, width), original = np.asarray(batch.size[row]).tolist(), np.asarray(batch.original_size[row]).tolist()
    image = np.asarray(batch.image[row])[:height, :width]
    image = np.clip(np.rint(image.astype(np.float32)), 0, 255).astype(np.uint8)
    window = None if batch.window is None else tuple(np.asarray(batch.window[row]).tolist())
    scale, shift = Canvas(image, (height, width), tuple(original), window=window).to_file()
    cells = []
    for axis, across in ((0, 1), (1, 0)):
        middle = (np.arange(size[axis]) + 0.5) * original[axis] / size[axis]
        cells.append(np.floor((middle - shift[across]) / scale[across]).astype(int))
    inside = [(each >= 0) & (each < side) for each, side in zip(cells, (height, width), strict=True)]
    shown = image[np.clip(cells[0], 0, height - 1)][:, np.clip(cells[1], 0, width - 1)]
    shown = shown * (inside[0][:, None] & inside[1])[..., None]
    return np.broadcast_to(shown, (*shown.shape[:2], 3)).astype(np.uint8)

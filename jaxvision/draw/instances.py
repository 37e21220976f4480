"""Pictures of evaluated instance segmentation: ground truth, prediction and errors side by side, worst images, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxvision.draw.classification import images_of, spread
from jaxvision.draw.confusion import confusion, drawn_of
from jaxvision.draw.detection import precision_recall
from jaxvision.draw.figure import save
from jaxvision.draw.masks import with_masks
from jaxvision.draw.palette import distinct
from jaxvision.draw.segmentation import CONFUSED, INVENTED, MISSED, RIGHT, error_key, with_errors
from jaxvision.draw.side_by_side import Panel, Shown, enlarged, enlargement, side_by_side
from jaxvision.draw.style import MUTED
from jaxvision.errors import amount
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs
from jaxvision.metrics import coco_ap
from jaxvision.metrics.instances import mask_pairs, masks_of
from jaxvision.metrics.matching import Pairs, best_score, confusions, image_costs, matches, verdict
from jaxvision.metrics.tables import Tables, tables
from jaxvision.types import Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Images on a sheet."""


def report(folder: Path, name: str, rows: Mapping[str, np.ndarray], stream: Stream, of: str = "") -> None:
    """Writes `<name>_predictions.png`, `<name>_worst.png`, `<name>_precision_recall.png` and `<name>_confusion.png`.

    All is of masks. Sheets and confusion matrices show the detections above the score at which F1 over all images is
    largest. The worst images are those of `draw.detection`, by masks. On the map of errors an object that is not found is
    missed as a whole, a false positive invented, or confused where it lies on an object of another class (all at IoU 0.5);
    of one that is found, the pixels that its mask lacks or has too many. Pictures with nothing to draw are left out, and the
    worst images where the sample is of all.

    Args:
      folder: an existing folder.
      name: the evaluation's.
      rows: those of `metrics.instances`, for every example.
      stream: that of the evaluation, for the images and the names of the classes.
      of: what the detections are by, such as "step 64, averaged weights".
    """
    classes = stream.about().classes
    seen = see(rows, stream)
    if drawn_of(name, classes) and (counts := confusions(seen.found, seen.near, seen.score)).any():
        summary = f"score {seen.score:.2f} or more, IoU of masks 0.5"
        matrix = confusion(counts, [*classes, "background"], summary=summary, name=name, of=of)
        save(matrix, folder / f"{name}_confusion.png")
    curves = coco_ap.mask_curves(seen.found, seen.masks)
    if (curves.recall >= 0).any():
        heading = "  ·  ".join(filter(None, (f"{name}: precision and recall of masks", of)))
        save(precision_recall(curves, classes, heading), folder / f"{name}_precision_recall.png")
    cost = image_costs(seen.found, seen.near)
    worst = np.argsort(-cost, kind="stable")[:SHOWN]
    sheets = {
        "predictions": (f"{name}: a sample", spread(seen.found.images, SHOWN)),
        "worst": (
            f"{name}: the worst images, by scores at any threshold",
            worst[(cost[worst] > 0) & (len(cost) > SHOWN)],
        ),
    }
    for kind, (title, numbers) in sheets.items():
        if len(numbers):
            save(sheet(seen, numbers, title, of), folder / f"{name}_{kind}.png")


class Seen(NamedTuple):
    """What a sheet is drawn from."""

    found: Tables
    masks: coco_ap.MasksOf
    near: Pairs
    score: float
    index: np.ndarray
    stream: Stream


def see(rows: Mapping[str, np.ndarray], stream: Stream) -> Seen:
    """The rows of `metrics.instances`, matched by masks."""
    found = tables(rows, len(stream.about().classes))
    masks = masks_of(rows, found)
    near = mask_pairs(found, masks)
    return Seen(found, masks, near, best_score(found, near), np.asarray(rows["index"]), stream)


def sheet(seen: Seen, numbers: Sequence[int] | np.ndarray, title: str, of: str = "") -> Figure:
    """These rows' images: with the objects of the ground truth, the detections, and the errors."""
    about = seen.stream.about()
    images = images_of(seen.stream, [int(seen.index[number]) for number in numbers])
    match = np.where(seen.found.detected.score >= seen.score, matches(seen.found, seen.near), -1)
    any_class = np.where(seen.found.detected.score >= seen.score, matches(seen.found, seen.near, any_class=True), -1)
    shown, present = [], set()
    for number in numbers:
        example = int(seen.index[number])
        panels, note, kind = _example(seen, int(number), images[example], (match, any_class), about.classes)
        shown.append(Shown(panels, about.name(example), note))
        present |= set(np.unique(kind).tolist())
    text = (
        f"left: ground truth, middle: detections with a score of {seen.score:.2f} or more (the best F1), right: errors"
    )
    key = error_key(present)
    if seen.found.annotated.ignore[np.isin(seen.found.annotated.image, numbers)].any():
        key.append(("ignored", MUTED))
    return side_by_side(shown, title, "  ·  ".join(filter(None, (text, of))), [key])


def _example(
    seen: Seen, number: int, image: np.ndarray, match: tuple[np.ndarray, np.ndarray], classes: Sequence[str]
) -> tuple[list[Panel], str, np.ndarray]:
    """The panels of an image, how many objects were found and missed and detections are false positives, and the errors."""
    detected, annotated = seen.found.detected, seen.found.annotated
    image = enlarged(np.broadcast_to(image, (*image.shape[:2], 3)), enlargement(image.shape))
    both = [[_fitted(mask, image.shape[:2]) for mask in masks] for masks in seen.masks(number)]
    all_found, objects = np.flatnonzero(detected.image == number), np.flatnonzero(annotated.image == number)
    sure = detected.score[all_found] >= seen.score
    shown, masks = all_found[sure], [mask for mask, is_sure in zip(both[0], sure, strict=True) if is_sure]
    names = list(classes) if len(classes) > 1 else [""] * len(classes)

    colours = {int(row): MUTED if annotated.ignore[row] else distinct(place) for place, row in enumerate(objects)}
    of_found = [colours.get(int(match[0][row]), distinct(len(objects) + place)) for place, row in enumerate(shown)]
    texts = [names[annotated.label[row]] for row in objects]
    told = [f"{names[detected.label[row]]} {detected.score[row]:.2f}".strip() for row in shown]
    kind = _errors(seen, (objects, both[1]), (shown, masks), match, image.shape[:2])
    panels = [
        Panel(with_masks(image, both[1], list(colours.values())), _labels(both[1], texts, list(colours.values()))),
        Panel(with_masks(image, masks, of_found), _labels(masks, told, of_found)),
        Panel(with_errors(image, kind)),
    ]
    real, right = ~annotated.ignore[objects], np.isin(objects, match[0])
    false = int(verdict(seen.found, match[0]).wrong[shown].sum())
    found, missed = int((right & real).sum()), int((~right & real).sum())
    return panels, f"{found} found, {missed} missed, {amount(false, 'false positive')}", kind


def _fitted(mask: Runs, size: tuple[int, int]) -> Runs:
    """The mask at the size of the picture."""
    rows, columns = (((np.arange(to) + 0.5) * of / to).astype(int) for to, of in zip(size, mask.size, strict=True))
    return runs.encode(runs.decode(mask)[rows][:, columns])


def _labels(masks: Sequence[Runs], texts: Sequence[str], colours: Sequence[str]) -> list[tuple[np.ndarray, str, str]]:
    each = zip(masks, texts, colours, strict=True)
    return [(runs.box(mask), text, colour) for mask, text, colour in each if text and runs.area(mask)]


Chosen = tuple[np.ndarray, Sequence[Runs]]
"""Numbers in a table, and the masks of these."""


def _errors(
    seen: Seen, objects: Chosen, shown: Chosen, match: tuple[np.ndarray, np.ndarray], size: tuple[int, int]
) -> np.ndarray:
    """What each pixel is on the map of errors."""
    kind, truth = np.full(size, RIGHT), dict(zip(objects[0].tolist(), map(runs.decode, objects[1]), strict=True))
    wrong = verdict(seen.found, match[0]).wrong
    covered: dict[int, Bool[np.ndarray, "h w"]] = {}
    for row, mask in zip(shown[0].tolist(), map(runs.decode, shown[1]), strict=True):
        target = int(match[0][row])
        if wrong[row]:
            kind[mask] = CONFUSED if match[1][row] >= 0 else INVENTED
        elif not seen.found.annotated.ignore[target]:
            covered[target] = mask
            kind[mask & ~truth[target]] = INVENTED
    for row, mask in truth.items():
        if not seen.found.annotated.ignore[row]:
            nothing = np.zeros(size, bool)
            left = mask & ~covered.get(row, nothing)
            kind[left & (kind != CONFUSED)] = MISSED
    return kind

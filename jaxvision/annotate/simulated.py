"""Simulated annotators: mistakes as people make them, and a reviewer who knows the truth and counts what there is to do."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from jaxvision.annotate.agreement import iou, pairs
from jaxvision.annotate.changes import Change
from jaxvision.annotate.records import ImageRecord
from jaxvision.data.randomness import checked_seed
from jaxvision.errors import amount
from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import LabelledImage, LabelledObject

PLACED = 0.9
"""Least IoU at which a box is left where it is."""
SAME = 0.5
"""Least IoU at which a finding is of the same object: one that is placed worse is deleted, and the object added."""
SHIFT = (0.2, 0.5)
"""Range of how far a misplaced box is moved along each side, in sides of it."""
SCALE = (0.55, 0.75)
"""Range of the factor of both sides of a box that is resized, or one by it."""
SPOILT_IOU = (0.1, 0.7)
"""Range of the IoU of a misplaced box with what it was."""


class Mistake(StrEnum):
    """Ways in which an object is spoilt."""

    MISSING = "missing"
    MISPLACED = "misplaced"
    MISNAMED = "misnamed"


class Spoilt(NamedTuple):
    """Image with mistakes."""

    image: LabelledImage
    mistakes: tuple[tuple[Mistake, int], ...]
    """What was done, and to which object of the truth, by its number."""


def spoilt(images: Sequence[LabelledImage], classes: Sequence[str], fraction: float, seed: int) -> list[Spoilt]:
    """The images, this fraction of their objects (rounded) spoilt, a third each removed, misplaced and renamed.

    A misplaced box is moved or resized, cut at the border of the image, to an IoU in `SPOILT_IOU` with what it was; the
    objects keep their order. Boxes without area, and those whose centre is outside of their image, are no part of the
    fraction and stay as they are. What is spoilt depends on the seed and the images alone.

    Raises:
      ValueError: for a fraction outside 0 to 1, or a single class, which nothing can be renamed from.
    """
    if not 0 <= fraction <= 1 or len(classes) < 2:
        raise ValueError(
            f"spoilt(fraction={fraction}), {amount(len(classes), 'class')}: allowed are 0 to 1, and two classes or more"
        )
    rng = np.random.default_rng(checked_seed(seed))
    places = [
        (number, row)
        for number, image in enumerate(images)
        for row, each in enumerate(image.objects)
        if _can_be_misplaced(each.box, image.size)
    ]
    chosen = rng.permutation(len(places))[: round(fraction * len(places))]
    ways = {places[place]: tuple(Mistake)[turn % len(Mistake)] for turn, place in enumerate(chosen.tolist())}
    return [_spoilt(number, image, ways, classes, rng) for number, image in enumerate(images)]


def _spoilt(
    number: int,
    image: LabelledImage,
    ways: dict[tuple[int, int], Mistake],
    classes: Sequence[str],
    rng: np.random.Generator,
) -> Spoilt:
    objects, mistakes = [], []
    for row, each in enumerate(image.objects):
        way = ways.get((number, row))
        if way is not None:
            mistakes.append((way, row))
        if way is Mistake.MISNAMED:
            others = [name for name in classes if name != each.label]
            each = each._replace(label=others[rng.integers(len(others))])
        elif way is Mistake.MISPLACED:
            each = each._replace(box=_misplaced(each.box, image.size, rng), segmentation=None, area=None)
        if way is not Mistake.MISSING:
            objects.append(each)
    return Spoilt(image._replace(objects=tuple(objects)), tuple(mistakes))


def _can_be_misplaced(box: Box, size: Size) -> bool:
    """Whether a box, made smaller and cut at the border of the image, still has an IoU in `SPOILT_IOU` with what it was."""
    (x0, y0, x1, y1), (height, width) = box, size
    return x0 < x1 and y0 < y1 and 0 <= x0 + x1 <= 2 * width and 0 <= y0 + y1 <= 2 * height


def _misplaced(box: Box, size: Size, rng: np.random.Generator) -> Box:
    """The box moved or resized, with even chances."""
    corners, limit = np.asarray(box, np.float64), np.tile(size[::-1], 2)
    centre, sides = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
    while True:
        if rng.random() < 0.5:
            moved = centre + rng.uniform(*SHIFT, 2) * rng.choice((-1, 1), 2) * sides, sides
        else:
            moved = centre, sides * rng.uniform(*SCALE) ** rng.choice((-1, 1))
        found = np.clip(np.concatenate([moved[0] - moved[1] / 2, moved[0] + moved[1] / 2]), 0, limit)
        if SPOILT_IOU[0] <= iou(found[None], corners[None])[0, 0] <= SPOILT_IOU[1]:
            x0, y0, x1, y1 = found.tolist()
            return x0, y0, x1, y1


def review(found: Sequence[LabelledObject], truth: Sequence[LabelledObject]) -> list[Change]:
    """What a reviewer who knows the truth does with an image's findings so that they become the truth.

    Accepting costs nothing and is not told; renaming, moving (where the IoU is below `PLACED`), adding and deleting are an
    action each. Which finding is of which object is the assignment of most IoU together, above `SAME` each, classes deciding
    between equals. Objects are numbered by their place among the findings.
    """
    actions, matched = [], pairs(found, truth, SAME)
    for row, column, overlap in matched:
        if found[row].label != truth[column].label:
            actions.append(Change("rename", row, truth[column].label))
        if overlap < PLACED:
            actions.append(Change("move", row, truth[column].box))
    rows, columns = {row for row, _, _ in matched}, {column for _, column, _ in matched}
    actions += [Change("delete", row) for row in range(len(found)) if row not in rows]
    added = [each for column, each in enumerate(truth) if column not in columns]
    return actions + [Change("add", None, {"label": each.label, "box": each.box}) for each in added]


def changes(record: ImageRecord, truth: Sequence[LabelledObject]) -> list[Change]:
    """A whole review of a record, for `Store.apply_all`: corrections, acceptance of all else, and that it was reviewed.

    What was rejected before is left alone.
    """
    shown = [each for each in record.objects if each.verdict != "rejected"]
    corrections = [
        each if each.object is None else each._replace(object=shown[each.object].id)
        for each in review([LabelledObject(each.label, each.box) for each in shown], truth)
    ]
    touched = {each.object for each in corrections}
    accepted = [Change("accept", each.id) for each in shown if each.id not in touched]
    return [*corrections, *accepted, Change("reviewed", None, True)]


CORRECTIONS = ("rename", "move", "add", "delete")
"""Actions that count; accepting, and saying that an image was looked at, cost nothing."""


class Effort(NamedTuple):
    """What reviewing took."""

    actions: Counter[str]
    objects: int
    """Objects of the truth."""

    @property
    def per_hundred(self) -> float:
        """Corrections per 100 objects; NaN without an object."""
        return 100 * self.actions.total() / self.objects if self.objects else float("nan")


def effort(reviews: Iterable[tuple[Sequence[Change], Sequence[LabelledObject]]]) -> Effort:
    """What reviews took, each with the truth of its image."""
    actions, objects = Counter(), 0
    for made, truth in reviews:
        actions.update(each.action for each in made if each.action in CORRECTIONS)
        objects += len(truth)
    return Effort(actions, objects)

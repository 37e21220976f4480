"""Order of review: guesses and images first that are most likely wrong.

A guess is doubted by its calibrated probability, without a calibration by its score; and more, the more it lies on a surer
guess of its image: it may be a second box of one object, or another name for it. What a person has decided and what was
rejected is not in the order; a note, or an attribute, decides nothing.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvision.annotate.agreement import iou
from jaxvision.annotate.records import Annotation, ImageRecord

UNKNOWN = 0.5
"""Probability of a guess without probability and score."""
CROWDED = 2.0
"""Logits that lying wholly on a surer guess takes; on shapes 1 to 6 are as good, and 0 a little worse."""
CLOSEST = 1e-6
AT_ONCE = 256
"""Boxes that are compared with all before them at once, so that memory stays bounded."""


class Place(NamedTuple):
    """Guess that is to be reviewed."""

    name: str
    """Name of its image."""
    id: int
    doubt: float
    """How likely it is wrong, from 0 to 1; a rank, not a calibrated probability."""


def sureness(each: Annotation) -> float:
    """Probability that a guess is right, by what is known of it alone."""
    return next((value for value in (each.probability, each.score) if value is not None), UNKNOWN)


def doubts(guesses: Sequence[Annotation]) -> list[float]:
    """How likely each guess of one image is wrong."""
    sure = np.asarray([sureness(each) for each in guesses], np.float64)
    surest_first = np.argsort(-sure, kind="stable")
    boxes = np.asarray([each.box for each in guesses], np.float64).reshape(-1, 4)[surest_first]
    covered = np.zeros(len(boxes))
    covered[surest_first] = _covered(boxes)
    right = np.clip(sure, CLOSEST, 1 - CLOSEST)
    return (1 / (1 + np.exp(np.log(right / (1 - right)) - CROWDED * covered))).tolist()


def _covered(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
    """The largest IoU of each box with one of those before it; 0 of the first."""
    found = np.zeros(len(boxes))
    for start in range(0, len(boxes), AT_ONCE):
        block = boxes[start : start + AT_ONCE]
        ious = np.tril(iou(block, boxes[: start + len(block)]), start - 1)
        found[start : start + len(block)] = ious.max(1)
    return found


def undecided(record: ImageRecord) -> list[Annotation]:
    """Guesses of an image that wait for a person; none of an image that was reviewed."""
    if record.state == "reviewed":
        return []
    return [each for each in record.objects if not each.decided and each.verdict != "rejected"]


def complete(record: ImageRecord) -> bool:
    """Whether all objects of an image are decided, but nobody has said yet that none is missing: it is not reviewed."""
    return record.state != "reviewed" and any(each.decided for each in record.objects) and not undecided(record)


def objects(records: Iterable[ImageRecord]) -> list[Place]:
    """All undecided guesses, the most doubtful first; of equal ones in order of name and id."""
    found = []
    for record in records:
        guesses = undecided(record)
        pairs = zip(guesses, doubts(guesses), strict=True)
        found += [Place(record.name, each.id, doubt) for each, doubt in pairs]
    return sorted(found, key=lambda place: (-place.doubt, place.name, place.id))


def images(records: Iterable[ImageRecord]) -> list[tuple[str, float]]:
    """Names of the images with something undecided and how many wrong guesses are expected, most first, then by name."""
    found = [(record.name, sum(doubts(undecided(record)))) for record in records if undecided(record)]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))

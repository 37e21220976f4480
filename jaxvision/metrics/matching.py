"""Which detection found which object: what precision, recall, confusions and errors are counted from."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.metrics.tables import Tables, tables

IOU = 0.5
"""Least IoU at which a detection has found an object."""
PAIRS_AT_ONCE = 1 << 20
LEAST_IOU = 0.1
"""Least IoU of pairs that any metric looks at."""


class Pairs(NamedTuple):
    """Detections and objects of the same image that iou, by their numbers in the tables; in order of the detections."""

    detection: Int[np.ndarray, "p"]
    object: Int[np.ndarray, "p"]
    iou: Float[np.ndarray, "p"]
    covered: Float[np.ndarray, "p"]
    """Fraction of the detection's area inside the object: what COCO takes for IoU where the object is to be ignored."""


def pairs(found: Tables, least: float = LEAST_IOU) -> Pairs:
    """All pairs with an IoU of at least `least`, or, where the object is to be ignored, at least that fraction covered."""
    detected, annotated = found.detected, found.annotated
    objects = np.bincount(annotated.image, minlength=found.images)
    first = np.cumsum(objects) - objects
    each = objects[detected.image]
    ends = np.cumsum(each)
    cuts = np.searchsorted(ends, np.arange(PAIRS_AT_ONCE, ends[-1] if len(ends) else 0, PAIRS_AT_ONCE))
    parts = []
    for block in np.split(np.arange(len(each)), cuts):
        detection = np.repeat(block, each[block])
        place = np.arange(len(detection)) - np.repeat(np.cumsum(each[block]) - each[block], each[block])
        parts.append(_near_pairs(found, detection, first[detected.image[detection]] + place, least))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _near_pairs(found: Tables, detection: np.ndarray, object: np.ndarray, least: float) -> Pairs:
    a, b = found.detected.box[detection], found.annotated.box[object]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.where((sides > 0).all(1), sides.prod(1), 0)
    area, other_area = ((box[:, 2:] - box[:, :2]).prod(1) for box in (a, b))
    iou, covered = (
        np.divide(shared, all, out=np.zeros_like(shared), where=all > 0) for all in (area + other_area - shared, area)
    )
    near = np.where(found.annotated.ignore[object], np.maximum(iou, covered), iou) >= least
    return Pairs(detection[near], object[near], iou[near], covered[near])


def same_class(found: Tables, near: Pairs) -> Bool[np.ndarray, "p"]:
    """Which pairs are of one class."""
    return found.detected.label[near.detection] == found.annotated.label[near.object]


def matches(
    found: Tables,
    near: Pairs,
    threshold: float = IOU,
    *,
    any_class: bool = False,
    outside: Bool[np.ndarray, "m"] | None = None,
) -> Int[np.ndarray, "n"]:
    """The number of the object that each detection found, -1 for none; as COCO's evaluation does it.

    The detections of an image in turn, the best first: each takes the free object of its class with the largest IoU, if
    that is at least `threshold`. Where there is none, it takes an object to ignore that covers at least that fraction of it;
    any number of detections may take the same one. With `any_class`, objects of all classes can be taken, and of equal IoUs
    that of the same class comes first. Objects `outside`, by size or by group, also come last; each is taken once.
    """
    same, ignore = same_class(found, near), found.annotated.ignore[near.object]
    iou = np.where(ignore, near.covered, near.iou)
    able = np.flatnonzero((iou >= threshold) & (same | (any_class & ~ignore)))
    last = ignore if outside is None else ignore | outside[near.object]
    keys = (-near.object, ~same, -iou, last, near.detection)
    order = able[np.lexsort([key[able] for key in keys])]
    match = np.full(len(found.detected.image), -1)
    taken, settled = set(), -1
    columns = (near.detection[order].tolist(), near.object[order].tolist(), ignore[order].tolist())
    for detection, object, shared in zip(*columns, strict=True):
        if detection != settled and object not in taken:
            match[detection], settled = object, detection
            if not shared:
                taken.add(object)
    return match


class Verdict(NamedTuple):
    """True and false positives among the detections; one that lies in an object to ignore is neither."""

    right: Bool[np.ndarray, "n"]
    wrong: Bool[np.ndarray, "n"]


def verdict(found: Tables, match: Int[np.ndarray, "n"]) -> Verdict:
    """Whether the detections found objects."""
    ignored = np.append(found.annotated.ignore, False)[match]
    return Verdict((match >= 0) & ~ignored, match < 0)


def precision_recall_f1(found: Tables, near: Pairs, score: float) -> dict[str, float]:
    """Precision, recall and F1 over all classes of detections with at least this score, IoU 0.5; 0 where nothing counts."""
    sure = found.detected.score >= score
    right, wrong = (int((which & sure).sum()) for which in verdict(found, matches(found, near)))
    objects = int((~found.annotated.ignore).sum())
    return {
        "precision": right / max(right + wrong, 1),
        "recall": right / max(objects, 1),
        "f1": 2 * right / max(right + wrong + objects, 1),
    }


def best_score(found: Tables, near: Pairs) -> float:
    """The threshold of the score with the largest F1 (of all classes together, at IoU 0.5); of equal ones the highest.

    1 where no detection counts. It flatters: it was chosen on the same images.
    """
    right, wrong = verdict(found, matches(found, near))
    counts = np.flatnonzero(right | wrong)
    order = counts[np.argsort(-found.detected.score[counts], kind="stable")]
    if not len(order):
        return 1.0
    score, hits = found.detected.score[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + (~found.annotated.ignore).sum())
    f1[:-1][score[1:] == score[:-1]] = -1  # a threshold can't part equal scores
    return float(score[np.argmax(f1)])


def confusion_matrix(rows: Mapping[str, np.ndarray], k: int, *, score: float) -> Int[np.ndarray, "k+1 k+1"]:
    """The confusions of the rows of `metrics.detection`, by boxes."""
    found = tables(rows, k)
    return confusions(found, pairs(found), score)


def confusions(found: Tables, near: Pairs, score: float) -> Int[np.ndarray, "k+1 k+1"]:
    """Counts of objects of class i (the row) detected as class j (the column); the last row and column are background.

    Only detections with this score or a higher one count; each takes the free object, of any class, with the largest IoU
    (at least 0.5), the best detection of an image first. The last row counts detections that found none, the last column
    objects that none found. Detections in an object of their class to ignore count nowhere.
    """
    k, match = found.classes, matches(found, near, any_class=True)
    right, wrong = verdict(found, match)
    sure = found.detected.score >= score
    hit, alone = np.flatnonzero(right & sure), np.flatnonzero(wrong & sure)
    missed = ~found.annotated.ignore
    missed[match[hit]] = False
    counts = np.zeros((k + 1, k + 1), np.int64)
    np.add.at(counts, (found.annotated.label[match[hit]], found.detected.label[hit]), 1)
    counts[k, :k] = np.bincount(found.detected.label[alone], minlength=k)
    counts[:k, k] = np.bincount(found.annotated.label[missed], minlength=k)
    return counts


def image_costs(found: Tables, near: Pairs) -> Float[np.ndarray, "images"]:
    """Cost of each image: 1 less the score of its finder for every object, and the score of every false positive.

    An object that none found counts 1. Scores are 0 to 1.
    """
    match = matches(found, near)
    right, wrong = verdict(found, match)
    count = lambda image, weights=None: np.bincount(image, weights, minlength=found.images)
    image, score = found.detected.image, found.detected.score
    objects = count(found.annotated.image[~found.annotated.ignore])
    return objects - count(image[right], score[right]) + count(image[wrong], score[wrong])

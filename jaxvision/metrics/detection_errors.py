"""What a detector's errors cost: TIDE (arXiv:2008.08115), as its authors' tidecv computes it.

Every false positive is of one type: of the right class but badly placed (its IoU with an object of its class is 0.1 to 0.5);
well placed but of the wrong class; both; a duplicate of one that found the object; or background (IoU up to 0.1 with
any). Objects that were not found, and that no detection of the first two types aims at, are missed. The cost of a type is how
much AP50 would rise if that alone were put right: a badly placed or wrongly classified detection becomes a hit if it is the
best of both types that aims at its object, and else goes; those of other types go; missed objects are no longer asked for.

AP50 is here the mean over classes with objects or detections, of the best 100 detections of an image, of all classes
together. Detections in an object of their class to ignore are no error.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.metrics.matching import Pairs, matches, same_class, verdict
from jaxvision.metrics.tables import Tables

FOREGROUND, BACKGROUND = 0.5, 0.1
MOST = 100
TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, EMPTY, MISSED = range(6)
RECALL = np.arange(101) / 100


class Errors(NamedTuple):
    """The type of every error, and what it aims at."""

    kind: Int[np.ndarray, "n"]
    """Type of error of each detection; -1: no error."""
    counts: Bool[np.ndarray, "n"]
    """Whether a detection counts at all."""
    target: Int[np.ndarray, "n"]
    """The object that it would have found, had it been placed or classified right; -1: none."""
    best: Bool[np.ndarray, "n"]
    """Whether it is the best that aims at an object that none found."""
    missed: Bool[np.ndarray, "m"]
    """Which objects are missed."""


def costs(found: Tables, near: Pairs) -> dict[str, float]:
    """Gain in AP50 from putting right each type of error alone, 0 to 1.

    `near` are the pairs with an IoU of at least 0.1.
    """
    found, near = _best(found, near)
    errors = classify(found, near)
    now = _mean_ap(found, errors)
    return {name: max(_mean_ap(found, errors, kind) - now, 0.0) for kind, name in enumerate(TYPES)}


def _best(found: Tables, near: Pairs) -> tuple[Tables, Pairs]:
    """Tables and pairs without the detections beyond the hundredth of their image."""
    image = found.detected.image
    kept = np.arange(len(image)) - np.searchsorted(image, image) < MOST
    number = np.cumsum(kept) - 1
    found = found._replace(detected=type(found.detected)(*(column[kept] for column in found.detected)))
    near = Pairs(*(column[kept[near.detection]] for column in near))
    return found, near._replace(detection=number[near.detection])


def classify(found: Tables, near: Pairs) -> Errors:
    """The type of every error."""
    match = matches(found, near, FOREGROUND)
    right, wrong = verdict(found, match)
    same, real = same_class(found, near), ~found.annotated.ignore[near.object]
    same_iou, same_object = _nearest(near, same & real, len(match))
    other, other_object = _nearest(near, ~same & real, len(match))
    tests = [(same_iou >= BACKGROUND) & (same_iou <= FOREGROUND), other >= FOREGROUND, same_iou >= FOREGROUND]
    tests += [np.maximum(same_iou, other) <= BACKGROUND]
    kind = np.select([~wrong, *tests], [-1, LOCALISATION, CLASSIFICATION, DUPLICATE, EMPTY], BOTH)
    aimed = np.select([kind == LOCALISATION, kind == CLASSIFICATION], [same_object, other_object], -1)
    free = ~found.annotated.ignore
    free[match[right]] = False
    best = _first_at(found, np.where(np.append(free, False)[aimed], aimed, -1))
    missed = free.copy()
    missed[aimed[aimed >= 0]] = False
    return Errors(kind, right | wrong, aimed, best, missed)


def _nearest(near: Pairs, able: np.ndarray, detections: int) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """The largest IoU of each detection among these pairs, and with which object; 0 and -1 where there is none."""
    chosen = np.flatnonzero(able)
    chosen = chosen[np.lexsort((near.object[chosen], -near.iou[chosen], near.detection[chosen]))]
    detection, first = np.unique(near.detection[chosen], return_index=True)
    iou, object = np.zeros(detections), np.full(detections, -1)
    iou[detection], object[detection] = near.iou[chosen][first], near.object[chosen][first]
    return iou, object


def _first_at(found: Tables, object: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Whether each detection is the first, and so the best, with its object."""
    best = np.zeros(len(object), bool)
    _, first = np.unique(object, return_index=True)
    best[first] = object[first] >= 0
    return best


def _mean_ap(found: Tables, errors: Errors, mended: int | None = None) -> float:
    """AP50 with all errors of one type put right."""
    these = errors.kind == mended
    counts = errors.counts & (~these | errors.best)
    right = (errors.kind == -1) | these
    label = np.where(these & errors.best, np.append(found.annotated.label, -1)[errors.target], found.detected.label)
    asked = ~found.annotated.ignore & ~(errors.missed & (mended == MISSED))
    objects = np.bincount(found.annotated.label[asked], minlength=found.classes)
    of = [np.flatnonzero(counts & (label == k)) for k in range(found.classes)]
    each = [
        _ap(found.detected.score[group], right[group], n)
        for group, n in zip(of, objects, strict=True)
        if len(group) + n
    ]
    return float(np.mean(each)) if each else 0.0


def _ap(score: Float[np.ndarray, "d"], right: Bool[np.ndarray, "d"], objects: int) -> float:
    """The mean precision at 101 recalls; 0 without objects."""
    if not objects:
        return 0.0
    hits = np.cumsum(right[np.argsort(-score, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(best[np.searchsorted(hits / objects, RECALL)].mean())

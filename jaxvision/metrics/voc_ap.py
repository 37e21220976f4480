"""Average precision as Pascal VOC defines it, with 11 points (2007) or the whole area (2010 on).

From the development kit: a detection belongs to the object of its class and image with the largest IoU, taken or not; from
an IoU of 0.5 on it is a true positive, or a false positive if a detection with a higher score was first. Objects to ignore
("difficult") don't count, nor do detections that belong to them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.metrics.matching import IOU, Pairs, same_class
from jaxvision.metrics.tables import Tables


class VocAP(NamedTuple):
    """Average precision of each class; NaN for one without objects."""

    eleven_points: Float[np.ndarray, "k"]
    area: Float[np.ndarray, "k"]


def voc_ap(found: Tables, near: Pairs) -> VocAP:
    """Both forms of average precision; equal scores go by the order of the images."""
    target = _targets(found, near)
    objects = np.bincount(found.annotated.label[~found.annotated.ignore], minlength=found.classes)
    each = [_ranked(found, target, k) for k in range(found.classes)]
    both = [_average_precision(right, n) if n else (np.nan, np.nan) for right, n in zip(each, objects, strict=True)]
    return VocAP(*np.array(both, np.float64).reshape(-1, 2).T)


def _targets(found: Tables, near: Pairs) -> Int[np.ndarray, "n"]:
    """The object that each detection belongs to, -1 for none; of equally near ones the first."""
    able = np.flatnonzero(same_class(found, near) & (near.iou >= IOU))
    order = able[np.lexsort((near.object[able], -near.iou[able], near.detection[able]))]
    detection, first = np.unique(near.detection[order], return_index=True)
    target = np.full(len(found.detected.image), -1)
    target[detection] = near.object[order][first]
    return target


def _ranked(found: Tables, target: Int[np.ndarray, "n"], k: int) -> Bool[np.ndarray, "d"]:
    """Whether the detections of a class are true positives, the best first, without those that don't count."""
    chosen = np.flatnonzero(found.detected.label == k)
    objects = target[chosen[np.argsort(-found.detected.score[chosen], kind="stable")]]
    objects = objects[~np.append(found.annotated.ignore, False)[objects]]
    right = np.zeros(len(objects), bool)
    _, first = np.unique(objects, return_index=True)
    right[first] = objects[first] >= 0
    return right


def _average_precision(right: Bool[np.ndarray, "d"], objects: int) -> tuple[float, float]:
    hits = np.cumsum(right)
    recall, precision = hits / objects, hits / np.arange(1, len(right) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    eleven = best[np.searchsorted(recall, np.arange(11) / 10)]
    return float(eleven.mean()), float(best[:-1] @ np.diff(recall, prepend=0))

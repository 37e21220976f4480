"""Weighted boxes fusion (arXiv:1910.13302): what several models find of the same objects, as one list.

Equal to `weighted_boxes_fusion` of the authors' package ensemble-boxes, but for its rounding to float32; boxes may be in any
unit, and each fused object knows what it was made of.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxvision.errors import ConfigError

Confidence = Literal["avg", "max"]
"""Score of a fused object: the mean over the lists, one that lacks it counted as 0; or the largest."""


class Found(NamedTuple):
    """What one model finds in an image."""

    boxes: Float[np.ndarray, "n 4"]
    """`x0 y0 x1 y1`."""
    scores: Float[np.ndarray, "n"]
    labels: Int[np.ndarray, "n"]


class Member(NamedTuple):
    """Object of a list that a fused one was made of."""

    list: int
    row: int


class Fused(NamedTuple):
    """Object made of one or more."""

    box: tuple[float, float, float, float]
    """Mean of the boxes of its members, weighted by their scores times the weights of their lists."""
    score: float
    label: int
    members: tuple[Member, ...]
    """The best first."""


class _Cluster:
    """Fused object under way."""

    def __init__(self):
        self.members: list[Member] = []
        self.scores: list[float] = []
        self.total = np.zeros(4)
        """Sum of the boxes of its members times their scores."""
        self.box = np.zeros(4)

    def add(self, member: Member, box: Float[np.ndarray, "4"], score: float) -> None:
        self.members.append(member)
        self.scores.append(score)
        self.total += score * box
        total = sum(self.scores)
        self.box = self.total / total if len(self.scores) > 1 and total > 0 else box


def fuse(
    lists: Sequence[Found],
    *,
    weights: Sequence[float] | None = None,
    iou_threshold: float = 0.55,
    skip_box_threshold: float = 0.0,
    confidence: Confidence = "avg",
) -> list[Fused]:
    """The objects of all lists, those of one label whose boxes cover each other made one; the best first.

    Objects are taken from the best on; each joins the fused object of its label with the highest IoU, if that is above the
    threshold, or is the first of a new one.

    Args:
      lists: what each model finds, or one model in each of several views of the image.
      weights: of each list; None: 1 each.
      iou_threshold: IoU above which an object joins another.
      skip_box_threshold: objects with a lower score are left out.
      confidence: how scores are fused.

    Raises:
      ConfigError: for weights that are not one positive number a list.
    """
    weights = [1.0] * len(lists) if weights is None else list(weights)
    if len(weights) != len(lists) or not all(0 < each < np.inf for each in weights):
        raise ConfigError(f"weights must be {len(lists)} positive numbers, one a list, not {weights}")
    clusters: dict[int, list[_Cluster]] = {}
    for score, member in _ordered(lists, weights, skip_box_threshold):
        found = lists[member.list]
        of_label = clusters.setdefault(int(found.labels[member.row]), [])
        _join(of_label, member, np.asarray(found.boxes[member.row], np.float64), score, iou_threshold)
    fused = [
        Fused(_corners(each.box), _score(each, weights, confidence), label, tuple(each.members))
        for label, of_label in clusters.items()
        for each in of_label
    ]
    return sorted(fused, key=lambda each: -each.score)


def _corners(box: Float[np.ndarray, "4"]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, box)
    return x0, y0, x1, y1


def _ordered(lists: Sequence[Found], weights: Sequence[float], least: float) -> list[tuple[float, Member]]:
    """Weighted scores, the best first, of the objects that have an extent; of equal ones that of the first list."""
    every = [
        (float(score) * weight, Member(number, row))
        for number, (found, weight) in enumerate(zip(lists, weights, strict=True))
        for row, (score, box) in enumerate(zip(found.scores, found.boxes, strict=True))
        if score >= least and box[2] > box[0] and box[3] > box[1]
    ]
    return sorted(every, key=lambda each: -each[0])


def _join(clusters: list[_Cluster], member: Member, box: np.ndarray, score: float, threshold: float) -> None:
    ious = _iou(np.array([each.box for each in clusters]).reshape(-1, 4), box)
    if not len(ious) or ious.max() <= threshold:
        clusters.append(_Cluster())
        clusters[-1].add(member, box, score)
    else:
        clusters[int(ious.argmax())].add(member, box, score)


def _iou(boxes: Float[np.ndarray, "n 4"], box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "n"]:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    inside = np.maximum(high - low, 0).prod(1)
    return inside / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - inside)


def _score(cluster: _Cluster, weights: Sequence[float], confidence: Confidence) -> float:
    if confidence == "max":
        return max(cluster.scores) / max(weights)
    count = len(cluster.scores)
    return sum(cluster.scores) / count * min(len(weights), count) / sum(weights)

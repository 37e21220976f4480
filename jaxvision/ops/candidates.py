"""The detections of one image, selected from candidates: each a box of one class with a score."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.nms import NMS
from jaxvision.ops.options import COUNT, FINITE, allowed
from jaxvision.ops.selection import Selecting, Selection, padded
from jaxvision.ops.top_k import top_k


def after_top_k(selecting: Selecting) -> dict[str, Any]:
    """The options of `best_candidates`: all settings but the number of candidates, which were taken already."""
    return {name: value for name, value in selecting._asdict().items() if name != "pre_nms_top_k"}


@allowed(score_threshold=FINITE, max_detections=COUNT)
def best_candidates(
    boxes: Float[Array, "c 4"],
    labels: Int[Array, "c"],
    scores: Float[Array, "c"],
    valid: Bool[Array, "c"],
    *,
    score_threshold: float | int,
    nms: NMS,
    max_detections: int,
) -> Selection:
    """The best detections after NMS within each class.

    Args:
      boxes: bounding boxes of the candidates.
      labels: their classes.
      scores: their scores, 0 or more.
      valid: which of them there are.
      score_threshold: only candidates with a score above it count, before NMS and after it.
      nms: what a candidate keeps of its score, see `ops.nms.NMS`.
      max_detections: rows of the result. Of equal scores the first candidate comes first.
    """
    rescored = nms(boxes, scores, valid & (scores > score_threshold), labels)
    best, rows = top_k(rescored, min(max_detections, len(scores)))
    return padded(Selection(boxes[rows], labels[rows], best, best > score_threshold, rows), max_detections)

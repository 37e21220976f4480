"""The detections of one image, selected from the scores of many boxes for every class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops import raw_scores
from jaxvision.ops.boxes import area
from jaxvision.ops.nms import NMS
from jaxvision.ops.options import COUNT, FINITE, WHOLE, allowed
from jaxvision.ops.top_k import top_k


class Selection(NamedTuple):
    """The best detections of one image, the best first; rows that are not valid are 0."""

    boxes: Float[Array, "n 4"]
    labels: Int[Array, "n"]
    scores: Float[Array, "n"]
    valid: Bool[Array, "n"]
    index: Int[Array, "n"]
    """The row, of those given, that each detection was."""

    def renumbered(self, numbers: Int[Array, "c"]) -> "Selection":
        """The detections with `index` looked up in these numbers: of the anchors, say, that the rows were taken from."""
        return self._replace(index=jnp.where(self.valid, numbers[self.index].astype(jnp.int32), 0))


class Selecting(NamedTuple):
    """How the detections of an image are selected from the scores of its anchors, cells or default boxes."""

    score_threshold: float | int
    """Detections have a score above it."""
    pre_nms_top_k: int
    """The number of candidates, the best, that NMS sees: of each class, of each map, or of all, as the detector has it."""
    nms: NMS
    """What a detection keeps of its score beside better ones of its class."""
    max_detections: int
    """Rows of the selection."""


@allowed(score_threshold=FINITE, pre_nms_top_k=COUNT, max_detections=COUNT)
def best_of_each_class(
    boxes: Float[Array, "a 4"],
    scores: Float[Array, "a k"],
    *,
    score_threshold: float | int,
    pre_nms_top_k: int,
    nms: NMS,
    max_detections: int,
) -> Selection:
    """The best detections after NMS within each class; a box may be one of several classes.

    Args:
      boxes: bounding boxes of the image, for all classes.
      scores: the score of every box for every class, 0 or more.
      score_threshold: only boxes with a score above it count, before NMS and after it; boxes without area never do.
      pre_nms_top_k: the number of boxes of each class, those with the best scores, that NMS sees.
      nms: what a box keeps of its score, see `ops.nms.NMS`.
      max_detections: rows of the result. Of equal scores the class with the smaller number comes first, and in it the
        first box.
    """
    raw_scores.tell(lambda: raw_scores.Candidates(boxes, scores))
    scores = jnp.where((area(boxes) > 0)[:, None], scores, -1)
    best, anchors = top_k(scores.T, min(pre_nms_top_k, len(boxes)))
    rescored = jax.vmap(lambda box, score, valid: nms(box, score, valid, None))(
        boxes[anchors], best, best > score_threshold
    )
    scores, rows = top_k(rescored.reshape(-1), min(max_detections, rescored.size))
    labels, index = (rows // anchors.shape[1]).astype(jnp.int32), anchors.reshape(-1)[rows]
    return padded(Selection(boxes[index], labels, scores, scores > score_threshold, index), max_detections)


@allowed(rows=WHOLE)
def padded(selection: Selection, rows: int) -> Selection:
    """The selection in `rows` rows; those that are not valid, and those that are added, are 0."""
    valid, padding = selection.valid, (0, rows - len(selection.valid))
    boxes = jnp.pad(jnp.where(valid[:, None], selection.boxes, 0), (padding, (0, 0)))
    labels, scores, index = (
        jnp.pad(jnp.where(valid, x, 0), padding) for x in (selection.labels, selection.scores, selection.index)
    )
    return Selection(boxes, labels, scores, jnp.pad(valid, padding), index.astype(jnp.int32))

"""Candidates of one image, each a box of one class with a score: the best that suppression leaves."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.nms import nms
from jaxvision.ops.selection import Best
from jaxvision.ops.top_k import top_k


def best_candidates(
    boxes: Float[Array, "c 4"],
    labels: Int[Array, "c"],
    scores: Float[Array, "c"],
    valid: Bool[Array, "c"],
    *,
    overlap: float | int,
    count: int,
) -> Best:
    """The best detections after suppression within each class.

    Args:
      boxes: of the candidates.
      labels: their classes.
      scores: 0 or more.
      valid: which of them there are.
      overlap: the IoU above which a better box of the class suppresses.
      count: rows of the result. Of equal scores the first candidate comes first.
    """
    kept = nms(boxes, scores, valid, overlap, labels)
    best, row = top_k(jnp.where(kept, scores, -1), min(count, len(scores)))
    there, padding = best >= 0, (0, count - len(row))
    chosen = jnp.pad(jnp.where(there[:, None], boxes[row], 0), (padding, (0, 0)))
    found, best = (jnp.pad(jnp.where(there, x, 0), padding) for x in (labels[row], best))
    return chosen, found, best, jnp.pad(there, padding)

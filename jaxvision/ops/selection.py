"""From the scores of many boxes of one image to its detections."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.boxes import area
from jaxvision.ops.nms import nms
from jaxvision.ops.top_k import top_k

Best = tuple[Float[Array, "n 4"], Int[Array, "n"], Float[Array, "n"], Bool[Array, "n"]]
"""Boxes, labels, scores, and which rows there are; the best first."""


def best_of_each_class(
    boxes: Float[Array, "a 4"],
    scores: Float[Array, "a k"],
    *,
    above: float | int,
    candidates: int,
    overlap: float | int,
    count: int,
) -> Best:
    """The best detections after suppression within each class; a box may be one of several classes.

    Args:
      boxes: of the image, for all classes.
      scores: of every box for every class.
      above: scores that are not above are left out, and so are boxes without area.
      candidates: so many boxes of each class, those with the best scores, go on to the suppression.
      overlap: the IoU above which a better box of the class suppresses.
      count: rows of the result. Of equal scores the class with the smaller number comes first, and in it the first box.
    """
    some = area(boxes) > 0
    kept_scores, which = top_k(jnp.where(some[:, None], scores, -1).T, min(candidates, len(boxes)))
    alive = kept_scores > above
    kept = jax.vmap(lambda box, score, valid: nms(box, score, valid, overlap))(boxes[which], kept_scores, alive)
    flat = jnp.where(kept, kept_scores, -1).reshape(-1)
    best, row = top_k(flat, min(count, len(flat)))
    labels, index = (row // which.shape[1]).astype(jnp.int32), which.reshape(-1)[row]
    there = best > above
    padding = count - len(row)
    chosen = jnp.pad(jnp.where(there[:, None], boxes[index], 0), ((0, padding), (0, 0)))
    labels, best = (jnp.pad(jnp.where(there, x, 0), (0, padding)) for x in (labels, best))
    return chosen, labels, best, jnp.pad(there, (0, padding))

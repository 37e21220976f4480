"""Soft, fast and matrix NMS of one image's boxes: none is the greedy choice of `ops.nms`, and each has its own name.

Rows that are not `valid` touch nothing and come out with a score of 0, or not kept. Of equal scores the earlier row goes
first. Boxes of different `labels` leave each other alone; without labels, all compete.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.nms import NMS, REMOVED
from jaxvision.ops.options import FINITE, NOT_NEGATIVE, POSITIVE, allowed


@allowed(sigma=POSITIVE)
def soft_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    sigma: float | int = 0.5,
    labels: Int[Array, "n"] | None = None,
) -> Float[Array, "n"]:
    """Scores that fall by `exp(-iou^2 / sigma)` for every better box, one after the other (arXiv:1704.04503, Gaussian).

    Better is who has the better score when its turn comes: what was lowered before counts.
    """
    falls = jnp.exp(-jnp.square(_competing_iou(boxes, valid, labels)) / sigma)

    def turn(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        now, waiting = state
        best = jnp.argmax(jnp.where(waiting, now, -jnp.inf))
        waiting = waiting & (jnp.arange(len(now)) != best)
        return jnp.where(waiting, now * falls[best], now), waiting

    alive = jnp.where(valid, scores, 0)
    return jax.lax.fori_loop(0, len(scores), turn, (alive, valid))[0]


@allowed(threshold=FINITE)
def fast_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    threshold: float | int,
    labels: Int[Array, "n"] | None = None,
) -> Bool[Array, "n"]:
    """The boxes without a better one of an IoU above the threshold, whether that one is kept or not (arXiv:1904.02689).

    Keeps fewer than `nms`, in one step.
    """
    return valid & ~(_better(scores, valid) & (_competing_iou(boxes, valid, labels) > threshold)).any(0)


@allowed(sigma=NOT_NEGATIVE)
def matrix_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    sigma: float | int = 2.0,
    labels: Int[Array, "n"] | None = None,
) -> Float[Array, "n"]:
    """Scores that fall with the IoU of the worst better box, less where that one has a better one itself.

    By `min exp(-sigma (iou^2 - other^2))`, `other` being the largest IoU of that box with a better one
    (arXiv:2003.10152, equation 5, Gaussian).
    """
    better = _better(scores, valid)
    ious = jnp.where(better, _competing_iou(boxes, valid, labels), 0)
    other = ious.max(0)
    falls = jnp.exp(-sigma * (jnp.square(ious) - jnp.square(other)[:, None]))
    return jnp.where(valid, scores, 0) * jnp.minimum(jnp.where(better, falls, 1).min(0), 1)


@allowed(sigma=POSITIVE)
def soft(sigma: float | int = 0.5) -> NMS:
    """Soft NMS with a Gaussian, see `soft_nms`: scores fall, no box is removed."""

    def rescored(boxes: Array, scores: Array, valid: Array, labels: Array | None) -> Array:
        return jnp.where(valid, soft_nms(boxes, scores, valid, sigma, labels), REMOVED)

    return rescored


@allowed(sigma=NOT_NEGATIVE)
def matrix(sigma: float | int = 2.0) -> NMS:
    """Matrix NMS with a Gaussian, see `matrix_nms`: scores fall, no box is removed."""

    def rescored(boxes: Array, scores: Array, valid: Array, labels: Array | None) -> Array:
        return jnp.where(valid, matrix_nms(boxes, scores, valid, sigma, labels), REMOVED)

    return rescored


@allowed(iou=FINITE)
def fast(iou: float = 0.5) -> NMS:
    """Fast NMS that removes every box of a higher IoU than this with any better one, see `fast_nms`."""
    return lambda boxes, scores, valid, labels: jnp.where(fast_nms(boxes, scores, valid, iou, labels), scores, REMOVED)


def _competing_iou(boxes: Float[Array, "n 4"], valid: Bool[Array, "n"], labels: Int[Array, "n"] | None) -> Array:
    """IoU of pairs that compete, else 0."""
    rivals = valid[:, None] & valid[None]
    if labels is not None:
        rivals = rivals & (labels[:, None] == labels[None])
    return jnp.where(rivals, pairwise(iou, boxes, boxes), 0)


def _better(scores: Float[Array, "n"], valid: Bool[Array, "n"]) -> Bool[Array, "n n"]:
    """Whether the row's box goes before the column's."""
    number = jnp.arange(len(scores))
    before = (scores[:, None] > scores[None]) | ((scores[:, None] == scores[None]) & (number[:, None] < number[None]))
    return before & valid[:, None] & valid[None]

"""Non-maximum suppression of one image's boxes at fixed width: what is kept is a mask, nothing changes its shape.

Rows that are not `valid` are never kept and suppress nothing. Of equal scores the earlier row goes first.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.boxes import iou, pairwise

BLOCK = 1024
"""So many boxes are settled at a time: memory grows with BLOCK * n, not with n * n."""


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    threshold: float | int,
    labels: Int[Array, "n"] | None = None,
) -> Bool[Array, "n"]:
    """The boxes that greedy suppression keeps: from the best score down, each that none kept before overlaps too much.

    Exact for every threshold: the mask is the one fixed point of "kept is who overlaps no better one that is kept", which
    is reached from above in as many rounds as the longest chain of suppressions has links, not in n.

    Args:
      boxes: `x0 y0 x1 y1`.
      scores: of them.
      valid: which of them there are.
      threshold: an IoU above it suppresses (torchvision's strict `>`).
      labels: boxes of different labels leave each other alone; None: all compete.
    """
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    labels = jnp.zeros_like(order) if labels is None else labels
    sorted_boxes, sorted_valid, sorted_labels = boxes[order], valid[order], labels[order]
    n, size = len(boxes), min(BLOCK, len(boxes))
    if n <= BLOCK:
        kept = _settle(_suppresses(sorted_boxes, sorted_labels, sorted_boxes, sorted_labels, threshold), sorted_valid)
    else:
        kept = _by_block(sorted_boxes, sorted_labels, sorted_valid, threshold, size)
    return jnp.zeros(n, bool).at[order].set(kept)


def _suppresses(a: Array, labels_a: Array, b: Array, labels_b: Array, threshold: float | int) -> Bool[Array, "n m"]:
    """Whether a box of `a`, if it is kept, suppresses one of `b` behind it."""
    return (pairwise(iou, a, b) > threshold) & (labels_a[:, None] == labels_b[None])


def _settle(overlaps: Bool[Array, "n n"], alive: Bool[Array, "n"]) -> Bool[Array, "n"]:
    """The greedy choice among boxes in order of their scores."""
    before = jnp.triu(overlaps, 1).astype(jnp.float32)

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        hit = jnp.matmul(kept.astype(jnp.float32)[None], before)[0] > 0
        new = alive & ~hit
        return new, (new != kept).any()

    return jax.lax.while_loop(lambda state: state[1], again, (alive, alive.any()))[0]


def _by_block(boxes: Array, labels: Array, valid: Array, threshold: float | int, size: int) -> Bool[Array, "n"]:
    """The same for many boxes: block after block, each first cleared of what earlier blocks suppress."""
    n = len(boxes)
    padding = -n % size
    boxes = jnp.pad(boxes, ((0, padding), (0, 0)))
    labels, alive = jnp.pad(labels, (0, padding)), jnp.pad(valid, (0, padding))

    def block(number: Array, alive: Array) -> Array:
        start = number * size
        mine = jax.lax.dynamic_slice_in_dim(boxes, start, size)
        my_labels = jax.lax.dynamic_slice_in_dim(labels, start, size)
        overlaps = _suppresses(mine, my_labels, boxes, labels, threshold)
        inside = jax.lax.dynamic_slice_in_dim(overlaps, start, size, axis=1)
        kept = _settle(inside, jax.lax.dynamic_slice_in_dim(alive, start, size))
        hit = (overlaps & kept[:, None]).any(0) & (jnp.arange(len(alive)) >= start + size)
        return jax.lax.dynamic_update_slice_in_dim(alive & ~hit, kept, start, axis=0)

    return jax.lax.fori_loop(0, len(boxes) // size, block, alive)[:n]

"""SimOTA, YOLOX's assignment (arXiv:2107.08430, section 2.1): of the cells near an object, those that it costs least.

Equal to the authors' code since version 0.3: a cell is near if its centre is within 1.5 cells of the object's on both axes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.matching import BACKGROUND, Match
from jaxvision.ops.top_k import top_k

RADIUS = 1.5
"""Radius of the centre region in cells, on either axis."""
FAR = 1e6
"""Cost for an object to take a cell that is near another one, and not near itself."""
IOU_WEIGHT = 3.0
"""Weight of the IoU term in the cost."""
MOST = 10
"""Number of best IoUs whose sum is the number of cells that an object takes."""
EPSILON = 1e-8
"""Term added to an IoU before its logarithm is taken."""
LARGEST = 100.0
"""Largest cost of a class, as in PyTorch's cross-entropy."""


def simota(
    predicted: Float[Array, "a 4"],
    log_probability: Float[Array, "a k"],
    centres: Float[Array, "a 2"],
    strides: Float[Array, "a 1"],
    boxes: Float[Array, "g 4"],
    labels: Int[Array, "g"],
    valid: Bool[Array, "g"],
) -> Match:
    """Which object each prediction is trained on.

    Args:
      predicted: boxes, as predicted.
      log_probability: logarithm of the probability of each class.
      centres: those of the cells that predict, in pixels.
      strides: pixels a cell.
      boxes: bounding boxes of the objects.
      labels: classes of the objects.
      valid: which objects are real, not padding.
    """
    near = _near(boxes, centres, strides) & valid[:, None]
    allowed = near.any(0)[None] & valid[:, None]
    ious = jnp.where(allowed, pairwise(iou, boxes, predicted), 0)
    cost = class_cost(log_probability, labels) - IOU_WEIGHT * jnp.log(ious + EPSILON)
    return dynamic_k(cost + jnp.where(near, 0, FAR), ious, allowed)


def dynamic_k(cost: Float[Array, "g a"], ious: Float[Array, "g a"], allowed: Bool[Array, "g a"]) -> Match:
    """Each object to the cells that cost it least: as many as its ten best IoUs add up to, rounded down, at least one.

    A cell that several take is that of the object, any object, that it costs least. Of equal costs the first cell is
    taken, and the first object has it.

    Args:
      cost: that of giving a cell to an object.
      ious: IoU of the cell's predicted box with the object, 0 to 1.
      allowed: which pairs are allowed at all.
    """
    objects, cells = cost.shape
    most = min(MOST, cells)
    best = top_k(jnp.where(allowed, ious, 0), most)[0]
    wanted = jnp.maximum(best.sum(1).astype(jnp.int32), 1)
    cost = jnp.where(allowed, cost, jnp.inf)
    least, cell = top_k(-cost, most)
    takes = (jnp.arange(most)[None] < wanted[:, None]) & jnp.isfinite(least)
    row = jnp.arange(objects, dtype=jnp.int32)[:, None]
    taken = jnp.zeros((objects, cells), bool).at[row, cell].set(takes)
    owner = jnp.where(taken.sum(0) > 1, cost.argmin(0), taken.argmax(0))
    return jnp.where(taken.any(0), owner, BACKGROUND).astype(jnp.int32)


def class_cost(log_probability: Float[Array, "a k"], labels: Int[Array, "g"]) -> Float[Array, "g a"]:
    """Binary cross-entropy of the classes predicted in every cell against the label of every object, summed."""
    present = jnp.minimum(-log_probability, LARGEST)
    absent = jnp.minimum(-jnp.log(-jnp.expm1(log_probability)), LARGEST)
    return absent.sum(1)[None] + (present - absent)[:, labels].T


def _near(boxes: Float[Array, "g 4"], centres: Float[Array, "a 2"], strides: Float[Array, "a 1"]) -> Bool[Array, "g a"]:
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return (jnp.abs(centres[None] - middle) < RADIUS * strides[None]).all(-1)

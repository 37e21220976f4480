"""Losses of bounding boxes as values: what a detector pays for each box that it predicts, 0 or more.

A loss sees a box twice, as offsets from its anchor and in pixels, and so does it see the ground truth.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops import boxes
from jaxvision.ops.options import POSITIVE, allowed

Rows = Float[Array, "n 4"]
BoxLoss = Callable[[Rows, Rows, Rows, Rows], Float[Array, "n"]]
"""`(offsets, wanted offsets, predicted boxes, ground-truth boxes) -> loss` of each; boxes are `x0 y0 x1 y1` in pixels."""


def l1(offsets: Rows, wanted: Rows, _: Rows, __: Rows) -> Float[Array, "n"]:
    """The absolute differences of the offsets, summed."""
    return jnp.abs(offsets - wanted).sum(-1)


@allowed(beta=POSITIVE)
def smooth_l1(beta: float | int = 1) -> BoxLoss:
    """The smooth L1 distance of the offsets, summed: half the square by `beta` below it (arXiv:1504.08083, equation 3)."""

    def loss(offsets: Rows, wanted: Rows, _: Rows, __: Rows) -> Float[Array, "n"]:
        distance = jnp.abs(offsets - wanted)
        return jnp.where(distance < beta, jnp.square(distance) / 2, beta * (distance - beta / 2)).sum(-1) / beta

    return loss


def squared_iou(_: Rows, __: Rows, predicted: Rows, truth: Rows) -> Float[Array, "n"]:
    """One less the square of the IoU, 0 to 1: YOLOX's."""
    return 1 - jnp.square(boxes.iou(predicted, truth))


def giou(_: Rows, __: Rows, predicted: Rows, truth: Rows) -> Float[Array, "n"]:
    """One less the generalised IoU, 0 to 2 (arXiv:1902.09630)."""
    return 1 - boxes.giou(predicted, truth)


def diou(_: Rows, __: Rows, predicted: Rows, truth: Rows) -> Float[Array, "n"]:
    """One less the distance IoU, 0 to 2 (arXiv:1911.08287)."""
    return 1 - boxes.diou(predicted, truth)


def ciou(_: Rows, __: Rows, predicted: Rows, truth: Rows) -> Float[Array, "n"]:
    """One less the complete IoU, 0 or more (arXiv:1911.08287)."""
    return 1 - boxes.ciou(predicted, truth)

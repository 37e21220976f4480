"""Boxes as what a network predicts, relative to a reference box, and back. Boxes are `x0 y0 x1 y1` in pixels."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops.boxes import from_centre, to_centre
from jaxvision.ops.extremes import minimum
from jaxvision.ops.options import POSITIVE, allowed

Boxes = Float[Array, "*b 4"]
Stride = float | int | Float[Array, "*#b 1"]
Weights = tuple[float | int, float | int, float | int, float | int]

FASTER_RCNN: Weights = (10.0, 10.0, 5.0, 5.0)
"""Weights of the second stage; those of the RPN are ones."""
SSD: Weights = (10.0, 10.0, 5.0, 5.0)
"""The inverse of the variances 0.1 and 0.2 of the original code."""
LARGEST_LOG = math.log(1000 / 16)
"""What a decoded logarithm of a size is cut at: 62.5 times the reference."""


@allowed(weights=POSITIVE._replace(length=4))
def encode(boxes: Boxes, references: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """Offsets `dx dy dw dh` of boxes from their references (arXiv:1311.2524, appendix C), each times its weight.

    `dx, dy` are shifts of the centre in sizes of the reference, `dw, dh` logarithms of the ratio of the sizes. A box or a
    reference without extent, as padding has, gives 0 in place of what is not finite.
    """
    target, reference = to_centre(boxes), to_centre(references)
    positive = (target[..., 2:] > 0) & (reference[..., 2:] > 0)
    side, base = jnp.where(positive, target[..., 2:], 1), jnp.where(positive, reference[..., 2:], 1)
    shift = jnp.where(positive, (target[..., :2] - reference[..., :2]) / base, 0)
    return jnp.concatenate([shift, jnp.log(side / base)], -1) * _row(weights, boxes)


@allowed(weights=POSITIVE._replace(length=4))
def decode(offsets: Boxes, references: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """The boxes that `encode` turns into these offsets; no larger than 62.5 times the reference."""
    offsets, reference = offsets / _row(weights, offsets), to_centre(references)
    centre = offsets[..., :2] * reference[..., 2:] + reference[..., :2]
    side = jnp.exp(minimum(offsets[..., 2:], LARGEST_LOG)) * reference[..., 2:]
    return from_centre(jnp.concatenate([centre, side], -1))


@allowed(stride=POSITIVE)
def decode_yolo(offsets: Boxes, cells: Float[Array, "*b 2"], priors: Float[Array, "*b 2"], stride: Stride) -> Boxes:
    """The boxes of YOLOv2 and v3 (arXiv:1804.02767, section 2.1).

    Args:
      offsets: `tx ty tw th`, as predicted.
      cells: column and row of the cell that predicts.
      priors: width and height of its prior, in pixels.
      stride: pixels a cell.
    """
    centre = (jax.nn.sigmoid(offsets[..., :2]) + cells) * stride
    return from_centre(jnp.concatenate([centre, jnp.exp(offsets[..., 2:]) * priors], -1))


@allowed(stride=POSITIVE)
def encode_yolo(
    boxes: Boxes, cells: Float[Array, "*b 2"], priors: Float[Array, "*b 2"], stride: Stride
) -> tuple[Float[Array, "*b 2"], Float[Array, "*b 2"]]:
    """What YOLO learns for these boxes: where the centre lies in its cell, 0 to 1, and `tw th`.

    The first is the target of the sigmoid, not of its argument: `tx` would be infinite on the border of a cell.
    """
    centre, side = jnp.split(to_centre(boxes), 2, axis=-1)
    positive = side > 0
    return centre / stride - cells, jnp.log(jnp.where(positive, side / priors, 1))


def _row(weights: Weights, boxes: Boxes) -> Array:
    return jnp.asarray(weights, boxes.dtype).reshape((1,) * (boxes.ndim - 1) + (4,))

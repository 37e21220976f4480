"""Boxes `x0 y0 x1 y1` in pixels, `x1 y1` exclusive: sizes, IoU and its relatives, other forms.

IoU and its relatives take boxes that correspond, `... 4` and `... 4` of shapes that broadcast; `pairwise(iou, a, b)` makes
the matrix of all pairs. Two boxes without any area have an IoU of 0, and no gradient is ever NaN.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jaxvision.ops.extremes import maximum, minimum

Boxes = Float[Array, "*b 4"]
Paired = Float[Array, "*#c 4"]
"""Boxes whose leading axes broadcast against the other ones'."""
Similarity = Callable[[Array, Array], Array]
"""`iou`, `giou`, `diou`, `ciou` or `covered`."""

EPSILON = 1e-7
"""Added to the denominators of DIoU and CIoU, as torchvision does."""


def area(boxes: Boxes) -> Float[Array, "*b"]:
    """Width times height in square pixels; 0 where a box has no extent or a negative one."""
    width, height = _sides(boxes)
    return width * height


def iou(a: Paired, b: Paired) -> Float[Array, "*#c"]:
    """Intersection over union, 0 to 1."""
    return _iou(a, b)


def giou(a: Paired, b: Paired) -> Float[Array, "*#c"]:
    """IoU less the fraction of the smallest box around both that neither covers, -1 to 1 (arXiv:1902.09630)."""
    union = area(a) + area(b) - _intersection(a, b)
    around = area(_around(a, b))
    return _iou(a, b) - _ratio(around - union, around)


def diou(a: Paired, b: Paired) -> Float[Array, "*#c"]:
    """IoU less the squared distance of the centres by that of the corners of the box around both (arXiv:1911.08287)."""
    return _iou(a, b) - _distance(a, b)


def ciou(a: Paired, b: Paired) -> Float[Array, "*#c"]:
    """DIoU less a term for unlike aspects, whose weight has no gradient (arXiv:1911.08287, equation 12)."""
    angle_a, angle_b = _angle(a), _angle(b)
    unlike = 4 / math.pi**2 * jnp.square(angle_a - angle_b)
    iou = _iou(a, b)
    weight = jax.lax.stop_gradient(unlike / (1 - iou + unlike + EPSILON))
    return iou - _distance(a, b) - weight * unlike


def covered(a: Paired, b: Paired) -> Float[Array, "*#c"]:
    """The fraction of the area of `a` that lies in `b`, 0 to 1: what COCO takes for IoU where `b` is a crowd."""
    return _ratio(_intersection(a, b), area(a))


def pairwise(similarity: Similarity, a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Similarity, IoU say, of every box of `a` and every box of `b`."""
    return similarity(a[:, None], b[None])


def clip(boxes: Boxes, size: Int[Array, "2"]) -> Boxes:
    """The part inside the content of this height and width."""
    height, width = size[0].astype(boxes.dtype), size[1].astype(boxes.dtype)
    limit = jnp.stack([width, height, width, height])
    return jnp.clip(boxes, 0, limit.reshape((1,) * (boxes.ndim - 1) + (4,)))


def to_centre(boxes: Boxes) -> Float[Array, "*b 4"]:
    """`x0 y0 x1 y1` to centre, width and height: `cx cy w h`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], -1)


def from_centre(boxes: Float[Array, "*b 4"]) -> Boxes:
    """`cx cy w h` to `x0 y0 x1 y1`."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def to_corner(boxes: Num[Array, "*b 4"]) -> Num[Array, "*b 4"]:
    """`x0 y0 x1 y1` to COCO's corner, width and height: `x0 y0 w h`."""
    return jnp.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def from_corner(boxes: Num[Array, "*b 4"]) -> Num[Array, "*b 4"]:
    """COCO's `x0 y0 w h` to `x0 y0 x1 y1`."""
    return jnp.concatenate([boxes[..., :2], boxes[..., 2:] + boxes[..., :2]], -1)


def _sides(boxes: Array) -> tuple[Array, Array]:
    return maximum(boxes[..., 2] - boxes[..., 0], 0), maximum(boxes[..., 3] - boxes[..., 1], 0)


def _intersection(a: Array, b: Array) -> Array:
    # Side by side, not as boxes: over many pairs several times as fast.
    width, height = (minimum(a[..., i + 2], b[..., i + 2]) - maximum(a[..., i], b[..., i]) for i in (0, 1))
    return maximum(width, 0) * maximum(height, 0)


def _around(a: Array, b: Array) -> Array:
    """The smallest box around both."""
    return jnp.concatenate([minimum(a[..., :2], b[..., :2]), maximum(a[..., 2:], b[..., 2:])], -1)


def _iou(a: Array, b: Array) -> Array:
    intersection = _intersection(a, b)
    return _ratio(intersection, area(a) + area(b) - intersection)


def _distance(a: Array, b: Array) -> Array:
    around = _around(a, b)
    diagonal = jnp.square(around[..., 2:] - around[..., :2]).sum(-1)
    apart = jnp.square((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).sum(-1)
    return apart / (diagonal + EPSILON)


def _angle(boxes: Array) -> Array:
    """Angle of the diagonal to the vertical; 0 for a point."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return jnp.arctan2(width, jnp.where((width == 0) & (height == 0), 1, height))


def _ratio(part: Array, whole: Array) -> Array:
    """`part / whole`; 0, with a gradient of 0, where the whole is 0."""
    positive = whole > 0
    return jnp.where(positive, part / jnp.where(positive, whole, 1), 0)

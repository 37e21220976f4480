"""Motions of the plane as 3x3 matrices, on points (x, y) in pixels of the canvas, y downwards; what moves with them.

A point p goes to `m @ (x, y, 1)`, divided by its third number. Pixel (row i, column j) has its centre at (j + 0.5, i + 0.5).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxvision.ops.options import FINITE, allowed

Matrix = Float[Array, "3 3"]
Number = Shaped[Array, ""] | float | int
FEWEST_PIXELS, WHOLE = 1.0, 1e-3
"""Pixels: least width and height that a box cut by the border must keep; least move of a side that counts as a cut."""


@allowed(x=FINITE, y=FINITE)
def shift(x: Number, y: Number) -> Matrix:
    """Shift to the right by `x` pixels, down by `y`."""
    return _matrix([1, 0, x, 0, 1, y, 0, 0, 1])


@allowed(x=FINITE, y=FINITE)
def zoom(x: Number, y: Number) -> Matrix:
    """Zoom from the origin: `x` times as wide, `y` times as high."""
    return _matrix([x, 0, 0, 0, y, 0, 0, 0, 1])


@allowed(x=FINITE, y=FINITE)
def shear(x: Number, y: Number) -> Matrix:
    """Shear that moves (1, 1) to (1 + x, 1 + y): columns lean by `x`, rows by `y`, pixels per pixel."""
    return _matrix([1, x, 0, y, 1, 0, 0, 0, 1])


@allowed(degrees=FINITE)
def rotation(degrees: Number) -> Matrix:
    """Rotation about the origin, counter-clockwise as one sees it."""
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix([cos, sin, 0, -sin, cos, 0, 0, 0, 1])


def product(*matrices: Matrix) -> Matrix:
    """Product of matrices; the last is applied to a point first."""
    result = matrices[0]
    for each in matrices[1:]:
        result = jnp.matmul(result, each, precision=jax.lax.Precision.HIGHEST)
    return result


def about_centre(matrix: Matrix, size: Int[Array, "2"]) -> Matrix:
    """`matrix` with the centre of the content (`size`: height, width) as its origin."""
    y, x = size[0].astype(jnp.float32) / 2, size[1].astype(jnp.float32) / 2
    return product(shift(x, y), matrix, shift(-x, -y))


def inverse(matrix: Matrix) -> Matrix:
    """The motion back: the adjugate, which is the inverse but for a factor that no point notices.

    The factor is positive for motions that keep left and right apart.
    """
    a, b, c = matrix
    return jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)


def onto(corners: Float[Array, "4 2"], size: Int[Array, "2"]) -> Matrix:
    """Motion of the corners of the content (top left, top right, bottom right, bottom left) to these (x, y); convex.

    The map from the unit square to a quadrilateral: Heckbert, Fundamentals of Texture Mapping (1989), section 2.2.3.
    """
    p0, p1, p2, p3 = corners
    bend = p0 - p1 + p2 - p3
    u, v = p1 - p2, p3 - p2
    det = u[0] * v[1] - u[1] * v[0]
    g = (bend[0] * v[1] - bend[1] * v[0]) / det
    h = (u[0] * bend[1] - u[1] * bend[0]) / det
    x, y = p1 - p0 + g * p1, p3 - p0 + h * p3
    height, width = size[0].astype(jnp.float32), size[1].astype(jnp.float32)
    return product(_matrix([x[0], y[0], p0[0], x[1], y[1], p0[1], g, h, 1]), zoom(1 / width, 1 / height))


def moved_boxes(boxes: Float[Array, "n 4"], matrix: Matrix) -> Float[Array, "n 4"]:
    """The smallest boxes (x0 y0 x1 y1) around the four moved corners of each."""
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    x, y = jnp.stack([x0, x1, x0, x1]), jnp.stack([y0, y0, y1, y1])
    m = matrix.astype(boxes.dtype)
    deep = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    to_x = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / deep
    to_y = (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / deep
    return jnp.stack([to_x.min(0), to_y.min(0), to_x.max(0), to_y.max(0)], axis=-1)


def cut_boxes(boxes: Float[Array, "n 4"], size: Int[Array, "2"]) -> tuple[Float[Array, "n 4"], Bool[Array, "n"]]:
    """The part of each box inside the content (`size`: height, width), and whether enough is left."""
    limit = size[::-1].astype(boxes.dtype)
    return cut_boxes_at(boxes, jnp.concatenate([jnp.zeros_like(limit), limit])[None])


def cut_boxes_at(
    boxes: Float[Array, "n 4"], windows: Float[Array, "#n 4"]
) -> tuple[Float[Array, "n 4"], Bool[Array, "n"]]:
    """The part of each box inside a window `x0 y0 x1 y1`, its own or the same for all, and whether enough is left.

    Enough is anything of a box that nothing was cut off, else a pixel in width and in height.
    """
    low, high = jnp.tile(windows[:, :2], (1, 2)), jnp.tile(windows[:, 2:], (1, 2))
    cut = jnp.minimum(jnp.maximum(boxes, low), high)
    sides, whole = cut[:, 2:] - cut[:, :2], (jnp.abs(cut - boxes) < WHOLE).all(1)
    return cut, jnp.where(whole, (sides > 0).all(1), (sides >= FEWEST_PIXELS).all(1))


def _matrix(numbers: Sequence[Number]) -> Matrix:
    return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers]).reshape(3, 3)

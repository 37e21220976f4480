"""Elastic deformation: the content of each image bent by a smooth field, its boxes, masks and maps with it.

The field is a cubic B-spline on a grid of knots over the content. Where knots move by less than 0.48 of their distance, which
is 0.16 of the side here, nothing folds (Choi and Lee, 2000): what was inside an object's border stays inside.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.augment import targets
from jaxvision.ops import homography, resample
from jaxvision.ops.masks import boxes_around
from jaxvision.ops.pixels import inside
from jaxvision.ops.resample import Fill, Interpolation
from jaxvision.types import Batch, Objects, SegmentationMap

CELLS = 3
"""Cells of the grid along each side of the content."""
KNOTS = CELLS + 3
"""Knots along each side: those around the content, too, which reach into it."""
POINTS = 16
"""Points of each side of a box that are moved to find the box around it."""
TURNS = 30
"""Rounds of the search for where a point goes; each brings it nearer by as much as the field changes from pixel to pixel."""

Knots = Float[Array, "6 6 2"]
"""How far each knot moves, down and to the right, as a fraction of the shorter side."""


class Bent(NamedTuple):
    """Row and column that each pixel of the canvas is taken from, counted from the centre of the first pixel."""

    y: Float[Array, "b h w"]
    x: Float[Array, "b h w"]


def displacement(
    knots: Knots, size: Int[Array, "2"], y: Float[Array, "*n"], x: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """How far down and to the right of each point, row and column from the border of the content, it is taken from."""
    height, width = jnp.maximum(size, 1).astype(knots.dtype)
    down, across = _weights(y / height), _weights(x / width)
    moves = jnp.einsum("...r,...c,rck->...k", down, across, knots) * jnp.minimum(height, width)
    return moves[..., 0], moves[..., 1]


def _weights(place: Float[Array, "*n"]) -> Float[Array, "*n 6"]:
    """Weights of the knots at places, 0 to 1 along the side; beyond, those of the border."""
    knots = (jnp.arange(KNOTS, dtype=place.dtype) - 1).reshape(*(1,) * place.ndim, KNOTS)
    distance = jnp.abs(jnp.clip(place, 0, 1)[..., None] * CELLS - knots)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = jnp.maximum(2 - distance, 0) ** 3 / 6
    return jnp.where(distance < 1, near, far)


def bent(batch: Batch, knots: Float[Array, "b 6 6 2"], who: str) -> Batch:
    """The batch, its targets included, with the content of each image bent; what comes in from outside repeats the border.

    With masks, boxes are the smallest around their bent masks; without, around their bent sides. Objects of which less than a
    pixel is left are not `valid` any more.

    Raises:
      TypeError, ValueError: for targets that can't be moved, as `augment.warp`; `who` wanted to.
    """
    batch = dataclasses.replace(batch, size=jnp.asarray(batch.size))
    knots, canvas = jnp.asarray(knots), batch.image.shape[1:3]
    places = jax.vmap(lambda each, size: Bent(*_places(each, size, *canvas)))(knots, batch.size)
    image = _content(batch, places, batch.image, "nearest", "bilinear")

    def maps(map: SegmentationMap) -> SegmentationMap:
        moved = jax.tree.map(lambda each: _content(batch, places, each, "nearest", "nearest"), map)
        reached = jax.vmap(resample.known)(batch.size, places.y, places.x)
        return dataclasses.replace(moved, valid=moved.valid & (reached | ~_shown(batch)))

    return targets.move(
        batch, image, targets.Motion(lambda objects: _objects(batch, knots, places, objects), maps), who
    )


def _places(knots: Knots, size: Array, height: int, width: int) -> tuple[Array, Array]:
    y, x = jnp.meshgrid(*(jnp.arange(n, dtype=knots.dtype) + 0.5 for n in (height, width)), indexing="ij")
    down, right = displacement(knots, size, y, x)
    return y + down - 0.5, x + right - 0.5


def _shown(batch: Batch) -> Array:
    return jax.vmap(lambda size: inside(size, *batch.image.shape[1:3]))(batch.size)


def _content(
    batch: Batch, places: Bent, values: Shaped[Array, "b h w *c"], fill: Fill, interpolation: Interpolation
) -> Shaped[Array, "b h w *c"]:
    """Values moved within the content; what lies outside stays."""
    one = lambda each, size, y, x: resample.sample(each, size, y, x, fill, interpolation)
    shown = _shown(batch).reshape(*values.shape[:3], *(1,) * (values.ndim - 3))
    return jnp.where(shown, jax.vmap(one)(values, batch.size, *places), values)


def _objects(batch: Batch, knots: Array, places: Bent, objects: Objects) -> Objects:
    if objects.masks is None:
        boxes, left = jax.vmap(_boxes)(jnp.asarray(objects.boxes), batch.size, knots)
        return dataclasses.replace(objects, boxes=boxes, valid=objects.valid & left)
    moved = _content(batch, places, jnp.moveaxis(objects.masks, 1, -1), "constant", "nearest")
    masks = jnp.moveaxis(moved, -1, 1) & _shown(batch)[:, None]
    boxes, left = jax.vmap(lambda each: boxes_around(each, objects.boxes.dtype))(masks)
    return dataclasses.replace(objects, boxes=boxes, valid=objects.valid & left, masks=masks)


def _boxes(boxes: Float[Array, "n 4"], size: Int[Array, "2"], knots: Knots) -> tuple[Array, Array]:
    """The smallest boxes around the sides of boxes, moved; cut at the content."""
    along = jnp.linspace(0, 1, POINTS, dtype=boxes.dtype)
    none = jnp.zeros_like(along)
    right = jnp.concatenate([along, along, none, none + 1])
    down = jnp.concatenate([none, none + 1, along, along])
    x = boxes[:, :1] + right[None] * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + down[None] * (boxes[:, 3:] - boxes[:, 1:2])
    y, x = moved(knots, size, y, x)
    around = jnp.stack([x.min(1), y.min(1), x.max(1), y.max(1)], -1)
    return homography.cut_boxes(around.astype(boxes.dtype), size)


def moved(knots: Knots, size: Int[Array, "2"], y: Float[Array, "*n"], x: Float[Array, "*n"]) -> tuple[Array, Array]:
    """Where points of the content go: the places that are taken from them."""

    def nearer(_: int, to: tuple[Array, Array]) -> tuple[Array, Array]:
        down, right = displacement(knots, size, *to)
        return y - down, x - right

    return jax.lax.fori_loop(0, TURNS, nearer, (y, x))

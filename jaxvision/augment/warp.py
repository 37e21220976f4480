"""Augmentations that move pixels anywhere: one resampling each, of the content about its own centre.

Boxes: where Objects have masks, a moved box is the smallest around its moved mask. Without, it is the smallest around its
moved corners: exact for shifts, zooms and crops, and no smaller than the object for rotations, shears and perspective.
What leaves the content is cut off; an object of which less than a pixel in width or height is left is no longer `valid`.
Masks and maps are taken from the nearest pixel; of masks that were cut out at their boxes the frames are moved, which
rotations, shears and perspective refuse. Where a pixel comes from beyond the border of the content, no mask is on
and no map `valid`, whatever the image shows there.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.augment import cut_masks, targets, window
from jaxvision.augment.keys import row_keys
from jaxvision.ops import homography, resample
from jaxvision.ops.masks import boxes_around, cut_at
from jaxvision.ops.options import NOT_NEGATIVE, Bound, allowed
from jaxvision.ops.pixels import inside
from jaxvision.ops.resample import Fill, Interpolation
from jaxvision.types import Augment, Batch, CutMasks, Key, Objects, Scalar, SegmentationMap


@allowed(rotation=NOT_NEGATIVE, shift=NOT_NEGATIVE, shear=NOT_NEGATIVE, zoom=Bound(0, 1, below=True))
def affine(
    *,
    rotation: float = 0.0,
    shift: float = 0.0,
    shear: float | tuple[float, float] = 0.0,
    zoom: float = 0.0,
    fill: Fill = "nearest",
    interpolation: Interpolation = "bilinear",
) -> Augment:
    """Zooms, shears, rotates and shifts, in this order and in one resampling; everything sampled uniformly for each image.

    Args:
      rotation: largest angle, in degrees, either way.
      shift: largest shift either way, as a fraction of the width and of the height.
      shear: largest lean of the columns either way, in pixels per pixel; or of the columns and of the rows, each its own.
      zoom: width and height are multiplied, each by its own factor from 1 - zoom to 1 + zoom.
      fill: what comes in from outside: "nearest", "reflect", "wrap", "constant" (black) or a grey level.
      interpolation: "bilinear" or "nearest".

    Raises:
      ValueError: a negative amount, a zoom of 1 or more, an unknown fill or interpolation; masks or maps of
        another size than the canvas; with a rotation or a shear, masks that were cut out at their boxes.
      TypeError: a target that cannot be moved.
    """
    columns, rows = shear if isinstance(shear, tuple) else (shear, 0.0)
    upright = not (rotation or columns or rows)
    resample.check(fill, interpolation)

    def matrix(key: Key, size: Array) -> Array:
        turn, lean, *rest = jax.random.uniform(key, (6,), jnp.float32, -1, 1)
        up = jax.random.uniform(jax.random.fold_in(key, 1), (), jnp.float32, -1, 1) if rows else 0.0
        y, x = size.astype(jnp.float32)
        moves = homography.product(
            homography.shift(rest[0] * shift * x, rest[1] * shift * y),
            homography.rotation(turn * rotation),
            homography.shear(lean * columns, up * rows),
            homography.zoom(1 + rest[2] * zoom, 1 + rest[3] * zoom),
        )
        return homography.about_centre(moves, size)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        if not upright:
            targets.check_upright(batch, "affine")
        matrices = jax.vmap(matrix)(row_keys(key, len(batch.image)), jnp.asarray(batch.size))
        return warped(batch, matrices, "affine", fill, interpolation, resample.stretch if upright else resample.warp)

    return augment


@allowed(distortion=Bound(0, 1, below=True))
def perspective(distortion: float = 0.5, fill: Fill = "nearest", interpolation: Interpolation = "bilinear") -> Augment:
    """Moves each corner of the content inwards, by up to half of `distortion` times its width and height, uniformly sampled.

    Raises:
      ValueError: a distortion outside 0 to below 1, an unknown fill or interpolation; masks or maps of another
        size than the canvas; masks that were cut out at their boxes.
      TypeError: a target that cannot be moved.
    """
    resample.check(fill, interpolation)

    def matrix(key: Key, size: Array) -> Array:
        corners = jnp.asarray([[0, 0], [1, 0], [1, 1], [0, 1]], jnp.float32)
        inwards = jax.random.uniform(key, (4, 2), jnp.float32, 0, distortion / 2)
        full = jnp.maximum(size, 1)
        return homography.onto((corners + (1 - 2 * corners) * inwards) * full[None, ::-1].astype(jnp.float32), full)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        targets.check_upright(batch, "perspective")
        matrices = jax.vmap(matrix)(row_keys(key, len(batch.image)), jnp.asarray(batch.size))
        return warped(batch, matrices, "perspective", fill, interpolation)

    return augment


@allowed(area=window.AREA, ratio=window.RATIO)
def resized_crop(
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bilinear",
) -> Augment:
    """A random window of the content, stretched to the size of the content (arXiv:1409.4842, section 6).

    Its fraction of the area is sampled from `area`, its width by height from `ratio` (uniformly on a logarithmic scale);
    where none of ten draws fits, it is the whole content.

    Raises:
      ValueError: ranges that are none, an unknown interpolation; masks or maps of another size than the canvas.
      TypeError: a target that cannot be moved.
    """
    resample.check("nearest", interpolation)

    def matrix(key: Key, size: Array) -> Array:
        part = window.draw(key, size, area, ratio)
        top, left, height, width = (number.astype(jnp.float32) for number in part[:4])
        y, x = size.astype(jnp.float32)
        grow = homography.zoom(x / jnp.maximum(width, 1), y / jnp.maximum(height, 1))
        return homography.product(grow, homography.shift(-left, -top))

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        matrices = jax.vmap(matrix)(row_keys(key, len(batch.image)), jnp.asarray(batch.size))
        return warped(batch, matrices, "resized_crop", "nearest", interpolation, resample.stretch)

    return augment


def warped(
    batch: Batch,
    matrices: Float[Array, "b 3 3"],
    who: str,
    fill: Fill,
    interpolation: Interpolation,
    moved: Callable[..., Array] = resample.warp,
) -> Batch:
    """The batch, its targets included, with the content of each image moved by its matrix (of `homography`).

    `moved` is how pixels are taken: `resample.stretch` where no matrix turns, shears or bends.
    """
    batch = dataclasses.replace(batch, size=jnp.asarray(batch.size))
    sources = jax.vmap(homography.inverse)(matrices)
    image = _content(batch, sources, batch.image, fill, interpolation, moved=moved)
    return accompanied(batch, image, matrices, who)


def accompanied(
    batch: Batch,
    image: Shaped[Array, "b h w c"],
    matrices: Float[Array, "b 3 3"],
    who: str,
    size: Int[Array, "b 2"] | None = None,
) -> Batch:
    """The batch with `image`, which these matrices have moved, and its targets moved by the same matrices.

    `size`, if given, is the new size of the contents; targets are cut at it, and masks and maps empty outside it.
    """
    batch = dataclasses.replace(batch, size=jnp.asarray(batch.size))
    sources = jax.vmap(homography.inverse)(matrices)

    def maps(map: SegmentationMap) -> SegmentationMap:
        moved = jax.tree.map(lambda each: _content(batch, sources, each, "nearest", "nearest", size), map)
        return dataclasses.replace(moved, valid=moved.valid & _known(batch, sources, size))

    motion = targets.Motion(lambda objects: _objects(batch, matrices, sources, objects, size), maps)
    moved = targets.move(batch, image, motion, who)
    return moved if size is None else dataclasses.replace(moved, size=size)


def _content(
    batch: Batch,
    sources: Array,
    values: Shaped[Array, "b h w *c"],
    fill: Fill,
    interpolation: Interpolation,
    size: Int[Array, "b 2"] | None = None,
    moved: Callable[..., Array] = resample.warp,
) -> Shaped[Array, "b h w *c"]:
    """Values moved within the content, what lies outside stays; or into content of another size, nothing outside it."""

    def one(values: Array, old: Array, new: Array, source: Array) -> Array:
        content = inside(new, *values.shape[:2]).reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
        outside = values if size is None else jnp.zeros_like(values)
        return jnp.where(content, moved(values, old, source, fill, interpolation), outside)

    return jax.vmap(one)(values, batch.size, batch.size if size is None else size, sources)


def _known(batch: Batch, sources: Array, size: Array | None) -> Array:
    """True where a pixel comes from the content, and outside what is content now."""

    def one(old: Array, new: Array, source: Array) -> Array:
        canvas = batch.image.shape[1:3]
        return resample.reaches(old, source, *canvas) | ~inside(new, *canvas)

    return jax.vmap(one)(batch.size, batch.size if size is None else size, sources)


def _objects(batch: Batch, matrices: Array, sources: Array, objects: Objects, size: Array | None) -> Objects:
    shows = batch.size if size is None else size
    if objects.masks is None:
        boxes, left = jax.vmap(_boxes)(jnp.asarray(objects.boxes), shows, matrices)
        return dataclasses.replace(objects, boxes=boxes, valid=objects.valid & left)
    if isinstance(objects.masks, CutMasks):
        one = lambda cut, old, new, matrix: _cut_masks(cut, old, new, matrix, objects.boxes.dtype)
        masks, boxes, left = jax.vmap(one)(objects.masks, batch.size, shows, matrices)
        return dataclasses.replace(objects, boxes=boxes, valid=objects.valid & left, masks=masks)
    moved = _content(batch, sources, jnp.moveaxis(objects.masks, 1, -1), "constant", "nearest", size)
    masks = jnp.moveaxis(moved, -1, 1)
    shown = jax.vmap(inside, (0, None, None))(shows, *masks.shape[2:])
    seen = jnp.where(shown[:, None], masks, jnp.zeros((), masks.dtype))
    boxes, left = jax.vmap(lambda masks: boxes_around(masks, objects.boxes.dtype))(seen)
    return dataclasses.replace(objects, boxes=boxes, valid=objects.valid & left, masks=masks)


def _boxes(boxes: Array, size: Array, matrix: Array) -> tuple[Array, Array]:
    return homography.cut_boxes(homography.moved_boxes(boxes, matrix), size)


def _cut_masks(cut: CutMasks, old: Array, new: Array, matrix: Array, dtype) -> tuple[CutMasks, Array, Array]:
    """Masks that a matrix moves which neither turns nor bends, and their boxes; cut off where the content ended and ends."""
    scale, shift = jnp.diagonal(matrix)[:2], matrix[:2, 2]
    before, after = (jnp.concatenate([jnp.zeros_like(size), size[::-1]])[None] for size in (old, new))
    moved = cut_masks.moved(cut_at(cut, before.astype(dtype)), scale[None], shift[None])
    return cut_masks.visible(moved, after, dtype)

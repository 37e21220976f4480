"""Augmentations that change how large things are, antialiased: the content zoomed, or shrunk into an empty area.

Boxes, masks and maps move as in `warp`: exactly, what leaves the content cut off, an object of which less than a pixel is
left no longer `valid`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.augment import window
from jaxvision.augment.keys import row_keys
from jaxvision.augment.warp import accompanied
from jaxvision.ops import homography
from jaxvision.ops.levels import as_levels
from jaxvision.ops.options import LEVEL, POSITIVE, Bound, allowed
from jaxvision.ops.pixels import IMAGENET_MEAN, inside
from jaxvision.ops.resize import resized
from jaxvision.types import Augment, Batch, Key, Scalar


@allowed(scale=POSITIVE._replace(pair=True))
def scale_jitter(scale: tuple[float, float] = (0.1, 2.0)) -> Augment:
    """Zooms the content by a factor sampled uniformly from `scale`; shows it all, or a random window (arXiv:2012.07177).

    What is larger than the canvas then is cut to it, the window sampled uniformly; `size` is that of the new content, and the
    canvas around it black. An image that grows gains no detail: for that, jitter in `data.placement`.

    Raises:
      ValueError: a scale that is no range above 0; masks or maps of another size than the canvas.
      TypeError: a target that cannot be moved.
    """

    def draw(key: Key, size: Array, canvas: Array) -> tuple[Array, Array, Array]:
        for_scale, for_window = jax.random.split(key)
        factor = jax.random.uniform(for_scale, (), jnp.float32, *scale)
        whole = _whole(size.astype(jnp.float32) * factor, size)
        shown = jnp.minimum(whole, canvas)
        return whole, -_place(for_window, whole - shown), shown

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        size = jnp.asarray(batch.size)
        canvas = jnp.asarray(batch.image.shape[1:3], size.dtype)
        keys = row_keys(key, len(size))
        whole, start, shown = jax.vmap(draw, (0, 0, None))(keys, size, canvas)
        image, matrices = _zoomed(batch, whole, start)
        return accompanied(batch, _framed(image, shown), matrices, "scale_jitter", shown)

    return augment


@allowed(ratio=Bound(1), fill=LEVEL)
def expand(ratio: float = 4.0, fill: float | Sequence[float] = IMAGENET_MEAN) -> Augment:
    """Shrinks the content into a random place of an area of its own size, filled with `fill` (arXiv:1512.02325, 3.6).

    SSD's zoom out: an area of 1 to `ratio` times the sides around the image, uniformly sampled, then as large as the image
    was. SSD does it to every other image: `sometimes(0.5, expand())`.

    Args:
      ratio: largest ratio of the sides of area and image.
      fill: level of each channel (or of all), 0-255; SSD takes the mean of the training images.

    Raises:
      ValueError: a ratio below 1; a fill that is no level, or not of as many channels as the image; masks or maps of another
        size than the canvas.
      TypeError: a target that cannot be moved.
    """
    levels = tuple(fill) if isinstance(fill, Sequence) else (fill,)

    def draw(key: Key, size: Array) -> tuple[Array, Array]:
        for_ratio, for_place = jax.random.split(key)
        shrunk = size.astype(jnp.float32) / jax.random.uniform(for_ratio, (), jnp.float32, 1, ratio)
        whole = _whole(shrunk, size)
        return whole, _place(for_place, size - whole)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        image, size = jnp.asarray(batch.image), jnp.asarray(batch.size)
        if len(levels) not in (1, image.shape[-1]):
            raise ValueError(f"expand(fill={fill}): the image has {image.shape[-1]} channels")
        whole, start = jax.vmap(draw)(row_keys(key, len(size)), size)
        shrunk, matrices = _zoomed(batch, whole, start)
        colour = as_levels(jnp.broadcast_to(jnp.asarray(levels, jnp.float32), image.shape[-1:]), image.dtype)

        def framed(image: Array, shrunk: Array, size: Array, whole: Array, start: Array) -> Array:
            place = window.holds(
                window.Window(start[0], start[1], whole[0], whole[1], jnp.asarray(True)), *image.shape[:2]
            )
            area = jnp.where(place[..., None], shrunk, colour[None, None])
            return jnp.where(inside(size, *image.shape[:2])[..., None], area, image)

        return accompanied(batch, jax.vmap(framed)(image, shrunk, size, whole, start), matrices, "expand")

    return augment


def _whole(sides: Float[Array, "2"], size: Int[Array, "2"]) -> Int[Array, "2"]:
    """Sides in whole pixels, at least one where there was one."""
    return jnp.maximum(jnp.round(sides).astype(size.dtype), jnp.minimum(size, 1))


def _place(key: Key, free: Int[Array, "2"]) -> Int[Array, "2"]:
    """A place sampled uniformly from 0 to `free`."""
    return jax.random.randint(key, (2,), 0, free + 1, free.dtype)


def _zoomed(
    batch: Batch, whole: Int[Array, "b 2"], start: Int[Array, "b 2"]
) -> tuple[Shaped[Array, "b h w c"], Float[Array, "b 3 3"]]:
    """Images whose content is `whole` large and starts at `start`, y and x, and the matrices of that."""

    def one(image: Array, size: Array, whole: Array, start: Array) -> tuple[Array, Array]:
        zoom = jnp.where(size > 0, whole.astype(jnp.float32) / jnp.maximum(size, 1).astype(jnp.float32), 1)
        shift = start.astype(jnp.float32)
        matrix = homography.product(homography.shift(shift[1], shift[0]), homography.zoom(zoom[1], zoom[0]))
        return resized(image, size, zoom, shift), matrix

    return jax.vmap(one)(jnp.asarray(batch.image), jnp.asarray(batch.size), whole, start)


def _framed(image: Shaped[Array, "b h w c"], size: Int[Array, "b 2"]) -> Shaped[Array, "b h w c"]:
    """Image made black outside contents of this size."""
    shown = jax.vmap(inside, (0, None, None))(size, *image.shape[1:3])
    return jnp.where(shown[..., None], image, jnp.zeros((), image.dtype))

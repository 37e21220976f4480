"""Streams whose images are hidden in part by objects cut out of other images; not of ImageNet-C, the fractions are ours.

Targets stay: an object that is hidden is still to be found, and those that hide it are not.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jaxvision.errors import ConfigError, DataError
from jaxvision.ops import masks
from jaxvision.trust.corruption_occlusion import FRACTIONS
from jaxvision.trust.corruptions import OBJECTS, generator
from jaxvision.types import WHOLE, Batch, Objects, Shard, Stream

PIECES = 3
"""Objects on each image; what they hide of each other is less than the fraction."""
POOL = 32
"""Objects to choose from: the largest of each of the first images that have one."""
LEAST = 64
"""Pixels of an object that is worth cutting out."""


class Piece(NamedTuple):
    """An object cut out of its image."""

    index: int
    """Index of the example that it was cut out of."""
    pixels: UInt8[np.ndarray, "h w c"]
    shape: Bool[np.ndarray, "h w"]
    """Its mask; all of its box where it has none."""


def has_objects(spec: Batch) -> bool:
    """Whether the examples of a stream have objects that can be cut out."""
    return _objects(spec.target) is not None


def occluded(stream: Stream, severity: int, seed: int, donors: Stream | None = None) -> Stream:
    """The stream with three objects of other images on each image, at random places, scaled to hide a fraction of it.

    Random numbers are a function of `(seed, index of the example, severity)`, the objects those of the first examples: images
    are the same in any batch and on any number of processes.

    Args:
      stream: batches of uint8 images.
      severity: 1 to 5.
      seed: of the random numbers.
      donors: whose objects to take; None: those of the stream.

    Raises:
      ConfigError: for donors whose examples have no objects.
      DataError: from `batches`, if no other image has an object of 64 pixels.
    """
    donors = donors or stream
    if not has_objects(donors.spec):
        raise ConfigError(f"{OBJECTS} cuts objects out of other images: it needs data with boxes or masks of objects")

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        pool = _pool(donors)
        for batch in stream.batches(step, shard):
            yield dataclasses.replace(batch, image=_hidden(batch, pool, severity, seed))

    return stream._replace(batches=batches, decode=None)


def _objects(target: Any) -> Objects | None:
    if isinstance(target, dict):
        return next((found for each in target.values() if (found := _objects(each)) is not None), None)
    return target if isinstance(target, Objects) else None


def _pool(stream: Stream) -> list[Piece]:
    pieces: list[Piece] = []
    for batch in stream.batches(0):
        for row in np.flatnonzero(np.asarray(batch.valid)):
            pieces += _largest(batch, int(row))
            if len(pieces) == POOL:
                return pieces
    return pieces


def _largest(batch: Batch, row: int) -> list[Piece]:
    """The largest object of an image, if that is large enough."""
    objects = jax.tree.map(lambda each: np.asarray(each)[row], _objects(batch.target))
    x0, y0, x1, y1 = np.round(np.asarray(objects.boxes)).astype(int).T
    height, width = np.asarray(batch.size)[row]
    x0, x1, y0, y1 = (np.clip(side, 0, most) for side, most in ((x0, width), (x1, width), (y0, height), (y1, height)))
    areas = np.where(objects.valid & ~objects.ignore, (x1 - x0) * (y1 - y0), 0)
    most = int(np.argmax(areas))
    box = slice(y0[most], y1[most]), slice(x0[most], x1[most])
    pixels = np.asarray(batch.image)[row][box]
    shape = np.ones(pixels.shape[:2], bool)
    if objects.masks is not None:
        whole = masks.unpacked(jax.tree.map(jnp.asarray, objects.masks), batch.image.shape[1:3])
        shape = np.asarray(whole)[most][box]
    large = areas[most] >= LEAST and shape.sum() >= LEAST
    return [Piece(int(np.asarray(batch.index)[row]), pixels.copy(), shape)] if large else []


def _hidden(batch: Batch, pool: Sequence[Piece], severity: int, seed: int) -> np.ndarray:
    image = np.array(batch.image)
    for row in np.flatnonzero(np.asarray(batch.valid)):
        index, (height, width) = int(np.asarray(batch.index)[row]), np.asarray(batch.size)[row]
        others = [piece for piece in pool if piece.index != index]
        if not others:
            raise DataError(f"{OBJECTS}: no other image has an object of {LEAST} pixels to be cut out")
        rng = generator(seed, index, OBJECTS, severity)
        for _ in range(PIECES):
            piece = others[rng.integers(len(others))]
            paste(image[row, :height, :width], piece, FRACTIONS[severity - 1] / PIECES, rng.random(2))
    return image


def paste(
    image: UInt8[np.ndarray, "h w c"], piece: Piece, fraction: float, place: Sequence[float] | np.ndarray
) -> None:
    """Puts a piece on the image, in place: scaled to a fraction of its area, or as large as it has room for.

    `place` is how far down and to the right it is, as fractions of the room that is left.
    """
    height, width = image.shape[:2]
    rows, columns = piece.shape.shape
    factor = min((fraction * height * width / piece.shape.sum()) ** 0.5, height / rows, width / columns)
    rows, columns = max(1, int(rows * factor)), max(1, int(columns * factor))
    shape = np.asarray(Image.fromarray(piece.shape).resize((columns, rows), Image.Resampling.NEAREST))
    resized = lambda channel: Image.fromarray(channel).resize((columns, rows), Image.Resampling.BILINEAR)
    pixels = np.stack(
        [np.asarray(resized(np.ascontiguousarray(each))) for each in np.moveaxis(piece.pixels, -1, 0)], -1
    )
    top, left = round(place[0] * (height - rows)), round(place[1] * (width - columns))
    image[top : top + rows, left : left + columns][shape] = pixels[shape]

"""What the detectors on feature pyramids share: their canvas, their anchors, and which object each box is trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.nn.fpn import Predictions
from jaxvision.ops import anchors
from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.matching import BACKGROUND, IGNORED, Match, by_threshold
from jaxvision.tasks import detection
from jaxvision.types import Objects

STEP = 32
"""Sides of the canvas are padded to a multiple of it, as torchvision does: the maps of a pyramid then lie on each other."""


class Matching(NamedTuple):
    """How boxes are matched to objects, see `ops.matching.by_threshold`."""

    high: float = 0.5
    """From this IoU on a box is that of the object."""
    low: float = 0.5
    """Below it is background; between the two it is neither."""
    low_quality: bool = False
    """Every object's best boxes are matched in any case."""


def assign(boxes: Float[Array, "a 4"], target: Objects, matching: Matching) -> Match:
    """Which object of one image each of these boxes is trained on.

    Boxes that overlap an object to be ignored by `low` or more are no background.
    """
    overlap = pairwise(iou, target.boxes.astype(boxes.dtype), boxes)
    match = by_threshold(overlap, detection.trained_on(target), **matching._asdict())
    near_ignored = ((overlap >= matching.low) & (target.valid & target.ignore)[:, None]).any(0)
    return jnp.where((match == BACKGROUND) & near_ignored, IGNORED, match)


def padded(images: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    """With zeros below and on the right, so that `STEP` divides the sides."""
    height, width = images.shape[1:3]
    return jnp.pad(images, ((0, 0), (0, -height % STEP), (0, -width % STEP), (0, 0)))


def by_level(
    outputs: Sequence[Predictions],
) -> tuple[list[Float[Array, "b _ k"]], list[Float[Array, "b _ 4"]]]:
    """Logits and offsets of every map `b h w k n`, the anchors of a map in one row."""
    logits, offsets = ([x.reshape(len(x), -1, x.shape[-1]) for x in maps] for maps in zip(*outputs, strict=True))
    return logits, offsets


def anchors_of(
    outputs: Sequence[Predictions],
    images: tuple[int, ...],
    sizes: Sequence[Sequence[float | int]],
    ratios: Sequence[float | int],
) -> list[anchors.Anchors]:
    """The anchors of every map, for images of this shape.

    Raises:
      ValueError: if the network has another number of maps, or of anchors a cell, than the sizes and ratios say.
    """
    shapes = [(x.offsets.shape[1], x.offsets.shape[2]) for x in outputs]
    kinds, wanted = [x.offsets.shape[3] for x in outputs], [len(own) * len(ratios) for own in sizes]
    if kinds != wanted:
        raise ValueError(f"the network has {kinds} anchors a cell of its maps; sizes and ratios make {wanted}")
    return anchors.pyramid(shapes, (images[1], images[2]), sizes, ratios)

"""What detectors with anchors share: their canvas, their anchors, the object that each box is trained on, and its loss."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.nn.fpn import Predictions
from jaxvision.ops import anchors, box_codec, matching
from jaxvision.ops.box_losses import BoxLoss
from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.matching import Match
from jaxvision.tasks import detection
from jaxvision.types import Objects

STEP = 32
"""Sides of the canvas are padded to a multiple of it, as torchvision does: the maps of a pyramid then lie on each other."""

Matching = Callable[[Float[Array, "a 4"], Objects], Match]
"""`(boxes, objects) -> match`: which object of one image each box is trained on, if any, as `ops.matching` numbers them.

What counts as a match is a value of a task, see `by_iou` and `bipartite`.
"""


def by_iou(high: float = 0.5, low: float = 0.5, *, low_quality: bool = False) -> Matching:
    """Matching of each box to the object with which its IoU is the highest, see `ops.matching.by_threshold`.

    Args:
      high: from this IoU on a box is that of the object.
      low: below it is background; between the two it is neither, nor is a box whose IoU with an
        object to be ignored is `low` or more.
      low_quality: every object's best boxes are matched in any case.
    """
    return _sparing_ignored(low, partial(matching.by_threshold, high=high, low=low, low_quality=low_quality))


def bipartite(threshold: float = 0.5) -> Matching:
    """Matching of every object to its best box, and of further boxes from an IoU on, see `ops.matching.bipartite`.

    All others are background, but those whose IoU with an object to be ignored reaches the threshold.
    """
    return _sparing_ignored(threshold, partial(matching.bipartite, threshold=threshold))


def _sparing_ignored(low: float, rule: Callable[[Float[Array, "g a"], Bool[Array, "g"]], Match]) -> Matching:
    """Matching by a rule for IoUs; boxes whose IoU with an object to be ignored is `low` or more are no background."""

    def match(boxes: Float[Array, "a 4"], target: Objects) -> Match:
        ious = pairwise(iou, target.boxes.astype(boxes.dtype), boxes)
        found = rule(ious, detection.trained_on(target))
        near_ignored = ((ious >= low) & (target.valid & target.ignore)[:, None]).any(0)
        return jnp.where((found == matching.BACKGROUND) & near_ignored, matching.IGNORED, found)

    return match


def matched_box_loss(
    loss: BoxLoss,
    offsets: Float[Array, "n 4"],
    references: Float[Array, "n 4"],
    truth: Float[Array, "n 4"],
    positive: Bool[Array, "n"],
    weights: box_codec.Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "n"]:
    """The loss of the bounding box that each row predicts; 0, and so its gradient, where the row is not `positive`.

    Args:
      loss: of one bounding box, see `ops.box_losses`.
      offsets: what is predicted, relative to the references.
      references: the anchors or regions.
      truth: the bounding box of the ground truth of each.
      positive: which rows are matched to ground truth. Of others the loss sees a unit box: padding gives no NaN gradient.
      weights: of the offsets, see `ops.box_codec`.
    """
    matched, unit = positive[:, None], jnp.asarray([[0.0, 0.0, 1.0, 1.0]], offsets.dtype)
    references, truth = (jnp.where(matched, x.astype(offsets.dtype), unit) for x in (references, truth))
    offsets = jnp.where(matched, offsets, 0)
    wanted = jax.lax.stop_gradient(box_codec.encode(truth, references, weights))
    return jnp.where(positive, loss(offsets, wanted, box_codec.decode(offsets, references, weights), truth), 0)


def padded(images: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    """Images with zeros below and on the right, so that `STEP` divides the sides."""
    height, width = images.shape[1:3]
    return jnp.pad(images, ((0, 0), (0, -height % STEP), (0, -width % STEP), (0, 0)))


def by_level(
    outputs: Sequence[Predictions],
) -> tuple[list[Float[Array, "b _ k"]], list[Float[Array, "b _ 4"]]]:
    """Logits and offsets of every map `b h w k n`, the anchors of a map in one row."""
    logits, offsets = ([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps] for maps in zip(*outputs, strict=True))
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
    anchors_per_cell, wanted = [x.offsets.shape[3] for x in outputs], [len(level) * len(ratios) for level in sizes]
    if anchors_per_cell != wanted:
        raise ValueError(
            f"the network has {anchors_per_cell} anchors a cell of its maps; sizes and ratios make {wanted}"
        )
    return anchors.pyramid(shapes, (images[1], images[2]), sizes, ratios)

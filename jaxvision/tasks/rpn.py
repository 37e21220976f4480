"""The region proposal network (RPN; arXiv:1506.01497, section 3.1): its loss, and what it proposes.

Everything is of one image; rows that are not valid are no proposals.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops import box_codec, matching
from jaxvision.ops.anchors import Anchors
from jaxvision.ops.box_losses import BoxLoss, smooth_l1
from jaxvision.ops.boxes import clip
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, by_iou, matched_box_loss
from jaxvision.tasks.detection import LossTerms
from jaxvision.types import Key, Objects

SMOOTH_L1 = smooth_l1(1 / 9)
"""The loss of a bounding box in both stages: a square up to a difference of 1/9, then linear."""


class RPN(NamedTuple):
    """How the RPN is trained, and what it proposes; defaults are torchvision's for a pyramid."""

    matching: Matching = by_iou(0.7, 0.3, low_quality=True)
    """Which anchor is trained on which ground truth."""
    samples_per_image: int = 256
    """Anchors of each image that are trained on, sampled at random."""
    positive_fraction: float = 0.5
    """The largest part of them that is matched to ground truth."""
    pre_nms_top_k: tuple[int, int] = (2000, 1000)
    """The number of anchors of every map, the best, that NMS sees: while training, and in prediction."""
    post_nms_top_k: tuple[int, int] = (2000, 1000)
    """Proposals of each image: while training, and in prediction."""
    nms: NMS = greedy(0.7)
    """What a proposal keeps of its score beside better ones of the same map: `ops.nms.greedy`, or one of `ops.other_nms`."""
    min_size: float | int = 1e-3
    """Proposals with a shorter side, in pixels, are left out."""
    box_loss: BoxLoss = SMOOTH_L1
    """The loss of each bounding box, see `ops.box_losses`."""


DEFAULT_RPN = RPN()


def loss_terms(
    key: Key,
    logits: Float[Array, "a"],
    offsets: Float[Array, "a 4"],
    anchors: Anchors,
    target: Objects,
    settings: RPN = DEFAULT_RPN,
) -> LossTerms:
    """Sums of `objectness_loss` and `rpn_box_loss` over the sampled anchors, by their number."""
    references = jnp.asarray(anchors, offsets.dtype)
    match = settings.matching(references, target)
    index, sampled = matching.sample(
        key,
        match >= 0,
        match == matching.BACKGROUND,
        count=settings.samples_per_image,
        positive_fraction=settings.positive_fraction,
    )
    match, logits, offsets, references = (x[index] for x in (match, logits, offsets, references))
    positive = sampled & (match >= 0)
    weight = jnp.where(positive, detection.weights(target)[match], 1).astype(logits.dtype)
    by_logit = optax.sigmoid_binary_cross_entropy(logits, positive.astype(logits.dtype))
    by_box = matched_box_loss(settings.box_loss, offsets, references, target.boxes[match], positive)
    sums = {"objectness_loss": jnp.where(sampled, by_logit * weight, 0).sum(), "rpn_box_loss": (by_box * weight).sum()}
    return LossTerms(sums, dict.fromkeys(sums, sampled.sum()))


def propose(
    logits: Sequence[Float[Array, "_"]],
    offsets: Sequence[Float[Array, "_ 4"]],
    anchors: Sequence[Float[np.ndarray, "_ 4"]],
    size: Int[Array, "2"],
    *,
    train: bool,
    settings: RPN = DEFAULT_RPN,
) -> tuple[Float[Array, "n 4"], Bool[Array, "n"]]:
    """The proposals from all maps, the best first, and which rows are valid. They have no gradient.

    Args:
      logits: one of each anchor, for every map.
      offsets: four of each anchor, for every map.
      anchors: those of every map.
      size: height and width of the content, in pixels, which no proposal leaves.
      train: whether the numbers for training count.
      settings: how many are proposed, and which are removed.
    """
    top_k_before, count = (pair[0 if train else 1] for pair in (settings.pre_nms_top_k, settings.post_nms_top_k))
    width = min(top_k_before, max(map(len, anchors)))
    levels = [
        _best_of_map(jax.lax.stop_gradient(l), jax.lax.stop_gradient(o), a, size, width, settings.min_size)
        for l, o, a in zip(logits, offsets, anchors, strict=True)
    ]
    boxes, scores, valid = (jnp.stack(each) for each in zip(*levels, strict=True))
    flat = jax.vmap(lambda b, s, v: settings.nms(b, s, v, None))(boxes, scores, valid).reshape(-1)
    best, row = top_k(flat, min(count, len(flat)))
    proposed, padding = best >= 0, (0, count - len(row))
    chosen = jnp.where(proposed[:, None], boxes.reshape(-1, 4)[row], 0)
    return jnp.pad(chosen, (padding, (0, 0))), jnp.pad(proposed, padding)


def _best_of_map(
    logits: Float[Array, "a"],
    offsets: Float[Array, "a 4"],
    anchors: Anchors,
    size: Int[Array, "2"],
    width: int,
    min_size: float | int,
) -> tuple[Float[Array, "{width} 4"], Float[Array, "{width}"], Bool[Array, "{width}"]]:
    """The `width` best bounding boxes of one map, their scores, and which rows are valid."""
    best, index = top_k(logits, min(width, len(logits)))
    boxes = clip(box_codec.decode(offsets[index], jnp.asarray(anchors, offsets.dtype)[index]), size)
    large = (boxes[:, 2:] - boxes[:, :2] >= min_size).all(1)
    padding = (0, width - len(index))
    boxes = jnp.pad(boxes, (padding, (0, 0)))
    return boxes, jnp.pad(jax.nn.sigmoid(best), padding), jnp.pad(large, padding)

"""The second stage of the R-CNN family (arXiv:1504.08083): which regions it is trained on, its loss, and what it detects.

Everything is of one image; rows that are not valid are no regions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops import box_codec, matching, raw_scores
from jaxvision.ops.box_losses import BoxLoss
from jaxvision.ops.boxes import clip
from jaxvision.ops.candidates import best_candidates
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.selection import Selection
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, by_iou, matched_box_loss
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.rpn import SMOOTH_L1
from jaxvision.types import Key, Objects

MIN_SIZE = 1e-2
"""Detections with a shorter side, in pixels, are left out."""


class ROIHeads(NamedTuple):
    """How the ROI heads are trained, and what they detect; defaults are torchvision's."""

    matching: Matching = by_iou(0.5, 0.5)
    """Which region is trained on which ground truth."""
    samples_per_image: int = 512
    """Regions of each image that are trained on, sampled at random."""
    positive_fraction: float = 0.25
    """The largest part of them that is matched to ground truth."""
    box_weights: box_codec.Weights = box_codec.FASTER_RCNN
    """Weights of the offsets from a region to its bounding box."""
    score_threshold: float = 0.05
    """Detections have a score above it."""
    pre_nms_top_k: int = 2000
    """The number of pairs of region and class, the best, that NMS sees."""
    nms: NMS = greedy(0.5)
    """What a detection keeps of its score beside better ones of its class: `ops.nms.greedy`, or one of `ops.other_nms`."""
    max_detections: int = 100
    """Rows of the prediction of each image."""
    box_loss: BoxLoss = SMOOTH_L1
    """The loss of each bounding box, see `ops.box_losses`."""


DEFAULT_ROI_HEADS = ROIHeads()


class ROIs(NamedTuple):
    """The regions of interest that are trained on, those matched to ground truth first."""

    boxes: Float[Array, "*b n 4"]
    valid: Bool[Array, "*b n"]
    match: Int[Array, "*b n"]
    """The row of each one's ground truth, or `matching.BACKGROUND`."""


def sample_rois(
    key: Key,
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, "n"],
    target: Objects,
    settings: ROIHeads = DEFAULT_ROI_HEADS,
) -> ROIs:
    """Regions sampled at random from those given and the ground truth; at most a part of them is matched."""
    boxes = jnp.concatenate([boxes, target.boxes.astype(boxes.dtype)])
    valid = jnp.concatenate([valid, detection.trained_on(target)])
    match = settings.matching(boxes, target)
    index, sampled = matching.sample(
        key,
        (match >= 0) & valid,
        (match == matching.BACKGROUND) & valid,
        count=settings.samples_per_image,
        positive_fraction=settings.positive_fraction,
    )
    kept = jnp.where(sampled[:, None], boxes[index], 0)
    return ROIs(jax.lax.stop_gradient(kept), sampled, jnp.where(sampled, match[index], matching.BACKGROUND))


def loss_terms(
    logits: Float[Array, "n k"],
    offsets: Float[Array, "n k 4"],
    rois: ROIs,
    target: Objects,
    settings: ROIHeads = DEFAULT_ROI_HEADS,
) -> LossTerms:
    """Sums of `class_loss` and `box_loss` over the valid regions, by their number.

    Logits have background first; the offsets that count are those of the region's class.
    """
    positive = rois.match >= 0
    label = jnp.where(positive, target.labels[rois.match] + 1, 0)
    weight = jnp.where(positive, detection.weights(target)[rois.match], 1).astype(logits.dtype)
    by_class = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    of_class = jnp.take_along_axis(offsets, label[:, None, None], 1)[:, 0]
    truth = target.boxes[rois.match]
    by_box = matched_box_loss(settings.box_loss, of_class, rois.boxes, truth, positive, settings.box_weights)
    sums = {"class_loss": jnp.where(rois.valid, by_class * weight, 0).sum(), "box_loss": (by_box * weight).sum()}
    return LossTerms(sums, dict.fromkeys(sums, rois.valid.sum()))


def decode(
    logits: Float[Array, "r k"],
    offsets: Float[Array, "r k 4"],
    boxes: Float[Array, "r 4"],
    valid: Bool[Array, "r"],
    size: Int[Array, "2"],
    settings: ROIHeads = DEFAULT_ROI_HEADS,
) -> Selection:
    """What is detected in these regions, and in which; every pair of a region and a class is a candidate."""
    scores = jnp.where(valid[:, None], jax.nn.softmax(logits)[:, 1:], 0)
    every = lambda: jax.vmap(lambda o: box_codec.decode(o, boxes, settings.box_weights), 1, 1)(offsets[:, 1:])
    raw_scores.tell(lambda: raw_scores.Candidates(every(), scores))
    best, pair = top_k(scores.reshape(-1), min(settings.pre_nms_top_k, scores.size))
    region, label = jnp.divmod(pair, scores.shape[1])
    found = clip(box_codec.decode(offsets[region, label + 1], boxes[region], settings.box_weights), size)
    large = (found[:, 2:] - found[:, :2] >= MIN_SIZE).all(1)
    kept = best_candidates(
        found,
        label.astype(jnp.int32),
        best,
        large,
        score_threshold=settings.score_threshold,
        nms=settings.nms,
        max_detections=settings.max_detections,
    )
    return kept.renumbered(region)

"""The second stage of the R-CNN family (arXiv:1504.08083): which regions are trained on, their loss, and what is detected.

Everything is of one image; rows that are not valid are no regions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops import box_codec, matching
from jaxvision.ops.boxes import clip
from jaxvision.ops.candidates import best_candidates
from jaxvision.ops.nms import greedy
from jaxvision.ops.selection import Selection
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, assign
from jaxvision.tasks.proposals import box_loss
from jaxvision.types import Key, Objects

SMALLEST = 1e-2
"""Detections with a shorter side, in pixels, are left out."""


class Classifying(NamedTuple):
    """How regions are trained on, and become detections; defaults are torchvision's."""

    matching: Matching = Matching(0.5, 0.5)
    """Of regions to objects."""
    sampled: int = 512
    """Regions an image that are trained on, drawn at random."""
    share: float = 0.25
    """Of them at most are matched ones."""
    weights: box_codec.Weights = box_codec.FASTER_RCNN
    """Of the offsets from a region to the box of its object."""
    score_threshold: float = 0.05
    """Detections have a score above it."""
    candidates: int = 2000
    """So many pairs of region and class, those with the best scores, go on to the suppression."""
    overlap: float = 0.5
    """IoU above which the better of two detections of a class suppresses the other."""
    count: int = 100
    """Detections an image."""


CLASSIFYING = Classifying()


class Regions(NamedTuple):
    """Regions that are trained on, those of objects first."""

    boxes: Float[Array, "*b n 4"]
    valid: Bool[Array, "*b n"]
    match: Int[Array, "*b n"]
    """The number of each one's object, or `matching.BACKGROUND`."""


def draw_regions(
    key: Key, boxes: Float[Array, "n 4"], valid: Bool[Array, "n"], target: Objects, settings: Classifying = CLASSIFYING
) -> Regions:
    """Regions drawn at random from the proposed ones and the objects themselves, at most a share of them of objects."""
    boxes = jnp.concatenate([boxes, target.boxes.astype(boxes.dtype)])
    valid = jnp.concatenate([valid, detection.trained_on(target)])
    match = assign(boxes, target, settings.matching)
    index, there = matching.sample(
        key,
        (match >= 0) & valid,
        (match == matching.BACKGROUND) & valid,
        count=settings.sampled,
        share=settings.share,
    )
    drawn = jnp.where(there[:, None], boxes[index], 0)
    return Regions(jax.lax.stop_gradient(drawn), there, jnp.where(there, match[index], matching.BACKGROUND))


def box_loss_terms(
    logits: Float[Array, "n k"],
    offsets: Float[Array, "n k 4"],
    regions: Regions,
    target: Objects,
    weights: box_codec.Weights = box_codec.FASTER_RCNN,
) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Sums of the losses of classes and of boxes over the regions, and how many there are.

    Logits have background first; the offsets that count are those of the region's class.
    """
    positive = regions.match >= 0
    label = jnp.where(positive, target.labels[regions.match] + 1, 0)
    weight = jnp.where(positive, detection.weights(target)[regions.match], 1).astype(logits.dtype)
    by_class = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    own = jnp.take_along_axis(offsets, label[:, None, None], 1)[:, 0]
    wanted = box_codec.encode(target.boxes.astype(offsets.dtype)[regions.match], regions.boxes, weights)
    by_box = box_loss(own, wanted, positive)
    return jnp.where(regions.valid, by_class * weight, 0).sum(), (by_box * weight).sum(), regions.valid.sum()


def detect(
    logits: Float[Array, "r k"],
    offsets: Float[Array, "r k 4"],
    boxes: Float[Array, "r 4"],
    valid: Bool[Array, "r"],
    size: Int[Array, "2"],
    settings: Classifying = CLASSIFYING,
) -> Selection:
    """What is detected in these regions; every pair of a region and a class is a candidate."""
    scores = jnp.where(valid[:, None], jax.nn.softmax(logits)[:, 1:], 0)
    best, pair = top_k(scores.reshape(-1), min(settings.candidates, scores.size))
    which, label = jnp.divmod(pair, scores.shape[1])
    found = clip(box_codec.decode(offsets[which, label + 1], boxes[which], settings.weights), size)
    large = (found[:, 2:] - found[:, :2] >= SMALLEST).all(1)
    options = {"nms": greedy(settings.overlap), "max_detections": settings.count}
    kept = best_candidates(
        found, label.astype(jnp.int32), best, large, score_threshold=settings.score_threshold, **options
    )
    return kept.renumbered(which)

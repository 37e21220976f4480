"""Region proposals (arXiv:1506.01497, section 3.1): the loss of the head that makes them, and what it proposes.

Everything is of one image; rows that are not valid are no regions.
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
from jaxvision.ops.boxes import clip
from jaxvision.ops.nms import nms
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, assign
from jaxvision.types import Key, Objects

BETA = 1 / 9
"""Below this difference the loss of a box is a square, above it is linear, in both stages."""


class Proposing(NamedTuple):
    """How regions are proposed; defaults are torchvision's for a pyramid."""

    matching: Matching = Matching(0.7, 0.3, low_quality=True)
    """Of anchors to objects."""
    sampled: int = 256
    """Anchors an image that are trained on, drawn at random."""
    share: float = 0.5
    """Of them at most are matched ones."""
    candidates: tuple[int, int] = (2000, 1000)
    """Anchors of every map that go on to the suppression: while training, and in prediction."""
    count: tuple[int, int] = (2000, 1000)
    """Regions an image, likewise."""
    overlap: float = 0.7
    """IoU above which a better region of the same map suppresses."""
    smallest: float | int = 1e-3
    """Regions with a shorter side, in pixels, are left out."""


PROPOSING = Proposing()


def region_loss_terms(
    key: Key,
    logits: Float[Array, "a"],
    offsets: Float[Array, "a 4"],
    anchors: Anchors,
    target: Objects,
    valid: Bool[Array, ""],
    settings: Proposing = PROPOSING,
) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Sums of the losses of logits and boxes over the anchors that are drawn, and how many there are; none if not `valid`."""
    match = assign(jnp.asarray(anchors, offsets.dtype), target, settings.matching)
    index, there = matching.sample(
        key,
        (match >= 0) & valid,
        (match == matching.BACKGROUND) & valid,
        count=settings.sampled,
        share=settings.share,
    )
    match, logits, offsets = match[index], logits[index], offsets[index]
    positive = there & (match >= 0)
    weight = jnp.where(positive, detection.weights(target)[match], 1).astype(logits.dtype)
    by_logit = optax.sigmoid_binary_cross_entropy(logits, positive.astype(logits.dtype))
    boxes = target.boxes.astype(offsets.dtype)[match]
    by_box = box_loss(offsets, box_codec.encode(boxes, jnp.asarray(anchors, offsets.dtype)[index]), positive)
    return jnp.where(there, by_logit * weight, 0).sum(), (by_box * weight).sum(), there.sum()


def box_loss(
    offsets: Float[Array, "n 4"], wanted: Float[Array, "n 4"], positive: Bool[Array, "n"]
) -> Float[Array, "n"]:
    """The smooth L1 distance of each row (arXiv:1504.08083, equation 3, its bend at 1/9); 0 where it is not `positive`."""
    wanted = jax.lax.stop_gradient(jnp.where(positive[:, None], wanted, 0))
    return jnp.where(positive, optax.huber_loss(offsets, wanted, delta=BETA).sum(-1) / BETA, 0)


def propose(
    logits: Sequence[Float[Array, "_"]],
    offsets: Sequence[Float[Array, "_ 4"]],
    anchors: Sequence[Float[np.ndarray, "_ 4"]],
    size: Int[Array, "2"],
    *,
    train: bool,
    settings: Proposing = PROPOSING,
) -> tuple[Float[Array, "n 4"], Bool[Array, "n"]]:
    """The regions proposed on all maps, the best first, and which rows there are. They have no gradient.

    Args:
      logits: of the anchors of every map.
      offsets: likewise.
      anchors: likewise.
      size: height and width of the content, which no region leaves.
      train: whether the numbers for training count.
      settings: how regions are proposed.
    """
    candidates, count = (pair[0 if train else 1] for pair in (settings.candidates, settings.count))
    width = min(candidates, max(map(len, anchors)))
    levels = [
        _best_of_map(jax.lax.stop_gradient(l), jax.lax.stop_gradient(o), a, size, width, settings.smallest)
        for l, o, a in zip(logits, offsets, anchors, strict=True)
    ]
    boxes, scores, valid = (jnp.stack(each) for each in zip(*levels, strict=True))
    kept = jax.vmap(lambda b, s, v: nms(b, s, v, settings.overlap))(boxes, scores, valid)
    flat = jnp.where(kept, scores, -1).reshape(-1)
    best, row = top_k(flat, min(count, len(flat)))
    there, padding = best >= 0, (0, count - len(row))
    chosen = jnp.where(there[:, None], boxes.reshape(-1, 4)[row], 0)
    return jnp.pad(chosen, (padding, (0, 0))), jnp.pad(there, padding)


def _best_of_map(
    logits: Float[Array, "a"],
    offsets: Float[Array, "a 4"],
    anchors: Anchors,
    size: Int[Array, "2"],
    width: int,
    smallest: float | int,
) -> tuple[Float[Array, "{width} 4"], Float[Array, "{width}"], Bool[Array, "{width}"]]:
    """The boxes about the best anchors of one map, their scores, and which rows there are."""
    best, index = top_k(logits, min(width, len(logits)))
    boxes = clip(box_codec.decode(offsets[index], jnp.asarray(anchors, offsets.dtype)[index]), size)
    there = (boxes[:, 2:] - boxes[:, :2] >= smallest).all(1)
    padding = (0, width - len(index))
    boxes = jnp.pad(boxes, (padding, (0, 0)))
    return boxes, jnp.pad(jax.nn.sigmoid(best), padding), jnp.pad(there, padding)

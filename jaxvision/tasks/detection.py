"""What detectors share: their input, the objects they are trained on, their loss from its terms, and their output.

The file of every detector has, or imports from `tasks.roi_heads`, two functions of one image: `loss_terms(...) -> LossTerms`
and `decode(..., size) -> Selection`. A task maps them over its batch; so does a task of several heads on one backbone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jaxvision.ops import boxes, pixels, raw_scores
from jaxvision.ops.masks import unpacked
from jaxvision.ops.selection import Selection
from jaxvision.types import Batch, Detections, LossOutput, Objects, Scalar

AT_ONCE = 8
"""Images whose NMS runs together: memory grows with classes times `pre_nms_top_k` squared of each."""


class LossTerms(NamedTuple):
    """Loss terms of one image: named sums, and under the same names the count that each is divided by.

    Mapped over images they have an axis for these, `*b`. A loss is a sum over images by their count, see `mean_loss`.
    """

    sums: dict[str, Float[Array, "*b"]]
    counts: dict[str, Shaped[Array, "*b"]]
    """Number of the anchors, cells, regions or queries in the sum, or of their weights; 1 where an image counts as one."""

    def __or__(self, other: "LossTerms") -> "LossTerms":
        """The terms of both, as those of two dicts."""
        return LossTerms(self.sums | other.sums, self.counts | other.counts)


def images(batch: Batch, mean: float | Sequence[float], std: float | Sequence[float], dtype) -> Float[Array, "b h w c"]:
    """Normalised pixels; 0 outside the content."""
    return jax.vmap(lambda image, size: pixels.normalise(image, size, mean, std, dtype))(batch.image, batch.size)


def trained_on(objects: Objects) -> Bool[Array, "*b n"]:
    """Which objects are targets: those that are there, have an area, and are not to be ignored; finite ones alone."""
    finite = jnp.isfinite(objects.boxes).all(-1)
    return objects.valid & ~objects.ignore & finite & (boxes.area(objects.boxes) > 0)


def weights(objects: Objects) -> Float[Array, "*b n"]:
    """Weight of each object in the loss: 1 unless the target says otherwise."""
    return jnp.ones_like(objects.boxes[..., 0]) if objects.weight is None else objects.weight


def masks(objects: Objects, canvas: tuple[int, ...]) -> Bool[Array, "n {canvas[0]} {canvas[1]}"]:
    """Masks of the objects of one image, on the whole canvas.

    Raises:
      ValueError: if the target has none.
    """
    if objects.masks is None:
        raise ValueError(
            "masks are trained on, and batch.target.masks is None: target.objects(..., masks=...) has them"
        )
    return unpacked(objects.masks, (canvas[0], canvas[1]))


def targets(batch: Batch) -> Objects:
    """The objects of the valid images of a batch; in rows that are not valid, boxes and weights are 0, whatever was there.

    Raises:
      TypeError: if the target is something else.
    """
    if not isinstance(batch.target, Objects):
        raise TypeError(f"a detector needs batch.target to be Objects, got {type(batch.target).__name__}")
    valid = batch.target.valid & batch.valid[:, None]
    weight = None if batch.target.weight is None else jnp.where(valid, batch.target.weight, 0)
    return batch.target.replace(boxes=jnp.where(valid[..., None], batch.target.boxes, 0), weight=weight, valid=valid)


def means(terms: LossTerms) -> dict[str, Float[Array, "*b"]]:
    """Each sum by its count, or by 1 where the count is 0."""
    divisors = {name: jnp.where(count > 0, count, 1) for name, count in terms.counts.items()}
    return {name: x / divisors[name].astype(x.dtype) for name, x in terms.sums.items()}


def of_valid_images(terms: LossTerms, batch: Batch) -> LossTerms:
    """Terms of images; 0 of those that are not valid, NaN where a valid object's box is not finite.

    Such a box would match nothing, in silence; so training stops and names the image.
    """
    objects = batch.target
    broken = (objects.valid & ~objects.ignore & ~jnp.isfinite(objects.boxes).all(-1)).any(-1)
    sums = {name: jnp.where(broken, jnp.nan, x) for name, x in terms.sums.items()}
    return jax.tree.map(lambda x: jnp.where(batch.valid, x, 0), terms._replace(sums=sums))


def mean_loss(terms: LossTerms, batch: Batch, collections: dict) -> tuple[Scalar, LossOutput]:
    """The loss of a batch: of each term the sum over all valid images by its count in all of them, added up.

    The terms are the metrics; the loss of an example is that of a batch of it alone. See `of_valid_images`.
    """
    return loss_of(of_valid_images(terms, batch), collections)


def loss_of(terms: LossTerms, collections: dict) -> tuple[Scalar, LossOutput]:
    """The loss of a batch from the terms of its images, which are 0 of those that are not valid."""
    metrics = means(jax.tree.map(lambda x: x.sum(0), terms))
    return _added(metrics), LossOutput(metrics, collections, _added(means(terms)))


def _added(terms: dict[str, Float[Array, "*b"]]) -> Float[Array, "*b"]:
    return jnp.stack(list(terms.values())).sum(0)


def detections(one: Callable[..., Selection], *each: PyTree) -> Detections:
    """The detections of every image of a batch, `one` giving those of one from the rows of `each`.

    Images that are looked at together are taken from all over the batch: so, of one that is split over all devices, each
    device has its own at every turn. Of a batch of any size (a symbolic dimension, of an export) it is one at a time.
    """
    if raw_scores.is_heard():
        found, candidates = jax.vmap(partial(_with_candidates, one))(*each)
        raw_scores.tell(lambda: candidates)
        return Detections(found.boxes, found.labels, found.scores, found.valid, index=found.index)
    count = jax.tree.leaves(each)[0].shape[0]
    together = _together(count, jax.device_count()) if isinstance(count, int) else 1
    turns = jax.tree.map(lambda x: x.reshape(together, count // together, *x.shape[1:]).swapaxes(0, 1), each)
    found = jax.lax.map(lambda rows: jax.vmap(one)(*rows), turns)
    found = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(count, *x.shape[2:]), found)
    return Detections(found.boxes, found.labels, found.scores, found.valid, index=found.index)


def _with_candidates(one: Callable[..., Selection], *row: PyTree) -> tuple[Selection, raw_scores.Candidates]:
    """The detections of one image, and what they were selected from."""
    with raw_scores.listening() as told:
        found = one(*row)
    return found, told[0]


def _together(count: int, devices: int) -> int:
    """How many images of a batch at a time: one a device at least, if the batch can be split over them."""
    if count % devices:
        return _together(count, 1)
    most = max(AT_ONCE // devices, 1)
    return devices * max(n for n in range(1, most + 1) if count // devices % n == 0)

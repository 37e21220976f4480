"""Losses of class maps as values: `(logits h w k, SegmentationMap) -> Part`, of one image.

Pixels that are not `valid` have no part in value or gradient, whatever their logits, label and weight are. Where a map has
weights, a pixel's multiplies what it adds, and one whose weight is 0 counts as little as one that is not valid. An image in
which no pixel counts has sum and count 0, and gradient 0. An infinite logit is the largest number whose square is one, so
that loss and gradient are finite at all logits but NaN, of which the loss is NaN.

`cross_entropy()` of a map whose weights are `ops.borders.border_weights` is U-Net's loss.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops import losses
from jaxvision.ops.extremes import maximum
from jaxvision.ops.losses import Loss
from jaxvision.ops.options import FINITE, NOT_NEGATIVE, WHOLE, allowed
from jaxvision.types import Labels, SegmentationMap


class Part(NamedTuple):
    """One image's part in the loss of a batch, which is the sum over images of `sum` by that of `count`, or by 1.

    Scalars, or an array of several terms, each with a count of its own; the loss is then the sum of those of the terms.
    """

    sum: Float[Array, "*terms"]
    count: Float[Array, "*terms"]
    """Pixels in the sum; 1 where an image counts as one, 0 where it does not count."""


Logits = Float[Array, "h w k"]
PixelLoss = Callable[[Logits, SegmentationMap], Part]


CLASS_WEIGHTS = NOT_NEGATIVE._replace(none=True)


def each_pixel(loss: Loss) -> PixelLoss:
    """The mean over the pixels of any loss in `ops.losses`, for which each is an example."""

    def of_map(logits: Logits, target: SegmentationMap) -> Part:
        rows = _rows(logits, target)
        return _mean(loss(rows.logits, Labels(rows.label)), rows.weight)

    return of_map


@allowed(class_weights=CLASS_WEIGHTS)
def cross_entropy(class_weights: Sequence[float | int] | np.ndarray | None = None) -> PixelLoss:
    """Cross-entropy of the softmax, in nats, times the weight of the pixel's class; the mean over the pixels.

    Its divisor is their number, not the sum of their weights, as for `ops.losses.class_weighted`.

    Args:
      class_weights: one a class, 0 or more; `ops.losses.inverse_frequency(counts)`, say. None: 1 each.

    Raises:
      ValueError: a negative weight; in use, another number of weights than classes.
    """
    return each_pixel(_class_weighted(losses.cross_entropy, class_weights))


@allowed(gamma=NOT_NEGATIVE, class_weights=CLASS_WEIGHTS)
def focal(gamma: float | int = 2.0, class_weights: Sequence[float | int] | np.ndarray | None = None) -> PixelLoss:
    """Cross-entropy of the softmax times `(1 - probability of the pixel's class) ** gamma` (arXiv:1708.02002); the mean.

    Of two channels `[0, x]` that is the paper's binary one; its alpha is `class_weights=(1 - alpha, alpha)`.

    Raises:
      ValueError: a negative gamma or weight; in use, another number of weights than classes.
    """
    return each_pixel(_class_weighted(losses.focal(gamma), class_weights))


def binary(logits: Logits, target: SegmentationMap) -> Part:
    """Cross-entropy of the sigmoid of `x`, in nats, for two channels `[0, x]`; of others, of their difference. The mean.

    Raises:
      ValueError: for another number of channels than two.
    """
    rows = _rows(logits, target)
    return _mean(
        optax.sigmoid_binary_cross_entropy(_difference(rows), rows.label.astype(rows.logits.dtype)), rows.weight
    )


@allowed(alpha=NOT_NEGATIVE, beta=NOT_NEGATIVE, smooth=NOT_NEGATIVE, classes=WHOLE._replace(none=True))
def tversky(
    alpha: float | int = 0.3,
    beta: float | int = 0.7,
    smooth: float | int = 1.0,
    classes: Sequence[int] | None = None,
) -> PixelLoss:
    """One less the Tversky index of each class (arXiv:1706.05721), the mean over the classes, then over the images.

    The index is `(TP + smooth) / (TP + alpha FP + beta FN + smooth)`, counted in probabilities over the pixels of an image; 1
    for a class with neither.

    Args:
      alpha: weight of false positives, 0 or more.
      beta: weight of false negatives, 0 or more.
      smooth: what is added to both, in pixels, 0 or more.
      classes: those that count; `(1,)`, the foreground, for a binary task. None: all.

    Raises:
      ValueError: a negative number; in use, a class that the logits don't have.
    """

    def of_map(logits: Logits, target: SegmentationMap) -> Part:
        rows = _rows(logits, target)
        chosen, found = _chosen(classes, logits.shape[-1]), jax.nn.softmax(rows.logits)
        truth, weight = jax.nn.one_hot(rows.label, logits.shape[-1], dtype=found.dtype), rows.weight[:, None]
        hit, invented, missed = ((weight * x).sum(0) for x in (found * truth, found * (1 - truth), (1 - found) * truth))
        whole = hit + alpha * invented + beta * missed + smooth
        empty = whole <= 0
        index = jnp.where(empty, 1, (hit + smooth) / jnp.where(empty, 1, whole))
        return _one(1 - index[chosen].mean(), rows.weight)

    return of_map


@allowed(smooth=NOT_NEGATIVE, classes=WHOLE._replace(none=True))
def dice(smooth: float | int = 1.0, classes: Sequence[int] | None = None) -> PixelLoss:
    """One less the Dice coefficient of each class (arXiv:1606.04797), the mean over the classes, then over the images.

    The coefficient is `(2 TP + smooth) / (2 TP + FP + FN + smooth)`, counted in probabilities over the pixels of an image.
    Arguments and errors are those of `tversky`.
    """
    return tversky(0.5, 0.5, smooth / 2, classes)


def lovasz_softmax(logits: Logits, target: SegmentationMap) -> Part:
    """The Lovász extension of one less the IoU of each class that an image has, their mean, then that over the images.

    arXiv:1705.08790, section 3.2; of the softmax. All pixels are sorted once for each class: on CPU that takes many times as
    long as a cross-entropy.
    """
    rows = _unweighted("lovasz_softmax", logits, target)
    found, counted = jax.nn.softmax(rows.logits), rows.weight > 0
    classes = jnp.arange(logits.shape[-1], dtype=rows.label.dtype)
    truth = (rows.label[:, None] == classes[None]) & counted[:, None]
    by_class = jax.vmap(_lovasz, (1, 1, None))(jnp.where(truth, 1 - found, found), truth, counted)
    occurs = truth.any(0)
    total = jnp.where(occurs, by_class, 0).sum()
    return _one(total / jnp.maximum(occurs.sum(dtype=total.dtype), 1), rows.weight)


def lovasz_hinge(logits: Logits, target: SegmentationMap) -> Part:
    """The Lovász extension of one less the IoU of class 1, of the hinge loss of `x`, for two channels `[0, x]`; the mean.

    arXiv:1705.08790, section 3.1; the mean over the images.

    Raises:
      ValueError: for another number of channels than two.
    """
    rows = _unweighted("lovasz_hinge", logits, target)
    truth, x = rows.label == 1, _difference(rows)
    hinge = maximum(1 - jnp.where(truth, x, -x), 0)
    return _one(_lovasz(hinge, truth, rows.weight > 0), rows.weight)


def added(factors: Mapping[PixelLoss, float | int]) -> PixelLoss:
    """The sum of losses, each times its factor: `added({cross_entropy(): 1.0, dice(): 0.5})`.

    Raises:
      ValueError: for no loss at all, and for a factor that is not finite.
    """
    if not factors:
        raise ValueError("added() needs one loss or more, got none")
    for factor in factors.values():
        if not FINITE.holds(factor):
            raise ValueError(f"added(factors=...): a factor is {factor!r}; allowed is {FINITE}")

    def of_map(logits: Logits, target: SegmentationMap) -> Part:
        parts = [(factor, loss(logits, target)) for loss, factor in factors.items()]
        sums = [jnp.atleast_1d(factor * part.sum) for factor, part in parts]
        return Part(jnp.concatenate(sums), jnp.concatenate([jnp.atleast_1d(part.count) for _, part in parts]))

    return of_map


def summed(loss: PixelLoss) -> PixelLoss:
    """The loss as a sum over the pixels of an image, and of these sums the mean: Caffe's `normalize: false`."""

    def of_map(logits: Logits, target: SegmentationMap) -> Part:
        part = loss(logits, target)
        return part._replace(count=(part.count > 0).astype(part.count.dtype))

    return of_map


class _Rows(NamedTuple):
    """All pixels of an image in one row; zeros where one doesn't count."""

    logits: Float[Array, "p k"]
    label: Int[Array, "p"]
    weight: Float[Array, "p"]


def _rows(logits: Logits, target: SegmentationMap) -> _Rows:
    dtype = jnp.dtype(jnp.float64 if logits.dtype == jnp.float64 else jnp.float32)  # halves cannot count the pixels
    logits = logits.astype(dtype)
    weight = jnp.ones(target.valid.shape, dtype) if target.weight is None else target.weight.astype(dtype)
    weight = jnp.where(target.valid, weight, 0)
    counted = weight > 0
    shown = _bounded(jnp.where(counted[..., None], logits, 0))
    label = jnp.where(counted, target.label, 0)
    return _Rows(shown.reshape(-1, logits.shape[-1]), label.reshape(-1), weight.reshape(-1))


def _bounded(logits: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Logits whose squares are finite."""
    largest = float(jnp.finfo(logits.dtype).max) ** 0.5
    return jnp.where(jnp.abs(logits) <= largest, logits, jnp.sign(logits) * largest)


def _mean(terms: Float[Array, "p"], weight: Float[Array, "p"]) -> Part:
    """The part of an image of which every pixel counts."""
    counted = weight > 0
    return Part(jnp.where(counted, weight * terms, 0).sum(), counted.sum(dtype=terms.dtype))


def _one(term: Float[Array, ""], weight: Float[Array, "p"]) -> Part:
    """The part of an image that counts as one, if any of its pixels counts."""
    counted = (weight > 0).any()
    return Part(jnp.where(counted, term, 0), counted.astype(term.dtype))


def _class_weighted(loss: Loss, class_weights: Sequence[float | int] | np.ndarray | None) -> Loss:
    return loss if class_weights is None else losses.class_weighted(loss, class_weights)


def _difference(rows: _Rows) -> Float[Array, "p"]:
    if rows.logits.shape[-1] != 2:
        raise ValueError(f"a binary loss needs two channels, [0, x]; the logits have {rows.logits.shape[-1]}")
    return rows.logits[:, 1] - rows.logits[:, 0]


def _chosen(classes: Sequence[int] | None, count: int) -> Int[np.ndarray, "c"]:
    if classes is None:
        return np.arange(count)
    if unknown := [each for each in classes if each >= count]:
        raise ValueError(f"classes={tuple(classes)} has {unknown}; the logits have classes 0 to {count - 1}")
    return np.asarray(classes)


def _unweighted(who: str, logits: Logits, target: SegmentationMap) -> _Rows:
    """The pixels of a map without weights, which the order of the errors leaves no place for."""
    if target.weight is not None:
        raise ValueError(f"{who} takes no weights of pixels; the map has some, allowed is weight=None")
    return _rows(logits, target)


def _lovasz(errors: Float[Array, "p"], truth: Bool[Array, "p"], counted: Bool[Array, "p"]) -> Float[Array, ""]:
    """The sum of the errors, each by what it adds to one less the IoU after all larger ones; in stable order."""
    order = jnp.argsort(jnp.where(counted, -jax.lax.stop_gradient(errors), jnp.inf))
    hits = truth[order].astype(errors.dtype)
    left, union = hits.sum() - hits.cumsum(), hits.sum() + (1 - hits).cumsum()
    alone = union * (union - 1)
    steps = jnp.where(hits > 0, 1 / union, jnp.where(alone > 0, left / jnp.where(alone > 0, alone, 1), 1))
    weights = jnp.zeros_like(steps).at[order].set(steps, unique_indices=True)
    return jnp.where(counted, weights * errors, 0).sum()

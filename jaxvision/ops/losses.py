"""Losses of classification: values `(logits b k, Labels) -> one term an example`, unweighted, at least 0.

The target is `labels.probs` if there are any (soft targets, whose row sums to 1), else `labels.label`; a label that is no
class is a target of zeros. Finite, and with a finite gradient, at logits of any size that float32 can square.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxvision.errors import amount
from jaxvision.ops.extremes import maximum
from jaxvision.ops.options import FRACTION, NOT_NEGATIVE, POSITIVE, Bound, allowed
from jaxvision.types import Labels

Loss = Callable[[Array, Labels], Array]


def targets(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b k"]:
    """Target probability of each class, in the type of the logits."""
    if labels.probs is None:
        return jax.nn.one_hot(labels.label, logits.shape[-1], dtype=logits.dtype)
    return labels.probs.astype(logits.dtype)


def cross_entropy(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
    """Cross-entropy of the softmax, in nats."""
    return optax.softmax_cross_entropy(logits, targets(logits, labels))


def binary_cross_entropy(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
    """Cross-entropy of the sigmoid of each class and its target, in nats; the mean over the classes (arXiv:2110.00476)."""
    return optax.sigmoid_binary_cross_entropy(logits, targets(logits, labels)).mean(-1)


def squared_error(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
    """Squared difference of the softmax and the target, the mean over the classes."""
    return jnp.square(jax.nn.softmax(logits) - targets(logits, labels)).mean(-1)


def absolute_error(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
    """Mean absolute difference of the softmax and the target; robust to wrong labels (arXiv:1712.09482)."""
    return jnp.abs(jax.nn.softmax(logits) - targets(logits, labels)).mean(-1)


def hinge(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
    """`max(0, 1 + best other logit - own logit)` (Crammer and Singer, JMLR 2001); of soft targets, the mean by probability.

    Raises:
      ValueError: for fewer than two classes.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"hinge needs two classes or more, the logits have {logits.shape[-1]}")
    best, second = jnp.moveaxis(jax.lax.top_k(logits, 2)[0], -1, 0)[..., None]
    own_is_best = jnp.arange(logits.shape[-1])[None, :] == logits.argmax(-1, keepdims=True)
    margins = maximum(1 + jnp.where(own_is_best, second, best) - logits, 0)
    return (targets(logits, labels) * margins).sum(-1)


@allowed(gamma=NOT_NEGATIVE)
def focal(gamma: float | int = 2.0) -> Loss:
    """Cross-entropy of the softmax, each class counting by `(1 - its probability) ** gamma` (arXiv:1708.02002).

    Raises:
      ValueError: a negative gamma.
    """

    def loss(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
        log_probs = jax.nn.log_softmax(logits)
        wrong = maximum(-jnp.expm1(log_probs), float(jnp.finfo(logits.dtype).tiny))
        return -(targets(logits, labels) * wrong**gamma * log_probs).sum(-1)

    return loss


@allowed(gamma=NOT_NEGATIVE, alpha=FRACTION._replace(none=True))
def sigmoid_focal(gamma: float | int = 2.0, alpha: float | int | None = 0.25) -> Loss:
    """Binary cross-entropy, each class counting by `|target - probability| ** gamma`; the sum (arXiv:1708.02002).

    Args:
      gamma: 0 or more.
      alpha: weight of a class that is there, 1 - alpha of one that is not; None for no weights.

    Raises:
      ValueError: a negative gamma, an alpha outside 0 to 1.
    """

    def loss(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
        target = targets(logits, labels)
        off = target * jax.nn.sigmoid(-logits) + (1 - target) * jax.nn.sigmoid(logits)
        weight = maximum(off, float(jnp.finfo(logits.dtype).tiny)) ** gamma
        if alpha is not None:
            weight = weight * (alpha * target + (1 - alpha) * (1 - target))
        return (weight * optax.sigmoid_binary_cross_entropy(logits, target)).sum(-1)

    return loss


@allowed(temperature=POSITIVE, alpha=FRACTION)
def distillation(temperature: float | int = 4.0, alpha: float | int = 0.9) -> Loss:
    """`alpha * T^2 * KL(teacher, student)` at temperature T, plus `(1 - alpha)` of the label's cross-entropy.

    `labels.probs` are the probabilities of the teacher at temperature 1 (arXiv:1503.02531, section 2).

    Raises:
      ValueError: a temperature of 0 or less, an alpha outside 0 to 1; in use, labels without `probs`.
    """

    def loss(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
        if labels.probs is None:
            raise ValueError("distillation needs labels.probs, the probabilities of the teacher")
        taught = jnp.log(jnp.maximum(targets(logits, labels), float(jnp.finfo(logits.dtype).tiny))) / temperature
        student = jax.nn.log_softmax(logits / temperature)
        soft = optax.losses.kl_divergence_with_log_targets(student, jax.nn.log_softmax(taught))
        hard = cross_entropy(logits, labels.replace(probs=None))
        return alpha * temperature**2 * soft + (1 - alpha) * hard

    return loss


@allowed(weights=NOT_NEGATIVE)
def class_weighted(loss: Loss, weights: Sequence[float | int] | np.ndarray) -> Loss:
    """The loss times the weight of the example's class; of soft targets, times the mean weight by probability.

    Raises:
      ValueError: in use, for another number of weights than classes.
    """

    def weighted(logits: Float[Array, "b k"], labels: Labels) -> Float[Array, "b"]:
        if len(weights) != logits.shape[-1]:
            raise ValueError(
                f"{amount(len(weights), 'class weight')} for logits of {amount(logits.shape[-1], 'class')}"
            )
        weight = (targets(logits, labels) * jnp.asarray(weights, logits.dtype)[None, :]).sum(-1)
        return weight * loss(logits, labels)

    return weighted


def inverse_frequency(counts: Sequence[int] | np.ndarray) -> Float[np.ndarray, "k"]:
    """Weights of classes by how many examples each has: `1 / count`, scaled so that their mean over the examples is 1.

    A class without examples has weight 0.

    Raises:
      ValueError: negative counts, or no example at all.
    """
    counts = _counts("inverse_frequency", counts)
    occurs = counts > 0
    return np.where(occurs, counts.sum() / (occurs.sum() * np.where(occurs, counts, 1)), 0.0)


@allowed(beta=Bound(0, 1, below=True))
def effective_number(counts: Sequence[int] | np.ndarray, beta: float | int = 0.999) -> Float[np.ndarray, "k"]:
    """Weights of classes `(1 - beta) / (1 - beta ** count)`, scaled so that their sum is that of the classes that occur.

    arXiv:1901.05555, equation 3 and section 4. beta 0 weighs all alike; towards 1 it becomes inverse frequency. A class
    without examples has weight 0.

    Raises:
      ValueError: negative counts, no example at all, a beta outside 0 to below 1.
    """
    counts = _counts("effective_number", counts)
    occurs = counts > 0
    weights = np.where(occurs, 1 / -np.expm1(np.where(occurs, counts, 1) * np.log(beta)) if beta else 1.0, 0.0)
    return weights * occurs.sum() / weights.sum()


def _counts(who: str, counts: Sequence[int] | np.ndarray) -> Float[np.ndarray, "k"]:
    values = np.asarray(counts, np.float64)
    if not np.isfinite(values).all() or np.any(values < 0) or values.sum() == 0:
        raise ValueError(f"{who}(counts={list(counts)}): allowed are numbers of examples, 0 or more, one above 0")
    return values

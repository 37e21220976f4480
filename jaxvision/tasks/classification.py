"""Image classification: one class for a whole image, by softmax cross-entropy by default."""

import dataclasses
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.ops import pixels
from jaxvision.ops.losses import Loss, targets
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, ClassScores, Key, Labels, LossOutput, Scalar, Task, Variables


def classification(
    network: nn.Module,
    *,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    label_smoothing: float = 0.0,
    loss: Loss | None = None,
    auxiliary: float | None = None,
    dtype=jnp.float32,
) -> Task:
    """The task of giving each image one of `k` classes.

    Args:
      network: called as `network(images, train=...)` on normalised images `b h w c`; returns logits `b k`, in training
        also those of auxiliary heads: a tuple, the main one first. Its collections other than `params` (BatchNorm statistics)
        are updated by training, from the valid examples; the `dropout` generator is supplied.
      mean: of the pixels of each channel, on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      label_smoothing: fraction of the target spread evenly over all classes, in [0, 1) (arXiv:1512.00567).
      loss: `(logits b k, Labels) -> terms b` in place of the cross-entropy, any of `ops.losses` or a function of your own;
        `class_weighted(cross_entropy, inverse_frequency(counts))`, say.
      auxiliary: weight of the loss of every auxiliary head beside that of the main head, for networks that have auxiliary
        ones: 0.3 in GoogLeNet (arXiv:1409.4842), 0.4 in torchvision's recipe of Inception v3. Metrics are those of the main
        head.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Labels` and whose prediction is `ClassScores`. The loss of a weighted example whose label the
      network does not have is NaN, so that training stops and names it.

    Raises:
      ValueError: label smoothing together with a loss of its own, which would not see it; in use, auxiliary heads without
        a weight, or a weight without them.
    """
    if loss is not None and label_smoothing:
        raise ValueError(
            f"label_smoothing={label_smoothing} smooths the default cross-entropy; allowed with loss= is 0"
        )
    terms_of = loss or (lambda logits, target: loss_terms(logits, target, label_smoothing))

    def images(batch: Batch) -> Array:
        return jax.vmap(lambda image, size: pixels.normalise(image, size, mean, std, dtype))(batch.image, batch.size)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, images(batch), train=False)

    def mean_loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        outputs, collections = forward_training(network, variables, images(batch), valid=batch.valid, key=key)
        logits, *others = _heads(outputs, auxiliary)
        weight = example_weight(batch)
        known = (batch.target.label >= 0) & (batch.target.label < logits.shape[-1])
        terms = terms_of(logits, batch.target)
        if auxiliary is not None:
            terms = terms + auxiliary * sum(terms_of(other, batch.target) for other in others)
        terms = jnp.where(known | (weight <= 0), terms, jnp.nan)
        correct = (logits.argmax(-1) == batch.target.label).astype(terms.dtype)
        metrics = {"accuracy": weighted_mean(correct, batch.valid.astype(terms.dtype))}
        return weighted_mean(terms, weight), LossOutput(metrics, collections, jnp.where(weight > 0, terms, 0))

    def predict(variables: Variables, batch: Batch) -> ClassScores:
        logits = network.apply(model_variables(variables), images(batch), train=False)
        return ClassScores(cast(Array, logits))

    return Task(init, mean_loss, predict)


def _heads(outputs: Array | tuple[Array, ...], auxiliary: float | None) -> tuple[Array, ...]:
    """The logits of every head, the main one first."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    if len(heads) > 1 and auxiliary is None:
        raise ValueError(
            f"the network has {len(heads) - 1} auxiliary heads: classification needs their weight, auxiliary="
        )
    if len(heads) == 1 and auxiliary is not None:
        raise ValueError(
            f"auxiliary={auxiliary} weighs auxiliary heads; the network has none, for which None is allowed"
        )
    return heads


def taught(student: Task, teacher: Task, teacher_variables: Variables) -> Task:
    """The student's task with the probabilities of a fixed teacher as `target.probs` (arXiv:1503.02531).

    `student = classification(network, loss=losses.distillation(temperature=4.0))`. The teacher sees the same augmented
    images; its variables are a collection `teacher`: saved with the run, never trained. Soft targets that augmentation made
    (mixup) give way to the teacher's. `predict` is the student's.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return {**student.init(key, batch), "teacher": teacher_variables}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        logits = jax.lax.stop_gradient(teacher.predict(variables["teacher"], batch).logits)
        target = dataclasses.replace(batch.target, probs=jax.nn.softmax(logits))
        return student.loss(_without_teacher(variables), dataclasses.replace(batch, target=target), key)

    return Task(init, loss, lambda variables, batch: student.predict(_without_teacher(variables), batch))


def _without_teacher(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != "teacher"}


def loss_terms(logits: Float[Array, "b k"], target: Labels, label_smoothing: float = 0.0) -> Float[Array, "b"]:
    """The cross-entropy of each example, unweighted; from `target.probs` if there are any, else from `target.label`."""
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets(logits, target), label_smoothing))


def example_weight(batch: Batch) -> Float[Array, "b"]:
    """The weight of each example: that of its label, 0 for one that is not valid."""
    weight = batch.target.weight
    return batch.valid.astype(jnp.float32) if weight is None else jnp.where(batch.valid, weight, 0)


def weighted_mean(values: Float[Array, "b"], weight: Float[Array, "b"]) -> Float[Array, ""]:
    """The mean over the examples with a weight; 0 if there is none.

    Divides by the number of examples that have a weight, not by the sum of the weights, so that a class weight of 2 counts
    double even in a batch of one.
    """
    weight = weight.astype(values.dtype)
    count = jnp.maximum((weight > 0).sum(dtype=values.dtype), 1)
    return jnp.where(weight > 0, values * weight, 0).sum() / count

"""YOLOX (arXiv:2107.08430): every cell predicts one box; SimOTA says which cells are trained on which object.

Where the paper says little, the authors' code is followed.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.ops.boxes import area, clip, from_centre, iou, to_centre
from jaxvision.ops.candidates import best_candidates
from jaxvision.ops.matching import Match
from jaxvision.ops.selection import Best
from jaxvision.ops.simota import simota
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.classification import forward_training, model_variables
from jaxvision.tasks.yolo import Anchors, anchors_of
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables

GREY = 114.0
"""Level of the canvas outside the content."""
BOX = 5.0
"""Weight of `box_loss`."""
EPSILON = 1e-8
"""Added to sides, in cells, before their logarithm is taken."""


def yolox(
    network: nn.Module,
    *,
    score_threshold: float | int = 0.01,
    overlap: float = 0.65,
    candidates: int = 1000,
    count: int = 100,
    dtype=jnp.float32,
) -> Task:
    """The task of YOLOX.

    Pixels are given as they are, 0-255; the canvas outside the content is grey, 114.

    Args:
      network: an `nn.yolox.YOLOX`.
      score_threshold: detections have a score, objectness times class, above it.
      overlap: IoU above which the better of two detections of a class suppresses the other.
      candidates: boxes, each with its best class, go on to the suppression.
      count: detections an image.
      dtype: of the pixels.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `box_loss`,
      `objectness_loss`, `class_loss` and `l1_loss`, each the sum over all images by the number of cells that are trained on
      an object in all of them. What is to be ignored is background, as in the authors' code. An object's `weight`
      multiplies the losses of its cells.

      `l1_loss` is for closing epochs, in which images are no longer put together. Whether it counts is said by
      `batch.given = {"l1": ...}`, a factor for each image, which an augmentation makes of the step; without that it is 0.
    """

    def pixels(batch: Batch) -> Array:
        return detection.images(batch, GREY, 1.0, dtype) + jnp.asarray(GREY, dtype)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, pixels(batch), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        outputs, collections = forward_training(network, variables, pixels(batch), key)
        predicted, cells = _flat(outputs, batch.image.shape)
        terms, trained = jax.vmap(lambda p, t: loss_terms(p, cells, t))(predicted, detection.targets(batch))
        terms = {name: jnp.where(batch.valid, term, 0) for name, term in terms.items()}
        terms["l1_loss"] = terms["l1_loss"] * _l1(batch).astype(predicted.dtype)
        total = jnp.maximum(trained.sum(), 1).astype(predicted.dtype)
        metrics = {name: term.sum() / total for name, term in terms.items()}
        own = jnp.stack(list(terms.values())).sum(0) / jnp.maximum(trained, 1).astype(predicted.dtype)
        return jnp.stack(list(metrics.values())).sum(), LossOutput(metrics, collections, own)

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs: Sequence[Array] = network.apply(model_variables(variables), pixels(batch), train=False)  # type: ignore[assignment]
        predicted, cells = _flat(outputs, batch.image.shape)

        def one(predicted: Array, size: Array) -> Best:
            scores = jax.nn.sigmoid(predicted[:, 4:5]) * jax.nn.sigmoid(predicted[:, 5:])
            best, which = top_k(scores.max(1), min(candidates, len(scores)))
            boxes, labels = boxes_of(predicted, cells)[which], scores.argmax(1)[which].astype(jnp.int32)
            there = (best > score_threshold) & (area(clip(boxes, size)) > 0)
            kept, labels, best, there = best_candidates(boxes, labels, best, there, overlap=overlap, count=count)
            return clip(kept, size), labels, best, there

        return detection.detections(one, predicted, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    predicted: Float[Array, "a c"], cells: Anchors, target: Objects
) -> tuple[dict[str, Float[Array, ""]], Int[Array, ""]]:
    """Of one image: the sums of the losses, and how many cells are trained on an object."""
    owner = assigned(predicted, cells, target)
    positive, mine = owner >= 0, target.boxes[owner].astype(predicted.dtype)
    weight = jnp.where(positive, detection.weights(target)[owner], 1).astype(predicted.dtype)

    offsets = jnp.where(positive[:, None], predicted[:, :4], 0)  # what is not trained may be as large as it likes
    overlap = iou(boxes_of(offsets, cells), mine)
    classes = jax.nn.one_hot(target.labels[owner], predicted.shape[1] - 5, dtype=predicted.dtype)
    share = classes * jax.lax.stop_gradient(overlap)[:, None]
    terms = {
        "box_loss": BOX * (1 - jnp.square(overlap)),
        "objectness_loss": optax.sigmoid_binary_cross_entropy(predicted[:, 4], positive.astype(predicted.dtype)),
        "class_loss": optax.sigmoid_binary_cross_entropy(predicted[:, 5:], share).sum(-1),
        "l1_loss": jnp.abs(offsets - _encoded(mine, cells)).sum(-1),
    }
    everywhere = ("objectness_loss",)
    sums = {name: jnp.where(positive | (name in everywhere), x * weight, 0).sum() for name, x in terms.items()}
    return sums, positive.sum()


def assigned(predicted: Float[Array, "a c"], cells: Anchors, target: Objects) -> Match:
    """The number of the object that each cell of one image is trained on, or -1."""
    predicted = jax.lax.stop_gradient(predicted)
    both = jax.nn.log_sigmoid(predicted[:, 4:5]) + jax.nn.log_sigmoid(predicted[:, 5:])
    strides = jnp.asarray(cells.strides, predicted.dtype)
    return simota(
        boxes_of(predicted, cells),
        both / 2,
        (jnp.asarray(cells.cells, predicted.dtype) + 0.5) * strides,
        strides,
        target.boxes.astype(predicted.dtype),
        target.labels,
        detection.trained_on(target),
    )


def boxes_of(predicted: Float[Array, "a c"], cells: Anchors) -> Float[Array, "a 4"]:
    """The boxes that are predicted, by the first four numbers, in pixels of the canvas."""
    corner, stride = (jnp.asarray(each, predicted.dtype) for each in (cells.cells, cells.strides))
    centre = (predicted[:, :2] + corner) * stride
    return from_centre(jnp.concatenate([centre, jnp.exp(predicted[:, 2:4]) * stride], -1))


def _encoded(boxes: Float[Array, "a 4"], cells: Anchors) -> Float[Array, "a 4"]:
    """What a cell should predict for its box."""
    corner, stride = (jnp.asarray(each, boxes.dtype) for each in (cells.cells, cells.strides))
    centre, side = jnp.split(to_centre(boxes), 2, axis=-1)
    return jnp.concatenate([centre / stride - corner, jnp.log(jnp.maximum(side, 0) / stride + EPSILON)], -1)


def _l1(batch: Batch) -> Float[Array, "b"]:
    """How much the absolute differences of each image count."""
    given = batch.given if isinstance(batch.given, Mapping) else {}
    return jnp.asarray(given.get("l1", jnp.zeros(batch.valid.shape, jnp.float32)))


def _flat(outputs: Sequence[Array], images: tuple[int, ...]) -> tuple[Float[Array, "b a c"], Anchors]:
    """The outputs of all maps in one row, and which cells they are of."""
    shapes = [(x.shape[1], x.shape[2]) for x in outputs]
    cells = anchors_of(shapes, [[(1, 1)]] * len(shapes), (images[1], images[2]))
    return jnp.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in outputs], 1), cells

"""DETR (arXiv:2005.12872): every object is matched to one of the queries, and no suppression is needed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops import boxes as box
from jaxvision.ops import pixels
from jaxvision.ops.matching import hungarian
from jaxvision.ops.selection import Best
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.classification import model_variables
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables


class Weights(NamedTuple):
    """Of the terms, in the cost of a match and in the loss alike."""

    classes: float | int = 1
    boxes: float | int = 5
    giou: float | int = 2


class Terms(NamedTuple):
    """Sums over the queries of an image, and what they are divided by."""

    classes: Float[Array, "*b"]
    boxes: Float[Array, "*b"]
    giou: Float[Array, "*b"]
    class_weight: Float[Array, "*b"]
    objects: Float[Array, "*b"]


PAPER = Weights()


def detr(
    network: nn.Module,
    *,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    weights: Weights = PAPER,
    no_object: float = 0.1,
    dtype=jnp.float32,
) -> Task:
    """The task of DETR.

    Args:
      network: an `nn.detr.DETR`.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: likewise.
      weights: of the class, of the L1 distance of boxes and of their generalised IoU.
      no_object: weight of the queries without an object in the mean of the class losses.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`, one a query. Its loss is the weighted sum of
      `class_loss`, the cross-entropy, by the weights of all queries; of `box_loss` and `giou_loss`, by the number of
      objects in all images; and of the same of the earlier layers of the decoder, weighted as `auxiliary_loss`. Where an
      object is to be ignored nothing is, as the authors have it. An object's `weight` multiplies the losses of its query.
    """

    def run(variables: Variables, batch: Batch, **options) -> Any:
        images = detection.images(batch, mean, std, dtype)
        return network.apply(model_variables(variables), images, jnp.asarray(batch.size), **options)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, detection.images(batch, mean, std, dtype), jnp.asarray(batch.size), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        mutable = [name for name in model_variables(variables) if name != "params"]
        outputs, collections = run(variables, batch, train=True, mutable=mutable, rngs={"dropout": key})
        target, size = detection.targets(batch), jnp.asarray(batch.size)
        one = lambda *each: loss_terms(*each, weights=weights, no_object=no_object)
        by_image = jax.vmap(lambda logits, boxes: jax.vmap(one)(logits, boxes, target, size))
        terms = Terms(*(jnp.where(batch.valid[None], x, 0) for x in by_image(outputs.logits, outputs.boxes)))
        classes, boxes, giou = _means(Terms(*(x.sum(1) for x in terms)))
        by_layer = _weighted(weights, classes, boxes, giou)
        metrics = {
            "class_loss": classes[-1],
            "box_loss": boxes[-1],
            "giou_loss": giou[-1],
            "auxiliary_loss": by_layer[:-1].sum(),
        }
        return by_layer.sum(), LossOutput(metrics, collections, _weighted(weights, *_means(terms)).sum(0))

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs = run(variables, batch, train=False)
        return Detections(*jax.vmap(decode)(outputs.logits[-1], outputs.boxes[-1], jnp.asarray(batch.size)))  # type: ignore

    return Task(init, loss, predict)


def loss_terms(
    logits: Float[Array, "q c"],
    boxes: Float[Array, "q 4"],
    target: Objects,
    size: Int[Array, "2"],
    weights: Weights = PAPER,
    no_object: float = 0.1,
) -> Terms:
    """Of one image and one layer of the decoder; `boxes` are shares of the content, which is `size` large."""
    real = detection.trained_on(target)
    wanted = box.to_centre(target.boxes.astype(boxes.dtype) / _extent(size, boxes.dtype))
    matched = match(logits, boxes, target.labels, wanted, real, weights)
    positive = matched >= 0
    weight = jnp.where(positive, detection.weights(target)[matched], 1).astype(logits.dtype)

    label = jnp.where(positive, target.labels[matched], logits.shape[-1] - 1)
    share = jnp.where(positive, 1, no_object).astype(logits.dtype)
    by_class = optax.softmax_cross_entropy_with_integer_labels(logits, label)

    own = jnp.where(positive[:, None], boxes, 0.5)
    goal = jnp.where(positive[:, None], wanted[matched], 0.5)
    by_box = jnp.abs(own - goal).sum(-1)
    by_giou = 1 - box.giou(box.from_centre(own), box.from_centre(goal))
    return Terms(
        (by_class * share * weight).sum(),
        jnp.where(positive, by_box * weight, 0).sum(),
        jnp.where(positive, by_giou * weight, 0).sum(),
        share.sum(),
        real.sum().astype(logits.dtype),
    )


def match(
    logits: Float[Array, "q c"],
    boxes: Float[Array, "q 4"],
    labels: Int[Array, "g"],
    wanted: Float[Array, "g 4"],
    valid: Bool[Array, "g"],
    weights: Weights = PAPER,
) -> Int[Array, "q"]:
    """The number of the object of each query, or BACKGROUND: the matching of the least cost (section 3.1).

    Both boxes are centre, width and height as shares of the content.
    """
    logits, boxes = jax.lax.stop_gradient((logits, boxes))
    wanted = jnp.where(valid[:, None], wanted, 0.5)
    by_class = -jax.nn.softmax(logits)[:, jnp.where(valid, labels, 0)]
    by_box = jnp.abs(boxes[:, None] - wanted[None]).sum(-1)
    by_giou = -box.pairwise(box.giou, box.from_centre(boxes), box.from_centre(wanted))
    return hungarian(_weighted(weights, by_class, by_box, by_giou), valid)


def decode(logits: Float[Array, "n c"], boxes: Float[Array, "n 4"], size: Int[Array, "2"]) -> Best:
    """The detection of every query of one image, the best first: its likeliest class, boxes in pixels of the canvas."""
    scores = jax.nn.softmax(logits)[:, :-1]
    found = box.clip(box.from_centre(boxes) * _extent(size, boxes.dtype), size)
    score = jnp.where(box.area(found) > 0, scores.max(-1), 0)
    best, which = top_k(score, len(score))
    valid = best > 0
    kept = jnp.where(valid[:, None], found[which], 0)
    return kept, jnp.where(valid, scores.argmax(-1)[which], 0).astype(jnp.int32), best, valid


def _weighted(weights: Weights, classes: Array, boxes: Array, giou: Array) -> Array:
    return weights.classes * classes + weights.boxes * boxes + weights.giou * giou


def _means(terms: Terms) -> tuple[Array, Array, Array]:
    """Of the classes by their weights, of the boxes by their number; 0 where there are none."""
    weight, objects = jnp.where(terms.class_weight > 0, terms.class_weight, 1), jnp.maximum(terms.objects, 1)
    return terms.classes / weight, terms.boxes / objects, terms.giou / objects


def _extent(size: Int[Array, "2"], dtype) -> Float[Array, "1 4"]:
    """Width and height twice, at least 1: what boxes are shares of."""
    height, width = jnp.maximum(size, 1).astype(dtype)
    return jnp.stack([width, height, width, height])[None]

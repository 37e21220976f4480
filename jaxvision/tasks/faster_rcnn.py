"""Faster R-CNN (arXiv:1506.01497): proposed regions, classified; both stages are trained together."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxvision.nn.faster_rcnn import FasterRCNN, RegionScores
from jaxvision.nn.fpn import Maps, Predictions
from jaxvision.ops import pixels
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import anchors_of, by_level, padded
from jaxvision.tasks.classification import model_variables
from jaxvision.tasks.proposals import PROPOSING, Proposing, propose, region_loss_terms
from jaxvision.tasks.regions import CLASSIFYING, Classifying, box_loss_terms, detect, draw_regions
from jaxvision.types import Batch, Detections, Key, LossOutput, Scalar, Task, Variables

FPN_SIZES = ((32,), (64,), (128,), (256,), (512,))
"""Of the anchors on P2 to P6."""
SINGLE_SIZES = ((128, 256, 512),)
"""Of the anchors on the one map of the paper."""

_Proposed = tuple[Maps, list[Predictions]]


def faster_rcnn(
    network: FasterRCNN,
    *,
    sizes: Sequence[Sequence[float | int]] = FPN_SIZES,
    ratios: Sequence[float | int] = (0.5, 1.0, 2.0),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    proposing: Proposing = PROPOSING,
    classifying: Classifying = CLASSIFYING,
    dtype=jnp.float32,
) -> Task:
    """The task of Faster R-CNN.

    Args:
      network: both stages, with an anchor a cell for each size and ratio.
      sizes: of the anchors on every map: the square roots of their areas in pixels.
      ratios: heights by widths of them.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: likewise.
      proposing: settings of the first stage.
      classifying: of the second.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `objectness_loss` and
      `rpn_box_loss`, each over all images by the number of anchors drawn in all of them, and of `class_loss` and
      `box_loss`, likewise of regions. Anchors and regions that overlap an object to be ignored are no background. An
      object's `weight` multiplies the losses of what is matched to it. The canvas is padded to a multiple of 32 pixels.
    """

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        return padded(detection.images(batch, mean, std, dtype))

    def init(key: Key, batch: Batch) -> Variables:
        given = images(batch)
        return network.init(key, given, jnp.zeros((len(given), 1, 4), given.dtype), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        given, target = images(batch), detection.targets(batch)
        keys = jax.random.split(key, 4)
        anchor_keys, region_keys = (jax.random.split(each, len(given)) for each in keys[:2])
        (maps, outputs), collections = _training(network, variables, keys[2], "propose", given)
        anchors, (logits, offsets) = anchors_of(outputs, given.shape, sizes, ratios), _by_level(outputs)
        first = jax.vmap(lambda k, l, o, t, v: region_loss_terms(k, l, o, np.concatenate(anchors), t, v, proposing))(
            anchor_keys, jnp.concatenate(logits, 1), jnp.concatenate(offsets, 1), target, batch.valid
        )

        boxes, there = _propose(logits, offsets, anchors, batch, True, proposing)
        there = there & batch.valid[:, None]
        drawn = jax.vmap(lambda k, b, v, t: draw_regions(k, b, v, t, classifying))(region_keys, boxes, there, target)
        variables = {**variables, **collections}
        scores, collections = _training(network, variables, keys[3], "classify", maps, drawn.boxes)
        second = jax.vmap(lambda s, r, t: box_loss_terms(s.logits, s.offsets, r, t, classifying.weights))(
            scores, drawn, target
        )

        terms = {
            **_means(("objectness_loss", "rpn_box_loss"), *first),
            **_means(("class_loss", "box_loss"), *second),
        }
        metrics = {name: mean for name, (mean, _) in terms.items()}
        own = sum(each for _, each in terms.values())
        return sum(metrics.values()), LossOutput(metrics, collections, own)  # type: ignore[return-value]

    def predict(variables: Variables, batch: Batch) -> Detections:
        given, own = images(batch), model_variables(variables)
        maps, outputs = cast(_Proposed, network.apply(own, given, train=False, method="propose"))
        anchors, (logits, offsets) = anchors_of(outputs, given.shape, sizes, ratios), _by_level(outputs)
        boxes, there = _propose(logits, offsets, anchors, batch, False, proposing)
        scores = cast(RegionScores, network.apply(own, maps, boxes, train=False, method="classify"))
        return detection.detections(
            lambda l, o, b, v, s: detect(l, o, b, v, s, classifying), *scores, boxes, there, jnp.asarray(batch.size)
        )

    return Task(init, loss, predict)


def _training(network: FasterRCNN, variables: Variables, key: Key, method: str, *given: Any) -> tuple[Any, dict]:
    """One stage in training mode, and the collections as they are after it."""
    own = model_variables(variables)
    mutable = [name for name in own if name != "params"]
    out, changed = network.apply(own, *given, train=True, mutable=mutable, rngs={"dropout": key}, method=method)
    return out, {name: changed.get(name, own[name]) for name in mutable}


def _by_level(outputs: Sequence[Predictions]) -> tuple[list[Float[Array, "b _"]], list[Float[Array, "b _ 4"]]]:
    logits, offsets = by_level(outputs)
    return [x[..., 0] for x in logits], offsets


def _propose(
    logits: list[Array], offsets: list[Array], anchors: list[np.ndarray], batch: Batch, train: bool, settings: Proposing
) -> tuple[Float[Array, "b n 4"], Array]:
    """The regions of every image."""

    def one(logits: list[Array], offsets: list[Array], size: Array) -> tuple[Array, Array]:
        return propose(logits, offsets, anchors, size, train=train, settings=settings)

    return jax.vmap(one)(logits, offsets, jnp.asarray(batch.size))


def _means(
    names: tuple[str, str], first: Float[Array, "b"], second: Float[Array, "b"], count: Array
) -> dict[str, tuple[Float[Array, ""], Float[Array, "b"]]]:
    """Of two sums an image over `count` rows: the mean over the rows of all images, and that of each image by itself."""
    total, each = (jnp.maximum(n, 1).astype(first.dtype) for n in (count.sum(), count))
    return {name: (x.sum() / total, x / each) for name, x in zip(names, (first, second), strict=True)}

"""RetinaNet (arXiv:1708.02002): anchors on a feature pyramid, trained on all by a loss that forgets the easy ones."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxvision.nn import resnet
from jaxvision.nn.conv import Conv
from jaxvision.nn.fpn import FPN, Backbone, Convolved, Predictions, first_map
from jaxvision.nn.norm import FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import anchors, box_codec, losses, pixels, raw_scores
from jaxvision.ops.box_losses import BoxLoss, l1
from jaxvision.ops.boxes import clip
from jaxvision.ops.candidates import after_top_k, best_candidates
from jaxvision.ops.matching import IGNORED
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.selection import Selecting, Selection
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, anchors_of, by_iou, by_level, matched_box_loss, padded
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Detections, Key, Labels, LossOutput, Objects, Scalar, Task, Variables

small_normal = nn.initializers.normal(0.01)


class Tower(nn.Module):
    """3x3 convolutions with ReLU, and one that predicts: names `conv1`, ..., `predict`. All maps share it."""

    each: int
    """Numbers for each anchor."""
    anchors_per_cell: int
    """Anchors a cell."""
    channels: int
    depth: int
    bias: float
    """Where the predictions start."""
    dtype: DTypeLike

    @nn.compact
    def __call__(self, maps: list[Float[Array, "b _ _ c"]]) -> list[Float[Array, "b _ _ k n"]]:
        """The predictions on every map; computed as `dtype`, given as float32 at least."""
        wide = at_least_float32(self.dtype)
        convs = [
            Conv(self.channels, 3, padding=1, dtype=self.dtype, kernel_init=small_normal, name=f"conv{n}")
            for n in range(1, self.depth + 1)
        ]
        predict = nn.Conv(
            self.anchors_per_cell * self.each,
            (3, 3),
            padding=1,
            dtype=self.dtype,
            param_dtype=wide,
            kernel_init=small_normal,
            bias_init=nn.initializers.constant(self.bias),
            name="predict",
        )
        return [self._shaped(predict(_through(convs, x))) for x in maps]

    def _shaped(self, y: Array) -> Array:
        return y.astype(at_least_float32(self.dtype)).reshape(*y.shape[:3], self.anchors_per_cell, self.each)


def _through(convs: list[Callable[[Array], Array]], x: Array) -> Array:
    for conv in convs:
        x = nn.relu(conv(x))
    return x


class RetinaNet(nn.Module):
    """Predictions on every map of `features`: names `features`, `class_tower`, `box_tower`."""

    features: nn.Module
    """Returns a list of maps of one width, finest first."""
    classes: int
    anchors_per_cell: int = 9
    """Anchors a cell."""
    channels: int = 256
    depth: int = 4
    """Convolutions of each tower before the one that predicts."""
    prior: float = 0.01
    """Probability of every class at first."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Predictions]:
        """Predictions on each map, finest first, as `Tower` gives them; logits are of every class by itself."""
        maps = self.features(images, train=train)
        shape = {
            "anchors_per_cell": self.anchors_per_cell,
            "channels": self.channels,
            "depth": self.depth,
            "dtype": self.dtype,
        }
        bias = -math.log((1 - self.prior) / self.prior)
        logits = Tower(self.classes, bias=bias, name="class_tower", **shape)(maps)
        offsets = Tower(4, bias=0.0, name="box_tower", **shape)(maps)
        return [Predictions(*each) for each in zip(logits, offsets, strict=True)]


def retinanet_fpn(backbone: Backbone, classes: int, *, channels: int = 256, **options: Any) -> RetinaNet:
    """RetinaNet on P3 to P7 above any backbone, of which maps with strides below 8 are left aside.

    `options` are those of `RetinaNet`.
    """
    dtype, first = backbone.dtype, first_map(backbone, 8)
    features = FPN(backbone, first, channels, Convolved(channels, dtype=dtype), dtype=dtype)
    return RetinaNet(features, classes, channels=channels, dtype=dtype, **options)


def retinanet_resnet50_fpn(classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32) -> RetinaNet:
    """RetinaNet on ResNet-50, as torchvision's `retinanet_resnet50_fpn`."""
    return retinanet_fpn(resnet.resnet50(None, norm=norm, dtype=dtype).backbone, classes)


SIZES = tuple(tuple(int(base * 2 ** (third / 3)) for third in range(3)) for base in (32, 64, 128, 256, 512))
"""Sizes of the anchors on P3 to P7: three in an octave."""
MATCHING = by_iou(0.5, 0.4, low_quality=True)
"""Matching of the paper, and of torchvision, which matches the best anchors of every object in any case."""


def retinanet(
    network: nn.Module,
    *,
    sizes: Sequence[Sequence[float | int]] = SIZES,
    ratios: Sequence[float | int] = (0.5, 1.0, 2.0),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    matching: Matching = MATCHING,
    gamma: float | int = 2,
    alpha: float = 0.25,
    box_loss: BoxLoss = l1,
    score_threshold: float | int = 0.05,
    pre_nms_top_k: int = 1000,
    nms: NMS = greedy(0.5),
    max_detections: int = 300,
    dtype=jnp.float32,
) -> Task:
    """The task of RetinaNet; defaults are torchvision's, the paper's but for `max_detections` (100 there).

    Args:
      network: a `RetinaNet`, with an anchor a cell for each size and ratio.
      sizes: of the anchors on every map: the square roots of their areas in pixels.
      ratios: heights by widths of them.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      matching: of anchors to objects, see `tasks.anchored.by_iou`.
      gamma: of the focal loss.
      alpha: weight of the class that is there in it, `1 - alpha` of those that are not.
      box_loss: the loss of each bounding box, see `ops.box_losses`.
      score_threshold: detections have a score above it.
      pre_nms_top_k: the number of pairs of anchor and class of every map, the best, that NMS sees.
      nms: what a detection keeps of its score beside better ones of its class: `ops.nms.greedy(iou)`, or one of
        `ops.other_nms`.
      max_detections: rows of the prediction of each image.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `class_loss` and
      `box_loss`, each the mean over images of its sum by the number of anchors matched there.
      Anchors whose IoU with an object to be ignored reaches the lower threshold of `matching` are no background. An
      object's `weight` multiplies the losses of the anchors matched to it. The canvas is padded to a multiple of 32 pixels.
    """

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        return padded(detection.images(batch, mean, std, dtype))

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, images(batch), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        given = images(batch)
        outputs, collections = forward_training(network, variables, given, valid=batch.valid, key=key)
        logits, offsets = (jnp.concatenate(each, 1) for each in by_level(outputs))
        boxes = np.concatenate(anchors_of(outputs, given.shape, sizes, ratios))
        at = lambda o: box_codec.decode(o, jnp.asarray(boxes, o.dtype))
        raw_scores.tell(lambda: raw_scores.Candidates(jax.vmap(at)(offsets), jax.nn.sigmoid(logits)))
        one = lambda l, o, t: loss_terms(l, o, boxes, t, matching, gamma, alpha, box_loss)
        terms = jax.vmap(one)(logits, offsets, detection.targets(batch))
        by_image = LossTerms(detection.means(terms), jax.tree.map(jnp.ones_like, terms.sums))
        return detection.mean_loss(by_image, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        given = images(batch)
        outputs: list[Predictions] = network.apply(model_variables(variables), given, train=False)  # type: ignore[assignment]
        boxes = anchors_of(outputs, given.shape, sizes, ratios)
        logits, offsets = by_level(outputs)

        selecting = Selecting(score_threshold, pre_nms_top_k, nms, max_detections)
        one = lambda l, o, s: decode(l, o, boxes, s, selecting)
        return detection.detections(one, logits, offsets, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    logits: Float[Array, "a k"],
    offsets: Float[Array, "a 4"],
    boxes: Float[Array, "a 4"] | np.ndarray,
    target: Objects,
    matching: Matching = MATCHING,
    gamma: float | int = 2,
    alpha: float = 0.25,
    box_loss: BoxLoss = l1,
) -> LossTerms:
    """Sums of `class_loss` and `box_loss` over the anchors of one image, by the number of these that are matched."""
    boxes = jnp.asarray(boxes, offsets.dtype)
    match = matching(boxes, target)
    positive = match >= 0
    weight = jnp.where(positive, detection.weights(target)[match], 1).astype(logits.dtype)

    label = Labels(jnp.where(positive, target.labels[match], -1))
    by_class = losses.sigmoid_focal(gamma, alpha)(logits, label)

    by_box = matched_box_loss(box_loss, offsets, boxes, target.boxes[match], positive)
    sums = {
        "class_loss": jnp.where(match != IGNORED, by_class * weight, 0).sum(),
        "box_loss": (by_box * weight).sum(),
    }
    return LossTerms(sums, dict.fromkeys(sums, positive.sum()))


def decode(
    logits: Sequence[Float[Array, "_ k"]],
    offsets: Sequence[Float[Array, "_ 4"]],
    boxes: Sequence[Float[np.ndarray, "_ 4"]],
    size: Int[Array, "2"],
    selecting: Selecting,
) -> Selection:
    """The detections of one image, the best first, their boxes in pixels of the canvas and cut at the content.

    Args:
      logits: of the anchors of every map, for each class by itself.
      offsets: of the boxes from the anchors of every map.
      boxes: the anchors of every map, in pixels of the canvas.
      size: height and width of the content in pixels.
      selecting: of pairs of anchor and class, the best of every map; `index` counts the anchors of one map after another.
    """
    found = [_candidates(*level, size, selecting.pre_nms_top_k) for level in zip(logits, offsets, boxes, strict=True)]
    raw_scores.tell(lambda: _all_candidates(logits, offsets, boxes, size))
    first = np.cumsum([0, *map(len, boxes[:-1])])
    anchor = jnp.concatenate([level.anchor + int(start) for level, start in zip(found, first, strict=True)])
    kept, labels, scores = (jnp.concatenate(each) for each in list(zip(*found, strict=True))[:3])
    return best_candidates(kept, labels, scores, scores >= 0, **after_top_k(selecting)).renumbered(anchor)


def _all_candidates(
    logits: Sequence[Float[Array, "_ k"]],
    offsets: Sequence[Float[Array, "_ 4"]],
    boxes: Sequence[Float[np.ndarray, "_ 4"]],
    size: Int[Array, "2"],
) -> raw_scores.Candidates:
    """Every anchor of every map, its score for every class."""
    anchor, offset = jnp.asarray(np.concatenate(boxes), offsets[0].dtype), jnp.concatenate(offsets)
    return raw_scores.Candidates(clip(box_codec.decode(offset, anchor), size), jax.nn.sigmoid(jnp.concatenate(logits)))


class _Candidates(NamedTuple):
    """The best pairs of anchor and class of one map."""

    boxes: Float[Array, "c 4"]
    labels: Int[Array, "c"]
    scores: Float[Array, "c"]
    anchor: Int[Array, "c"]


def _candidates(
    logits: Float[Array, "a k"],
    offsets: Float[Array, "a 4"],
    boxes: anchors.Anchors,
    size: Int[Array, "2"],
    count: int,
) -> _Candidates:
    """The `count` best pairs of anchor and class of one map."""
    scores, pair = top_k(jax.nn.sigmoid(logits).reshape(-1), min(count, logits.size))
    which, label = jnp.divmod(pair, logits.shape[1])
    found = box_codec.decode(offsets[which], jnp.asarray(boxes, offsets.dtype)[which])
    return _Candidates(clip(found, size), label.astype(jnp.int32), scores, which)

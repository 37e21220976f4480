"""SSD (arXiv:1512.02325): default boxes over several maps, matched by IoU, hard negatives mined three to one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.nn import mobilenet, vgg
from jaxvision.nn.conv import Conv, ConvNormAct, max_pool
from jaxvision.nn.mobilenet import relu6, same_padding
from jaxvision.nn.norm import Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import box_codec, raw_scores
from jaxvision.ops.anchors import Anchors, ssd_default_boxes
from jaxvision.ops.box_losses import BoxLoss, smooth_l1
from jaxvision.ops.boxes import clip
from jaxvision.ops.extremes import maximum
from jaxvision.ops.matching import BACKGROUND
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.selection import Selecting, Selection, best_of_each_class
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, bipartite, matched_box_loss
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables

xavier = nn.initializers.xavier_uniform()


class Extra(NamedTuple):
    """A further map: 1x1 to `squeeze` channels, then `kernel` x `kernel` to `channels`."""

    squeeze: int
    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1


SSD300_EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256, 3, 1, 0), Extra(128, 256, 3, 1, 0))
SSD512_EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(128, 256), Extra(128, 256, 4, 1, 1))

Maps = list[Float[Array, "b _ _ _"]]


class L2Norm(nn.Module):
    """Every pixel's channels to length 1, then scaled, each channel by its own factor (arXiv:1506.04579)."""

    start: float | int = 20.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The rescaled map, in the type of `x`."""
        wide = at_least_float32(x.dtype)
        scale = self.param("scale", nn.initializers.constant(self.start), x.shape[-1:], wide)
        square = jnp.square(x.astype(wide)).sum(-1, keepdims=True)
        # The length itself is compared with 1e-12, its square with the square of that: no gradient of a root of 0.
        return (x * lax.rsqrt(maximum(square, 1e-24)) * scale.reshape(1, 1, 1, -1)).astype(x.dtype)


class VGGFeatures(nn.Module):
    """conv4_3 of VGG16, its length fixed; conv7, once a dense layer, its kernel dilated 6 times; the extras."""

    backbone: vgg.Backbone
    extras: Sequence[Extra]

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps; those of `vgg.Backbone(..., ceil_pooling=True)` at 300 px have sides 38, 19, 10, 5, 3, 1."""
        stages = self.backbone(images, train=train)
        dtype = self.backbone.dtype
        x = max_pool(stages[4], 3, stride=1, padding=1)
        x = nn.relu(Conv(1024, 3, padding=6, dilation=6, dtype=dtype, kernel_init=xavier, name="conv6")(x))
        x = nn.relu(Conv(1024, 1, dtype=dtype, kernel_init=xavier, name="conv7")(x))
        return [L2Norm(name="norm4")(stages[3]), x, *_extras(x, self.extras, dtype, None, train)]


class Features(nn.Module):
    """Chosen maps of a backbone, and extras behind its last."""

    backbone: nn.Module
    """Returns a list of maps, finest first."""
    first: int
    """Number of the first map that is used, from 0."""
    extras: Sequence[Extra]
    dtype: DTypeLike = jnp.float32
    norm: Norm | None = None
    """Behind every convolution of the extras; None: they have biases."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps."""
        maps = self.backbone(images, train=train)
        return [*maps[self.first :], *_extras(maps[-1], self.extras, self.dtype, self.norm, train)]


def _extras(x: Array, extras: Sequence[Extra], dtype: DTypeLike, norm: Norm | None, train: bool) -> Maps:
    """The maps of the extras behind `x`; the calling compact module gets submodules `extra1_squeeze`, `extra1_conv`, ..."""

    def layer(x: Array, name: str, *shape: int) -> Array:
        conv = ConvNormAct(*shape, use_bias=norm is None, norm=norm, dtype=dtype, kernel_init=xavier)
        return conv.flat(x, name, f"{name}_norm", train=train)

    maps = []
    for number, extra in enumerate(extras, 1):
        x = layer(x, f"extra{number}_squeeze", extra.squeeze, 1, 1, 0)
        x = layer(x, f"extra{number}_conv", extra.channels, extra.kernel, extra.stride, extra.padding)
        maps.append(x)
    return maps


class MobileNetFeatures(nn.Module):
    """The maps of TensorFlow's SSD-MobileNetV2, strides 16, 32, ...; at 300 px their sides are 19, 10, 5, 3, 2, 1."""

    backbone: mobilenet.Backbone
    """A backbone with `expanded=True` and padding "same"."""
    extras: Sequence[tuple[int, int]] = ((256, 512), (128, 256), (128, 256), (64, 128))
    """Channels inside and of each further map, whose 3x3 convolution is depthwise."""
    last: int = 1280

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps."""
        *_, inside, x = self.backbone(images, train=train)
        x = self._layer(x, "last", self.last, train)
        maps = [inside, x]
        for number, (squeeze, channels) in enumerate(self.extras, 1):
            x = self._layer(x, f"extra{number}_squeeze", squeeze, train)
            x = self._layer(x, f"extra{number}_depthwise", squeeze, train, kernel=3, stride=2, groups=squeeze)
            x = self._layer(x, f"extra{number}", channels, train)
            maps.append(x)
        return maps

    def _layer(
        self, x: Array, name: str, channels: int, train: bool, *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> Array:
        pads = same_padding(x.shape[1], kernel, stride), same_padding(x.shape[2], kernel, stride)
        part = {"groups": groups, "norm": self.backbone.norm, "dtype": self.backbone.dtype}
        layer = ConvNormAct(channels, kernel, stride, pads, **part, activation=relu6)
        return layer.flat(x, f"{name}_conv", f"{name}_norm", train=train)


class Outputs(NamedTuple):
    """What SSD predicts on one map, for `k` default boxes a cell."""

    logits: Float[Array, "b h w k n"]
    """Background first, then the classes."""
    offsets: Float[Array, "b h w k 4"]
    """Offsets as `ops.box_codec` encodes them."""


class SSD(nn.Module):
    """Predictions on every map of `features`."""

    features: nn.Module
    classes: int
    anchors_per_cell: Sequence[int]
    """Default boxes a cell of each map."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Outputs]:
        """Outputs of each map, finest first, in float32 at least.

        Raises:
            ValueError: if the features are more or fewer maps than `anchors_per_cell` says.
        """
        maps = self.features(images, train=train)
        if len(maps) != len(self.anchors_per_cell):
            raise ValueError(
                f"SSD: the features are {len(maps)} maps, and anchors_per_cell={tuple(self.anchors_per_cell)} is for"
                f" {len(self.anchors_per_cell)}"
            )
        return [
            Outputs(self._head(x, f"classes{n}", anchors, self.classes + 1), self._head(x, f"boxes{n}", anchors, 4))
            for n, (x, anchors) in enumerate(zip(maps, self.anchors_per_cell, strict=True), 1)
        ]

    def _head(self, x: Array, name: str, anchors: int, each: int) -> Array:
        conv = Conv(anchors * each, 3, padding=1, dtype=self.dtype, kernel_init=xavier, name=name)
        y = conv(x).astype(at_least_float32(self.dtype))
        return y.reshape(*y.shape[:3], anchors, each)


def ssd300_vgg16(classes: int, *, dtype: DTypeLike = jnp.float32) -> SSD:
    """SSD300 on VGG16, for images of 300x300 pixels."""
    return SSD(VGGFeatures(_vgg16(dtype), SSD300_EXTRAS), classes, (4, 6, 6, 6, 4, 4), dtype=dtype)


def ssd512_vgg16(classes: int, *, dtype: DTypeLike = jnp.float32) -> SSD:
    """SSD512 on VGG16, for images of 512x512 pixels."""
    return SSD(VGGFeatures(_vgg16(dtype), SSD512_EXTRAS), classes, (4, 6, 6, 6, 6, 4, 4), dtype=dtype)


def ssd300_mobilenet_v2(classes: int, *, norm: Norm = mobilenet.tensorflow_norm, dtype: DTypeLike = jnp.float32) -> SSD:
    """TensorFlow's SSD-MobileNetV2, for images of 300x300 pixels."""
    backbone = mobilenet.mobilenet_v2(padding="same", norm=norm, dtype=dtype, expanded=True).backbone
    return SSD(MobileNetFeatures(backbone), classes, (3, 6, 6, 6, 6, 6), dtype=dtype)


def _vgg16(dtype: DTypeLike) -> vgg.Backbone:
    return vgg.Backbone(vgg.VGG16, dtype=dtype, ceil_pooling=True)


CAFFE_MEAN = (123.0, 117.0, 104.0)
"""Mean of the pixels, as SSD on VGG16 has it; the standard deviation there is 1."""


class Scores(NamedTuple):
    """How logits become scores, and what a wrong one costs."""

    of: Callable[[Float[Array, "*a n"]], Float[Array, "*a k"]]
    """Scores of the classes, 0 to 1, without background."""
    loss: Callable[[Float[Array, "a n"], Int[Array, "a"]], Float[Array, "a"]]
    """Loss of boxes that are each of a class, or background: -1."""


def _softmax_loss(logits: Float[Array, "a n"], label: Int[Array, "a"]) -> Float[Array, "a"]:
    return optax.softmax_cross_entropy_with_integer_labels(logits, label + 1)


def _sigmoid_loss(logits: Float[Array, "a n"], label: Int[Array, "a"]) -> Float[Array, "a"]:
    return optax.sigmoid_binary_cross_entropy(logits, jax.nn.one_hot(label + 1, logits.shape[-1])).sum(-1)


SOFTMAX = Scores(lambda logits: jax.nn.softmax(logits)[..., 1:], _softmax_loss)
"""Background competes with the classes: the paper's."""
SIGMOID = Scores(lambda logits: jax.nn.sigmoid(logits)[..., 1:], _sigmoid_loss)
"""Every class, and background, by itself: TensorFlow's."""

Defaults = Callable[[Sequence[tuple[int, int]], tuple[int, int]], Anchors]
"""`(rows and columns of each map, height and width of the canvas) -> default boxes`."""


def paper(scales: Sequence[float | int], ratios: Sequence[Sequence[float | int]], strides: Sequence[int]) -> Defaults:
    """Default boxes of the paper, see `ops.anchors.ssd_default_boxes`."""
    return lambda shapes, canvas: ssd_default_boxes(shapes, canvas, scales, ratios, strides)


SSD300 = paper(
    (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)), (8, 16, 32, 64, 100, 300)
)
"""8,732 default boxes for COCO at 300 px."""
SSD300_VOC = paper(
    (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)), (8, 16, 32, 64, 100, 300)
)
"""8,732 default boxes for VOC at 300 px, larger ones (section 3.1 of the paper)."""
SSD512 = paper(
    (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
    ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    (8, 16, 32, 64, 128, 256, 512),
)
"""24,564 default boxes for COCO at 512 px."""
MATCHING = bipartite(0.5)
"""Matching of the paper: each object to its best default box, further boxes from an IoU of 0.5 on."""


def ssd(
    network: nn.Module,
    defaults: Defaults,
    *,
    mean: float | Sequence[float] = CAFFE_MEAN,
    std: float | Sequence[float] = 1.0,
    scores: Scores = SOFTMAX,
    matching: Matching = MATCHING,
    negatives: float | int = 3,
    box_loss: BoxLoss = smooth_l1(),
    score_threshold: float | int = 0.01,
    nms: NMS = greedy(0.45),
    pre_nms_top_k: int = 400,
    max_detections: int = 200,
    dtype=jnp.float32,
) -> Task:
    """The task of SSD.

    Args:
      network: an `SSD`.
      defaults: its default boxes, from the shapes of its maps: `SSD300`, or `paper(...)` of one's own.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      scores: `SOFTMAX` or `SIGMOID`.
      matching: of default boxes to objects: `tasks.anchored.bipartite(iou)`, or another.
      negatives: hard negatives for each matched box: the boxes of background with the largest loss.
      box_loss: the loss of each bounding box, see `ops.box_losses`.
      score_threshold: detections have a score above it.
      nms: what a detection keeps of its score beside better ones of its class: `ops.nms.greedy(iou)`, or one of
        `ops.other_nms`.
      pre_nms_top_k: the number of boxes of each class, the best, that NMS sees.
      max_detections: rows of the prediction of each image.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `class_loss` and
      `box_loss`, each over all images by the number of boxes matched in all of them. Boxes whose IoU with an
      object to be ignored reaches the threshold of `matching` are no background. An object's `weight` multiplies the losses
      of the boxes matched to it.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, detection.images(batch, mean, std, dtype), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        pixels = detection.images(batch, mean, std, dtype)
        outputs, collections = forward_training(network, variables, pixels, valid=batch.valid, key=key)
        logits, offsets, boxes = _flat(outputs, defaults, batch.image.shape)
        at = lambda o: box_codec.decode(o, jnp.asarray(boxes, o.dtype), box_codec.SSD)
        raw_scores.tell(lambda: raw_scores.Candidates(jax.vmap(at)(offsets), scores.of(logits)))
        one = lambda l, o, t: loss_terms(l, o, boxes, t, scores, matching, negatives, box_loss)
        terms = jax.vmap(one)(logits, offsets, detection.targets(batch))
        return detection.mean_loss(terms, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        pixels = detection.images(batch, mean, std, dtype)
        outputs = network.apply(model_variables(variables), pixels, train=False)
        logits, offsets, boxes = _flat(outputs, defaults, batch.image.shape)  # type: ignore[arg-type]

        selecting = Selecting(score_threshold, pre_nms_top_k, nms, max_detections)
        one = lambda l, o, s: decode(l, o, boxes, s, selecting, scores)
        return detection.detections(one, logits, offsets, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    logits: Float[Array, "a n"],
    offsets: Float[Array, "a 4"],
    defaults: Float[Array, "a 4"] | np.ndarray,
    target: Objects,
    scores: Scores = SOFTMAX,
    matching: Matching = MATCHING,
    negatives: float | int = 3,
    box_loss: BoxLoss = smooth_l1(),
) -> LossTerms:
    """Sums of `class_loss` and `box_loss` of one image, by the number of default boxes that are matched."""
    defaults = jnp.asarray(defaults, offsets.dtype)
    matched = matching(defaults, target)
    positive = matched >= 0
    weight = jnp.where(positive, detection.weights(target)[matched], 1).astype(logits.dtype)

    by_class = scores.loss(logits, jnp.where(positive, target.labels[matched], -1))
    mined = hardest(by_class, matched == BACKGROUND, (negatives * positive.sum()).astype(jnp.int32))

    by_box = matched_box_loss(box_loss, offsets, defaults, target.boxes[matched], positive, box_codec.SSD)
    sums = {
        "class_loss": jnp.where(positive | mined, by_class * weight, 0).sum(),
        "box_loss": (by_box * weight).sum(),
    }
    return LossTerms(sums, dict.fromkeys(sums, positive.sum()))


def decode(
    logits: Float[Array, "a n"],
    offsets: Float[Array, "a 4"],
    defaults: Float[Array, "a 4"] | np.ndarray,
    size: Int[Array, "2"],
    selecting: Selecting,
    scores: Scores = SOFTMAX,
) -> Selection:
    """The detections of one image, the best first, their boxes in pixels of the canvas and cut at the content.

    Args:
      logits: background first, then the classes.
      offsets: of the boxes from the default ones.
      defaults: default boxes in pixels of the canvas.
      size: height and width of the content in pixels.
      selecting: of boxes within each class; the `index` of a detection is its default box.
      scores: `SOFTMAX` or `SIGMOID`.
    """
    boxes = box_codec.decode(offsets, jnp.asarray(defaults), box_codec.SSD)
    return best_of_each_class(
        clip(boxes, size),
        scores.of(logits),
        **selecting._asdict(),
    )


def hardest(loss: Float[Array, "a"], among: Bool[Array, "a"], count: Int[Array, ""]) -> Bool[Array, "a"]:
    """Hard negatives: the `count` largest losses; ties by index; all, where there are fewer."""
    order = jnp.argsort(jnp.where(among, -loss, jnp.inf), stable=True)
    rank = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.arange(len(order), dtype=jnp.int32))
    return among & (rank < count)


def _flat(
    outputs: Sequence[Outputs], defaults: Defaults, images: tuple[int, ...]
) -> tuple[Float[Array, "b a c"], Float[Array, "b a 4"], Anchors]:
    """The outputs of all maps in one row, and the boxes that they are about."""
    logits, offsets = (
        jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], 1)
        for maps in zip(*outputs, strict=True)
    )
    shapes = [(each.logits.shape[1], each.logits.shape[2]) for each in outputs]
    boxes = defaults(shapes, (images[1], images[2]))
    if len(boxes) != logits.shape[1]:
        raise ValueError(f"the network has outputs for {logits.shape[1]} default boxes, and there are {len(boxes)}")
    return logits, offsets, boxes

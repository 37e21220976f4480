"""YOLACT (arXiv:1904.02689): anchors with coefficients beside their class and box; a mask is a sum of prototypes, by these.

What the paper leaves open is as in its authors' code, square anchors included.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.nn import resnet
from jaxvision.nn.conv import Conv
from jaxvision.nn.fpn import Backbone, Maps, first_map
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import box_codec, matching, raw_scores
from jaxvision.ops.anchors import Anchors
from jaxvision.ops.box_losses import BoxLoss, smooth_l1
from jaxvision.ops.boxes import area, clip, covered, iou, pairwise
from jaxvision.ops.masks import shrunk
from jaxvision.ops.matching import BACKGROUND, IGNORED, Match
from jaxvision.ops.nms import NMS
from jaxvision.ops.other_nms import fast
from jaxvision.ops.resize import bilinear
from jaxvision.ops.selection import Selecting, Selection, best_of_each_class
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import Matching, matched_box_loss
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.tasks.ssd import hardest
from jaxvision.types import (
    Batch,
    Detections,
    Key,
    LossOutput,
    Objects,
    PrototypeMasks,
    Scalar,
    Task,
    Variables,
)

xavier = nn.initializers.xavier_uniform()


def enlarged(maps: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b {height} {width} c"]:
    """Maps resized bilinearly."""
    return jax.vmap(lambda x: bilinear(x, height, width))(maps)


class Pyramid(nn.Module):
    """YOLACT's feature pyramid: interpolated bilinearly, a ReLU behind every output, two maps more behind the last of them.

    Names: `lateral1`, `output1` (of the finest map), ..., `top1`, `top2`.
    """

    backbone: Backbone
    """Returns a list of maps, finest first."""
    first: int
    """Number of the first map that is used, from 0."""
    channels: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps, finest first: P3 to P7 of a backbone whose last stride is 32."""
        conv = partial(Conv, self.channels, dtype=self.dtype, kernel_init=xavier)
        maps = self.backbone(images, train=train)[self.first :]
        merged: Maps = []
        for number in range(len(maps), 0, -1):
            lateral = conv(1, name=f"lateral{number}")(maps[number - 1])
            above = [enlarged(x, *lateral.shape[1:3]) for x in merged[:1]]
            merged.insert(0, sum(above, lateral))
        found = [nn.relu(conv(3, padding=1, name=f"output{n}")(x)) for n, x in enumerate(merged, 1)]
        for name in ("top1", "top2"):
            found.append(conv(3, 2, padding=1, name=name)(found[-1]))
        return found


class Prototypes(nn.Module):
    """Prototypes at twice the size of a map: names `conv1`, `conv2`, `conv3`, `conv4`, `output`."""

    count: int
    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w k"]:
        """The prototypes, 0 or more."""
        conv = partial(Conv, dtype=self.dtype, kernel_init=xavier)
        for name in ("conv1", "conv2", "conv3"):
            x = nn.relu(conv(self.channels, 3, padding=1, name=name)(x))
        x = enlarged(x, 2 * x.shape[1], 2 * x.shape[2])
        x = nn.relu(conv(self.channels, 3, padding=1, name="conv4")(x))
        return nn.relu(conv(self.count, 1, name="output")(x)).astype(at_least_float32(self.dtype))


class Anchored(NamedTuple):
    """What is predicted for every anchor: of one map `b h w k n`, or of all maps in one row `b a n`."""

    logits: Float[Array, "*a n"]
    """Background first, then the classes."""
    offsets: Float[Array, "*a 4"]
    """Offsets as `ops.box_codec` encodes them."""
    coefficients: Float[Array, "*a p"]
    """Factors of the prototypes, -1 to 1."""


class Head(nn.Module):
    """The head that all maps share: names `conv`, `logits`, `offsets`, `coefficients`."""

    classes: int
    anchors_per_cell: int
    prototypes: int
    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, maps: Maps) -> list[Anchored]:
        """Predictions on every map; computed as `dtype`, given as float32 at least."""

        def layer(features: int, name: str) -> Callable[[Array], Array]:
            return Conv(features, 3, padding=1, dtype=self.dtype, kernel_init=xavier, name=name)

        each = {"logits": self.classes + 1, "offsets": 4, "coefficients": self.prototypes}
        conv = layer(self.channels, "conv")
        last = {name: layer(self.anchors_per_cell * count, name) for name, count in each.items()}
        hidden = [nn.relu(conv(x)) for x in maps]
        found = [{name: self._shaped(predict(x)) for name, predict in last.items()} for x in hidden]
        return [Anchored(each["logits"], each["offsets"], jnp.tanh(each["coefficients"])) for each in found]

    def _shaped(self, y: Array) -> Array:
        return y.astype(at_least_float32(self.dtype)).reshape(*y.shape[:3], self.anchors_per_cell, -1)


class Outputs(NamedTuple):
    """What YOLACT predicts."""

    maps: list[Anchored]
    """Predictions on each map, finest first."""
    prototypes: Float[Array, "b y x p"]
    semantic: Float[Array, "b h w c"]
    """Logits of every class by itself on the finest map: for a loss alone."""


class YOLACT(nn.Module):
    """Anchors on all maps of a pyramid, prototypes from its finest: names `features`, `head`, `prototypes`, `semantic`."""

    features: nn.Module
    """Returns a list of maps of one width, finest first."""
    classes: int
    anchors_per_cell: int = 3
    prototype_count: int = 32
    channels: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Outputs:
        """Predictions in float32 at least."""
        maps = self.features(images, train=train)
        shape = self.classes, self.anchors_per_cell, self.prototype_count, self.channels, self.dtype
        prototypes = Prototypes(self.prototype_count, self.channels, self.dtype, name="prototypes")(maps[0])
        semantic = Conv(self.classes, 1, dtype=self.dtype, kernel_init=xavier, name="semantic")(maps[0])
        return Outputs(Head(*shape, name="head")(maps), prototypes, semantic.astype(at_least_float32(self.dtype)))


def yolact_fpn(backbone: Backbone, classes: int, *, finest: int = 8, channels: int = 256, **options: Any) -> YOLACT:
    """YOLACT above any backbone, of which maps with strides below `finest` are left aside.

    `options` are those of `YOLACT`: anchors_per_cell, prototype_count.
    """
    features = Pyramid(backbone, first_map(backbone, finest), channels, backbone.dtype)
    return YOLACT(features, classes, channels=channels, dtype=backbone.dtype, **options)


def yolact_resnet50(classes: int, *, norm: Norm = BatchNorm, dtype: DTypeLike = jnp.float32) -> YOLACT:
    """YOLACT-550 on ResNet-50."""
    return yolact_fpn(resnet.resnet50(None, norm=norm, dtype=dtype).backbone, classes)


def yolact_resnet101(classes: int, *, norm: Norm = BatchNorm, dtype: DTypeLike = jnp.float32) -> YOLACT:
    """YOLACT-550 on ResNet-101."""
    return yolact_fpn(resnet.resnet101(None, norm=norm, dtype=dtype).backbone, classes)


MEAN, STD = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)
"""Mean and standard deviation of the pixels as the authors have them."""
SIDES = tuple(tuple(scale * math.sqrt(ratio) for ratio in (1, 1 / 2, 2)) for scale in (24, 48, 96, 192, 384))
"""Sides of the anchors on P3 to P7: widths of the ratios 1, 1/2 and 2, which the code has for heights, too."""


def square_anchors(
    shapes: Sequence[tuple[int, int]], canvas: tuple[int, ...], sides: Sequence[Sequence[float | int]]
) -> Anchors:
    """Squares around the middles of the cells of every map, cells dividing the canvas evenly: 19,248 for 550 px and `SIDES`.

    Raises:
      ValueError: unless every map has its sides.
    """
    if len(shapes) != len(sides):
        raise ValueError(f"{len(shapes)} maps, and sides of anchors for {len(sides)}")
    boxes = []
    for (rows, columns), of_map in zip(shapes, sides, strict=True):
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        middle = np.stack([x, y], -1).reshape(-1, 1, 2) * np.asarray([canvas[1], canvas[0]])
        half = np.asarray(of_map, np.float64).reshape(1, -1, 1) / 2
        boxes.append(np.concatenate([middle - half, middle + half], -1).reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32)


def by_best_pairs(high: float = 0.5, low: float = 0.4, crowd: float = 0.7) -> Matching:
    """Matching by IoU in which every object has an anchor of its own in any case, see `ops.matching.greedy`.

    Args:
      high: from this IoU on an anchor is that of the object.
      low: below it is background; between the two it is neither.
      crowd: nor is what has more than this part of its area in an object to be ignored.
    """

    def match(boxes: Float[Array, "a 4"], target: Objects) -> Match:
        objects, real = target.boxes.astype(boxes.dtype), detection.trained_on(target)
        ious = pairwise(iou, objects, boxes)
        claimed, found = matching.greedy(ious, real), matching.by_threshold(ious, real, high=high, low=low)
        found = jnp.where(claimed >= 0, claimed, found)
        crowded = ((pairwise(covered, boxes, objects) > crowd) & (target.valid & target.ignore)[None]).any(1)
        return jnp.where((found == BACKGROUND) & crowded, IGNORED, found)

    return match


class Training(NamedTuple):
    """How YOLACT is trained; defaults are the authors'."""

    matching: Matching = by_best_pairs()
    """Matching of anchors to objects."""
    negatives: float | int = 3
    """Hard negatives for each matched anchor: the anchors of background with the largest loss."""
    box_loss: BoxLoss = smooth_l1()
    """Loss of each bounding box, see `ops.box_losses`."""
    mask_samples: int = 100
    """Matched anchors of an image, at most, whose masks are compared: drawn at random, and weighted for all of them."""
    box_weight: float | int = 1.5
    class_weight: float | int = 1
    mask_weight: float | int = 6.125
    semantic_weight: float | int = 1


PAPER = Training()
FAST = fast(0.5)
"""Fast NMS of the paper."""


def yolact(
    network: nn.Module,
    *,
    sides: Sequence[Sequence[float | int]] = SIDES,
    mean: float | Sequence[float] = MEAN,
    std: float | Sequence[float] = STD,
    training: Training = PAPER,
    score_threshold: float | int = 0.05,
    pre_nms_top_k: int = 200,
    nms: NMS = FAST,
    max_detections: int = 100,
    dtype=jnp.float32,
) -> Task:
    """The task of YOLACT; defaults are the authors'.

    Args:
      network: a `YOLACT`, with an anchor a cell for each side.
      sides: of the square anchors on every map, in pixels.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      training: how it is trained.
      score_threshold: anchors with a score above it for one class are seen by NMS, with their scores for all classes.
      pre_nms_top_k: the number of boxes of each class, the best, that NMS sees.
      nms: what a detection keeps of its score beside better ones of its class: `ops.other_nms.fast(iou)`, or another.
      max_detections: rows of the prediction of each image.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` with masks and whose prediction is `Detections` with `PrototypeMasks`. Its loss is the
      sum of `class_loss`, `box_loss` and `mask_loss`, each over all images by the number of anchors matched in all of them,
      and of `semantic_loss`, the mean over images; each has its weight in it. An object's `weight` multiplies the losses of
      the anchors matched to it.
    """

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        return detection.images(batch, mean, std, dtype)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, images(batch), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        forward_key, draw_key = jax.random.split(key)
        outputs, collections = forward_training(network, variables, images(batch), valid=batch.valid, key=forward_key)
        canvas, keys = batch.image.shape[1:3], jax.random.split(draw_key, len(batch.valid))
        found, anchors = _flat(outputs.maps, canvas, sides)
        one = lambda key, *of_image: loss_terms(key, *of_image, anchors=anchors, canvas=canvas, training=training)
        terms = jax.vmap(one)(keys, found, outputs.prototypes, outputs.semantic, detection.targets(batch))
        return detection.mean_loss(terms, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs = cast(Outputs, network.apply(model_variables(variables), images(batch), train=False))
        canvas, selecting = batch.image.shape[1:3], Selecting(score_threshold, pre_nms_top_k, nms, max_detections)
        found, anchors = _flat(outputs.maps, canvas, sides)
        one = lambda logits, offsets, size: decode(logits, offsets, anchors, size, selecting)
        detected = detection.detections(one, found.logits, found.offsets, jnp.asarray(batch.size))
        chosen = jnp.take_along_axis(found.coefficients, cast(Array, detected.index)[..., None], 1)
        chosen = jnp.where(detected.valid[..., None], chosen, 0)
        return detected.replace(
            masks=PrototypeMasks(outputs.prototypes, chosen, detected.boxes, (canvas[0], canvas[1]))
        )

    return Task(init, loss, predict)


def loss_terms(
    key: Key,
    found: Anchored,
    prototypes: Float[Array, "y x p"],
    semantic: Float[Array, "h w c"],
    target: Objects,
    *,
    anchors: Float[Array, "a 4"] | np.ndarray,
    canvas: tuple[int, ...],
    training: Training = PAPER,
) -> LossTerms:
    """Sums of `class_loss`, `box_loss` and `mask_loss` of one image by the number of its anchors that are matched.

    And `semantic_loss`, by 1. Each has its weight in it.

    Args:
      key: for the sample of anchors whose masks are compared.
      found: predictions for the anchors.
      prototypes: they cover the canvas.
      semantic: logits of every class by itself, of cells that cover the canvas.
      target: the ground truth, with masks.
      anchors: in pixels of the canvas.
      canvas: height and width in pixels.
      training: how it is trained.

    Raises:
      ValueError: if the target has no masks.
    """
    logits, offsets, coefficients = found
    masks, boxes = detection.masks(target, canvas), jnp.asarray(anchors, offsets.dtype)
    matched = training.matching(boxes, target)
    positive = matched >= 0
    weight = jnp.where(positive, detection.weights(target)[matched], 1).astype(logits.dtype)

    label = jnp.where(positive, target.labels[matched] + 1, 0)
    by_class = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    mined = hardest(by_class, matched == BACKGROUND, (training.negatives * positive.sum()).astype(jnp.int32))
    by_box = matched_box_loss(training.box_loss, offsets, boxes, target.boxes[matched], positive, box_codec.SSD)
    drawn, stands_for = _sampled(key, positive, training.mask_samples, logits.dtype)
    object_of = jnp.where(drawn.valid, matched[drawn.index], 0)
    by_mask = mask_losses(
        prototypes, coefficients[drawn.index], masks, target.boxes.astype(offsets.dtype), object_of, canvas
    )
    sums = {
        "class_loss": training.class_weight * jnp.where(positive | mined, by_class * weight, 0).sum(),
        "box_loss": training.box_weight * (by_box * weight).sum(),
        "mask_loss": training.mask_weight * stands_for * jnp.where(drawn.valid, by_mask * weight[drawn.index], 0).sum(),
        "semantic_loss": training.semantic_weight * semantic_loss(semantic, masks, target),
    }
    return LossTerms(sums, dict.fromkeys(sums, positive.sum()) | {"semantic_loss": jnp.ones((), jnp.int32)})


class _Drawn(NamedTuple):
    """Anchors drawn at random."""

    index: Int[Array, "s"]
    valid: Bool[Array, "s"]


def _sampled(key: Key, positive: Bool[Array, "a"], count: int, dtype) -> tuple[_Drawn, Float[Array, ""]]:
    """Matched anchors, `count` at most, and how many each of them stands for."""
    drawn = _Drawn(*matching.sample(key, positive, jnp.zeros_like(positive), count=count, positive_fraction=1.0))
    matched, kept = (jnp.maximum(each.sum(), 1).astype(dtype) for each in (positive, drawn.valid))
    return drawn, matched / kept


def mask_losses(
    prototypes: Float[Array, "y x p"],
    coefficients: Float[Array, "s p"],
    masks: Bool[Array, "n h w"],
    boxes: Float[Array, "n 4"],
    object_of: Int[Array, "s"],
    canvas: tuple[int, ...],
) -> Float[Array, "s"]:
    """The binary cross-entropy of each sum of prototypes and its object's mask, over the box, by the area of that.

    The mask is shrunk to the prototypes, and in cells of these the box has a margin of 1. (In the authors' code a cell of the
    mask beyond it adds 100, which has no gradient; here it adds nothing.) 0 where the box has no area.

    Args:
      prototypes: maps that cover the canvas.
      coefficients: of each sum.
      masks: of the objects, on the canvas.
      boxes: of the objects, on the canvas.
      object_of: the object of each sum.
      canvas: height and width in pixels.
    """
    shape = prototypes.shape[:2]
    logits = jnp.einsum("yxp,sp->syx", prototypes, coefficients)
    truth = shrunk(masks, shape, logits.dtype)[object_of].astype(logits.dtype)
    cells = _in_cells(boxes, shape, canvas)[object_of]
    inside = within(cells, shape)
    each = jnp.where(inside, optax.sigmoid_binary_cross_entropy(logits, truth), 0).sum((1, 2))
    covered_cells = area(cells)
    return jnp.where(covered_cells > 0, each / jnp.where(covered_cells > 0, covered_cells, 1), 0)


def within(boxes: Float[Array, "s 4"], shape: tuple[int, ...], margin: float | int = 1) -> Bool[Array, "s y x"]:
    """The cells of a map that lie in boxes with a margin, both in cells: those whose number is in between."""
    x0, y0, x1, y1 = (boxes[:, i, None] for i in range(4))
    rows, columns = (jnp.arange(n, dtype=boxes.dtype)[None] for n in shape)
    in_rows = (rows >= y0 - margin) & (rows < y1 + margin)
    in_columns = (columns >= x0 - margin) & (columns < x1 + margin)
    return in_rows[:, :, None] & in_columns[:, None]


def semantic_loss(logits: Float[Array, "h w c"], masks: Bool[Array, "n y x"], target: Objects) -> Float[Array, ""]:
    """The binary cross-entropy of whether a cell lies in an object of each class: summed over classes, mean over cells."""
    shape, classes = logits.shape[:2], logits.shape[-1]
    of_class = jax.nn.one_hot(target.labels, classes, dtype=logits.dtype)
    of_class = jnp.where(detection.trained_on(target)[:, None], of_class, 0)
    small = shrunk(masks, shape, logits.dtype).astype(logits.dtype)
    truth = (jnp.einsum("nc,nhw->hwc", of_class, small) > 0.5).astype(logits.dtype)
    return optax.sigmoid_binary_cross_entropy(logits, truth).sum() / (shape[0] * shape[1])


def decode(
    logits: Float[Array, "a n"],
    offsets: Float[Array, "a 4"],
    anchors: Float[Array, "a 4"] | np.ndarray,
    size: Int[Array, "2"],
    selecting: Selecting,
) -> Selection:
    """The detections of one image, the best first, their boxes in pixels of the canvas and cut at the content.

    Args:
      logits: background first, then the classes.
      offsets: of the boxes from the anchors.
      anchors: in pixels of the canvas.
      size: height and width of the content in pixels.
      selecting: of boxes within each class; the `index` of a detection is its anchor. Its threshold is for the best class of
        an anchor: other scores of that go on to NMS, however low.
    """
    boxes = box_codec.decode(offsets, jnp.asarray(anchors), box_codec.SSD)
    scores = jax.nn.softmax(logits)[:, 1:]
    raw_scores.tell(lambda: raw_scores.Candidates(clip(boxes, size), scores))
    kept = jnp.where(scores.max(-1, keepdims=True) > selecting.score_threshold, scores, 0)
    return best_of_each_class(clip(boxes, size), kept, **selecting._replace(score_threshold=0)._asdict())


def _in_cells(boxes: Float[Array, "n 4"], shape: tuple[int, ...], canvas: tuple[int, ...]) -> Float[Array, "n 4"]:
    """Boxes of the canvas in cells of a map that covers it."""
    y, x = (cells / pixels for cells, pixels in zip(shape, canvas, strict=True))
    return boxes * jnp.asarray([[x, y, x, y]], boxes.dtype)


def _flat(
    maps: Sequence[Anchored], canvas: tuple[int, ...], sides: Sequence[Sequence[float | int]]
) -> tuple[Anchored, Anchors]:
    """The predictions of all maps in one row, and the anchors that they are about."""
    shapes = [(x.logits.shape[1], x.logits.shape[2]) for x in maps]
    anchors = square_anchors(shapes, canvas, sides)
    rows = Anchored(
        *(
            jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in each], 1)
            for each in zip(*maps, strict=True)
        )
    )
    if len(anchors) != rows.logits.shape[1]:
        raise ValueError(f"the network has outputs for {rows.logits.shape[1]} anchors, and there are {len(anchors)}")
    return rows, anchors

"""YOLOX (arXiv:2107.08430): every cell predicts one box; SimOTA says which cells are trained on which object.

Where the paper says little, the authors' code is followed.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxvision.nn.conv import ConvNormAct, max_pool
from jaxvision.nn.darknet import enlarged
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.ops import raw_scores
from jaxvision.ops.box_losses import BoxLoss, squared_iou
from jaxvision.ops.boxes import area, clip, from_centre, iou, to_centre
from jaxvision.ops.candidates import after_top_k, best_candidates
from jaxvision.ops.matching import Match
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.selection import Selecting, Selection
from jaxvision.ops.simota import simota
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.tasks.yolo import Anchors, anchors_of
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables

yolox_norm: Norm = partial(BatchNorm, epsilon=1e-3, momentum=0.97)
"""Batch normalisation with YOLOX's constants."""
uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""What PyTorch fills a kernel with by default."""
PRIOR = 0.01
"""What objectness and the probability of each class are at first."""
COARSEST = 32
"""Pixels a cell of the last map of `CSPDarknet`."""

Maps = Sequence[Float[Array, "b _ _ _"]]


class Make(NamedTuple):
    """How layers are made, throughout a network."""

    depthwise: bool = False
    """Whether what would be 3x3 is `Separable`, as in YOLOX-Nano."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = yolox_norm

    def __call__(self, channels: int, kernel: int, stride: int = 1, groups: int = 1, *, name: str) -> ConvNormAct:
        """Convolution, normalisation, SiLU."""
        return ConvNormAct(
            channels,
            kernel,
            stride,
            groups=groups,
            norm=self.norm,
            activation=nn.silu,
            dtype=self.dtype,
            kernel_init=uniform,
            name=name,
        )

    def spatial(self, channels: int, stride: int = 1, *, name: str) -> nn.Module:
        """A layer that sees 3x3 pixels."""
        return Separable(self, channels, stride, name=name) if self.depthwise else self(channels, 3, stride, name=name)


class Separable(nn.Module):
    """A depthwise 3x3 layer, then a 1x1 one."""

    make: Make
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run both."""
        channels = x.shape[-1]
        x = self.make(channels, 3, self.stride, groups=channels, name="depthwise")(x, train=train)
        return self.make(self.channels, 1, name="pointwise")(x, train=train)


class CSPLayer(nn.Module):
    """Blocks of 1x1 and 3x3 on half of the channels, joined by as many that pass them by (arXiv:1911.11929)."""

    make: Make
    channels: int
    blocks: int
    shortcut: bool = False
    """Whether what enters a block is added to what leaves it."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b h w o"]:
        """Run the layer."""
        half = self.channels // 2
        aside = self.make(half, 1, name="aside")(x, train=train)
        x = self.make(half, 1, name="enter")(x, train=train)
        for number in range(1, self.blocks + 1):
            y = self.make(half, 1, name=f"block{number}_reduce")(x, train=train)
            y = self.make.spatial(half, name=f"block{number}_conv")(y, train=train)
            x = settled(x + y) if self.shortcut else y
        return self.make(self.channels, 1, name="leave")(jnp.concatenate([x, aside], -1), train=train)


class PyramidPooling(nn.Module):
    """A 1x1 layer on half of the channels, what `with_neighbours` makes of it, and another one (arXiv:1406.4729)."""

    make: Make

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        """Run the layer."""
        channels = x.shape[-1]
        x = self.make(channels // 2, 1, name="enter")(x, train=train)
        return self.make(channels, 1, name="leave")(with_neighbours(x), train=train)


class CSPDarknet(nn.Module):
    """The backbone: a stem on every second pixel, and four stages."""

    width: int
    """Channels of the stem; every stage has twice as many as what is before it."""
    blocks: int
    """Blocks of the first stage and of the last; the two between have three times as many."""
    make: Make = Make()

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps of the last three stages, finest first: strides 8, 16, 32.

        Raises:
          ValueError: unless both sides of the images are multiples of 32.
        """
        if any(side % COARSEST for side in images.shape[1:3]):
            raise ValueError(
                f"sides must be multiples of {COARSEST} pixels, those of the images are {images.shape[1:3]}"
            )
        x, features = self.make(self.width, 3, name="stem")(every_second(images), train=train), []
        for stage in range(1, 5):
            channels = self.width * 2**stage
            x = self.make.spatial(channels, 2, name=f"stage{stage}_conv")(x, train=train)
            if stage == 4:
                x = PyramidPooling(self.make, name="stage4_pooling")(x, train=train)
            blocks = self.blocks * (3 if stage in (2, 3) else 1)
            x = CSPLayer(self.make, channels, blocks, shortcut=stage < 4, name=f"stage{stage}_csp")(x, train=train)
            features.append(x)
        return features[1:]


class PathAggregation(nn.Module):
    """A path from coarse to fine and back, each map joined by its neighbour (arXiv:1803.01534)."""

    make: Make
    blocks: int

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        """Maps of the same number, sizes and channels, finest first."""
        x, reduced = maps[-1], []
        for level in reversed(range(1, len(maps))):
            finer = maps[level - 1]
            x = self.make(finer.shape[-1], 1, name=f"down{level}_reduce")(x, train=train)
            reduced.append(x)
            x = self._joined(f"down{level}_csp", enlarged(x), finer, finer.shape[-1], train)
        outputs = [x]
        for level, coarser in enumerate(reversed(reduced), 1):
            x = self.make.spatial(x.shape[-1], 2, name=f"up{level}_conv")(x, train=train)
            x = self._joined(f"up{level}_csp", x, coarser, maps[level].shape[-1], train)
            outputs.append(x)
        return outputs

    def _joined(self, name: str, a: Array, b: Array, channels: int, train: bool) -> Array:
        return CSPLayer(self.make, channels, self.blocks, name=name)(jnp.concatenate([a, b], -1), train=train)


class DecoupledHead(nn.Module):
    """Two branches of every map, one for the classes, and one for box and objectness; no two maps share anything."""

    make: Make
    classes: int

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        """Outputs as those of `YOLOX`."""
        return [self._outputs(level, x, maps[0].shape[-1], train) for level, x in enumerate(maps, 1)]

    def _outputs(self, level: int, x: Array, channels: int, train: bool) -> Array:
        x = self.make(channels, 1, name=f"stem{level}")(x, train=train)
        branches = {"box": x, "class": x}
        for name in branches:
            for number in (1, 2):
                layer = self.make.spatial(channels, name=f"{name}{level}_conv{number}")
                branches[name] = layer(branches[name], train=train)
        low = log(PRIOR / (1 - PRIOR))
        predicted = [
            self._predict(f"box{level}", 4, 0.0)(branches["box"]),
            self._predict(f"objectness{level}", 1, low)(branches["box"]),
            self._predict(f"class{level}", self.classes, low)(branches["class"]),
        ]
        return jnp.concatenate(predicted, -1).astype(at_least_float32(self.make.dtype))

    def _predict(self, name: str, channels: int, start: float) -> nn.Conv:
        dtype = self.make.dtype
        return nn.Conv(
            channels,
            (1, 1),
            dtype=dtype,
            param_dtype=at_least_float32(dtype),
            kernel_init=uniform,
            bias_init=nn.initializers.constant(start),
            name=name,
        )


class YOLOX(nn.Module):
    """A backbone, the maps of which are aggregated, and the head: names `backbone`, `neck`, `head`."""

    backbone: nn.Module
    """Returns maps, finest first, each with half the rows and columns of the one before."""
    classes: int
    blocks: int
    """Blocks of every CSP layer between backbone and head."""
    make: Make = Make()

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """`b h w (5 + classes)` for every map: `tx ty tw th`, objectness, classes.

        They are computed as `make.dtype` and given as float32 at least. `tx ty` is where the centre is from the corner of the
        cell, `tw th` the logarithm of the sides, in cells.
        """
        maps = self.backbone(images, train=train)
        maps = PathAggregation(self.make, self.blocks, name="neck")(maps, train=train)
        return DecoupledHead(self.make, self.classes, name="head")(maps, train=train)


def every_second(images: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 4*c"]:
    """The four pixels of every 2x2 square as channels: top left, bottom left, top right, bottom right."""
    return jnp.concatenate([images[:, y::2, x::2] for x in (0, 1) for y in (0, 1)], -1)


def with_neighbours(x: Float[Array, "b h w c"]) -> Float[Array, "b h w 4*c"]:
    """The map beside the largest values of every 5x5, 9x9 and 13x13 pixels of it."""
    maps = [x]
    for _ in range(3):  # 5x5 twice is 9x9, three times 13x13
        maps.append(max_pool(maps[-1], 5, stride=1, padding=2))
    return jnp.concatenate(maps, -1)


def _yolox(classes: int, width: int, blocks: int, make: Make) -> YOLOX:
    return YOLOX(CSPDarknet(width, blocks, make), classes, blocks, make)


def yolox_nano(classes: int, *, norm: Norm = yolox_norm, dtype: DTypeLike = jnp.float32) -> YOLOX:
    """YOLOX-Nano, depthwise."""
    return _yolox(classes, 16, 1, Make(True, dtype, norm))


def yolox_tiny(classes: int, *, norm: Norm = yolox_norm, dtype: DTypeLike = jnp.float32) -> YOLOX:
    """YOLOX-Tiny."""
    return _yolox(classes, 24, 1, Make(False, dtype, norm))


def yolox_s(classes: int, *, norm: Norm = yolox_norm, dtype: DTypeLike = jnp.float32) -> YOLOX:
    """YOLOX-S."""
    return _yolox(classes, 32, 1, Make(False, dtype, norm))


def yolox_m(classes: int, *, norm: Norm = yolox_norm, dtype: DTypeLike = jnp.float32) -> YOLOX:
    """YOLOX-M."""
    return _yolox(classes, 48, 2, Make(False, dtype, norm))


def yolox_l(classes: int, *, norm: Norm = yolox_norm, dtype: DTypeLike = jnp.float32) -> YOLOX:
    """YOLOX-L."""
    return _yolox(classes, 64, 3, Make(False, dtype, norm))


def yolox_x(classes: int, *, norm: Norm = yolox_norm, dtype: DTypeLike = jnp.float32) -> YOLOX:
    """YOLOX-X."""
    return _yolox(classes, 80, 4, Make(False, dtype, norm))


GREY = 114.0
"""Level of the canvas outside the content."""
BOX = 5.0
"""Weight of `box_loss`."""
EPSILON = 1e-8
"""Added to sides, in cells, before their logarithm is taken."""


def yolox(
    network: nn.Module,
    *,
    box_loss: BoxLoss = squared_iou,
    score_threshold: float | int = 0.01,
    nms: NMS = greedy(0.65),
    pre_nms_top_k: int = 1000,
    max_detections: int = 100,
    dtype=jnp.float32,
) -> Task:
    """The task of YOLOX.

    Pixels are given as they are, 0-255; the canvas outside the content is grey, 114.

    Args:
      network: a `YOLOX`.
      box_loss: the loss of each bounding box, see `ops.box_losses`.
      score_threshold: detections have a score, objectness times class, above it.
      nms: what a detection keeps of its score beside better ones of its class: `ops.nms.greedy(iou)`, or one of
        `ops.other_nms`.
      pre_nms_top_k: the number of boxes, the best, each with its best class, that NMS sees.
      max_detections: rows of the prediction of each image.
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
        outputs, collections = forward_training(network, variables, pixels(batch), valid=batch.valid, key=key)
        predicted, cells = _flat(outputs, batch.image.shape)
        terms = jax.vmap(lambda p, t: loss_terms(p, cells, t, box_loss))(predicted, detection.targets(batch))
        l1 = terms.sums["l1_loss"] * _l1(batch).astype(predicted.dtype)
        return detection.mean_loss(terms._replace(sums=terms.sums | {"l1_loss": l1}), batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs: Sequence[Array] = network.apply(model_variables(variables), pixels(batch), train=False)  # type: ignore[assignment]
        predicted, cells = _flat(outputs, batch.image.shape)

        selecting = Selecting(score_threshold, pre_nms_top_k, nms, max_detections)
        one = lambda p, s: decode(p, cells, s, selecting)
        return detection.detections(one, predicted, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    predicted: Float[Array, "a c"], cells: Anchors, target: Objects, box_loss: BoxLoss = squared_iou
) -> LossTerms:
    """Sums of `box_loss`, `objectness_loss`, `class_loss`, `l1_loss` of one image, by its number of cells with an object."""
    owner = assigned(predicted, cells, target)
    positive, target_boxes = owner >= 0, target.boxes[owner].astype(predicted.dtype)
    weight = jnp.where(positive, detection.weights(target)[owner], 1).astype(predicted.dtype)

    offsets = jnp.where(positive[:, None], predicted[:, :4], 0)  # what is not trained may be as large as it likes
    found, wanted = boxes_of(offsets, cells), _encoded(target_boxes, cells)
    classes = jax.nn.one_hot(target.labels[owner], predicted.shape[1] - 5, dtype=predicted.dtype)
    wanted_classes = classes * jax.lax.stop_gradient(iou(found, target_boxes))[:, None]
    terms = {
        "box_loss": BOX * box_loss(offsets, wanted, found, target_boxes),
        "objectness_loss": optax.sigmoid_binary_cross_entropy(predicted[:, 4], positive.astype(predicted.dtype)),
        "class_loss": optax.sigmoid_binary_cross_entropy(predicted[:, 5:], wanted_classes).sum(-1),
        "l1_loss": jnp.abs(offsets - wanted).sum(-1),
    }
    everywhere = ("objectness_loss",)
    sums = {name: jnp.where(positive | (name in everywhere), x * weight, 0).sum() for name, x in terms.items()}
    return LossTerms(sums, dict.fromkeys(sums, positive.sum()))


def decode(
    predicted: Float[Array, "a c"],
    cells: Anchors,
    size: Int[Array, "2"],
    selecting: Selecting,
) -> Selection:
    """The detections of one image, the best first; boxes, cut at the content only after NMS, are in pixels of the canvas.

    Args:
      predicted: `tx ty tw th`, objectness and classes of every cell, as `YOLOX` gives them.
      cells: which cell of which map each row is.
      size: height and width of the content in pixels.
      selecting: of cells, each with its best class; scores are objectness times class; `index` is the cell of a detection.
    """
    scores = jax.nn.sigmoid(predicted[:, 4:5]) * jax.nn.sigmoid(predicted[:, 5:])
    raw_scores.tell(lambda: raw_scores.Candidates(boxes_of(predicted, cells), scores))
    best, index = top_k(scores.max(1), min(selecting.pre_nms_top_k, len(scores)))
    boxes, labels = boxes_of(predicted, cells)[index], scores.argmax(1)[index].astype(jnp.int32)
    valid = area(clip(boxes, size)) > 0
    found = best_candidates(boxes, labels, best, valid, **after_top_k(selecting)).renumbered(index)
    return found._replace(boxes=clip(found.boxes, size))


def assigned(predicted: Float[Array, "a c"], cells: Anchors, target: Objects) -> Match:
    """The number of the object that each cell of one image is trained on, or -1."""
    predicted = jax.lax.stop_gradient(predicted)
    log_scores = jax.nn.log_sigmoid(predicted[:, 4:5]) + jax.nn.log_sigmoid(predicted[:, 5:])
    strides = jnp.asarray(cells.strides, predicted.dtype)
    return simota(
        boxes_of(predicted, cells),
        log_scores / 2,
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
    return jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in outputs], 1), cells

"""YOLOv3 (arXiv:1804.02767) and YOLOv3-tiny, with Darknet's loss: one cell and one prior is responsible for an object.

Where the paper says little, Darknet's code is followed: the centre's logistic regression, the larger weight of smaller
boxes, what counts as ignored.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxvision.nn.darknet import Darknet53, DarknetTiny, Numbered, darknet_norm, enlarged
from jaxvision.nn.norm import Norm
from jaxvision.ops import box_codec
from jaxvision.ops.boxes import area, clip, iou, pairwise
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.selection import Selecting, Selection, best_of_each_class
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables

Outputs = list[Float[Array, "b _ _ _ _"]]


class YOLOv3(nn.Module):
    """Outputs on the last three maps of Darknet-53, each but the coarsest joined by the one below, enlarged."""

    backbone: Darknet53
    classes: int
    priors: int = 3
    """Priors of every cell of each map."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Outputs:
        """`b h w priors (5 + classes)`, coarsest first: `tx ty tw th`, objectness, classes; sides are multiples of 32 px."""
        maps = self.backbone(images, train=train)
        layer = Numbered(self.backbone.dtype, self.backbone.norm, train, self.backbone.convolutions)
        outputs, x = [], maps[-1]
        for number, joined in enumerate(reversed(maps[-3:])):
            channels = joined.shape[-1] // 2
            if number:
                x = jnp.concatenate([enlarged(layer(x, channels, 1)), joined], -1)
            for _ in range(2):
                x = layer(layer(x, channels, 1), 2 * channels, 3)
            x = layer(x, channels, 1)
            outputs.append(layer.output(layer(x, 2 * channels, 3), self.priors, 5 + self.classes))
        return outputs


class YOLOv3Tiny(nn.Module):
    """Outputs on the two maps of `DarknetTiny`, the finer one joined by the coarser, enlarged."""

    backbone: DarknetTiny
    classes: int
    priors: int = 3

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Outputs:
        """Outputs as those of `YOLOv3`, on two maps."""
        fine, coarse = self.backbone(images, train=train)
        layer = Numbered(self.backbone.dtype, self.backbone.norm, train, self.backbone.convolutions)
        channels = fine.shape[-1]
        x = layer(coarse, channels, 1)
        first = layer.output(layer(x, 2 * channels, 3), self.priors, 5 + self.classes)
        y = enlarged(layer(x, channels // 2, 1))
        y = layer(jnp.concatenate([y, fine], -1), channels, 3)
        return [first, layer.output(y, self.priors, 5 + self.classes)]


def yolov3(classes: int, *, norm: Norm = darknet_norm, dtype: DTypeLike = jnp.float32) -> YOLOv3:
    """YOLOv3."""
    return YOLOv3(Darknet53(norm=norm, dtype=dtype), classes)


def yolov3_tiny(classes: int, *, norm: Norm = darknet_norm, dtype: DTypeLike = jnp.float32) -> YOLOv3Tiny:
    """YOLOv3-tiny."""
    return YOLOv3Tiny(DarknetTiny(norm=norm, dtype=dtype), classes)


Priors = Sequence[Sequence[tuple[float | int, float | int]]]
"""Widths and heights in pixels of the priors of each map, coarsest first."""
YOLOV3: Priors = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
"""Priors for COCO at 416 px, strides 32, 16, 8."""
YOLOV3_TINY: Priors = (((81, 82), (135, 169), (344, 319)), ((10, 14), (23, 27), (37, 58)))
"""Priors for COCO at 416 px, strides 32, 16."""


class Anchors(NamedTuple):
    """What each of `a` predictions of an image is about: rows, columns, priors of one map after another."""

    cells: Float[np.ndarray, "a 2"]
    """Column and row."""
    priors: Float[np.ndarray, "a 2"]
    strides: Float[np.ndarray, "a 1"]
    """Pixels a cell."""


def yolo(
    network: nn.Module,
    priors: Priors,
    *,
    ignore: float = 0.7,
    score_threshold: float | int = 0.005,
    nms: NMS = greedy(0.45),
    pre_nms_top_k: int = 400,
    max_detections: int = 100,
    dtype=jnp.float32,
) -> Task:
    """The task of YOLOv3.

    Pixels are 0 to 1; the canvas outside the content is grey, 0.5.

    Args:
      network: a `YOLOv3` or `YOLOv3Tiny`: one output for each map of `priors`.
      priors: of its maps: `YOLOV3`, `YOLOV3_TINY`, or one's own.
      ignore: a prediction with a larger IoU with an object is no background.
      score_threshold: detections have a score, objectness times class, above it.
      nms: what a detection keeps of its score beside better ones of its class: `ops.nms.greedy(iou)`, or one of
        `ops.other_nms`.
      pre_nms_top_k: the number of boxes of each class, the best, that NMS sees.
      max_detections: rows of the prediction of each image.
      dtype: of the pixels.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `box_loss`,
      `objectness_loss` and `class_loss`, each the mean over the images of its sum in each.
    """

    def pixels(batch: Batch) -> Array:
        return detection.images(batch, 127.5, 255.0, dtype) + jnp.asarray(0.5, dtype)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, pixels(batch), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        outputs, collections = forward_training(network, variables, pixels(batch), valid=batch.valid, key=key)
        predicted, anchors = _flat(outputs, priors, batch.image.shape)
        canvas = (batch.image.shape[1], batch.image.shape[2])
        terms = jax.vmap(lambda p, t: loss_terms(p, anchors, t, canvas, ignore))(predicted, detection.targets(batch))
        return detection.mean_loss(terms, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs: Any = network.apply(model_variables(variables), pixels(batch), train=False)
        predicted, anchors = _flat(outputs, priors, batch.image.shape)

        selecting = Selecting(score_threshold, pre_nms_top_k, nms, max_detections)
        one = lambda p, s: decode(p, anchors, s, selecting)
        return detection.detections(one, predicted, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    predicted: Float[Array, "a c"], anchors: Anchors, target: Objects, canvas: tuple[int, int], ignore: float = 0.7
) -> LossTerms:
    """Sums of `box_loss`, `objectness_loss` and `class_loss` of one image, which counts as one."""
    boxes, real = target.boxes.astype(predicted.dtype), detection.trained_on(target)
    owner = responsible(target.replace(boxes=boxes, valid=real), anchors)
    positive = owner >= 0
    target_boxes = boxes[owner]
    weight = jnp.where(positive, detection.weights(target)[owner], 1).astype(predicted.dtype)

    centre, side = box_codec.encode_yolo(target_boxes, *(jnp.asarray(each, predicted.dtype) for each in anchors))
    smaller = 2 - area(target_boxes) / (canvas[0] * canvas[1])
    by_centre = optax.sigmoid_binary_cross_entropy(predicted[:, :2], centre).sum(-1)
    by_side = jnp.square(predicted[:, 2:4] - side).sum(-1) / 2
    by_class = optax.sigmoid_binary_cross_entropy(
        predicted[:, 5:], jax.nn.one_hot(target.labels[owner], predicted.shape[1] - 5, dtype=predicted.dtype)
    ).sum(-1)

    found = jax.lax.stop_gradient(boxes_of(predicted, anchors))
    near_object = ((pairwise(iou, boxes, found) > ignore) & (real | (target.valid & target.ignore))[:, None]).any(0)
    by_objectness = optax.sigmoid_binary_cross_entropy(predicted[:, 4], positive.astype(predicted.dtype))
    sums = {
        "box_loss": jnp.where(positive, (by_centre + by_side) * smaller * weight, 0).sum(),
        "objectness_loss": jnp.where(positive | ~near_object, by_objectness * weight, 0).sum(),
        "class_loss": jnp.where(positive, by_class * weight, 0).sum(),
    }
    return LossTerms(sums, dict.fromkeys(sums, jnp.ones((), predicted.dtype)))


def decode(
    predicted: Float[Array, "a c"],
    anchors: Anchors,
    size: Int[Array, "2"],
    selecting: Selecting,
) -> Selection:
    """The detections of one image, the best first; boxes, cut at the content only after NMS, are in pixels of the canvas.

    Args:
      predicted: `tx ty tw th`, objectness and classes of every anchor, as `YOLOv3` gives them.
      anchors: cell and prior of each.
      size: height and width of the content in pixels.
      selecting: of boxes within each class, whose score is objectness times class; the `index` of a detection is its anchor.
    """
    boxes = boxes_of(predicted, anchors)
    inside = area(clip(boxes, size)) > 0
    scores = jax.nn.sigmoid(predicted[:, 4:5]) * jax.nn.sigmoid(predicted[:, 5:])
    found = best_of_each_class(
        boxes,
        jnp.where(inside[:, None], scores, -1),
        **selecting._asdict(),
    )
    return found._replace(boxes=clip(found.boxes, size))  # cut after NMS, as Darknet has it


def responsible(objects: Objects, anchors: Anchors) -> Int[Array, "a"]:
    """The number of the object that each prediction is responsible for, or -1.

    For an object it is the prediction in the cell that holds its centre, of the prior whose shape has the highest
    IoU with its own, of all maps; of equal ones the first. Of several objects with the same one, the last has it.
    """
    cells, priors, strides = (jnp.asarray(each, objects.boxes.dtype) for each in anchors)
    side = objects.boxes[:, 2:] - objects.boxes[:, :2]
    shape = lambda size: jnp.concatenate([-size / 2, size / 2], -1)
    shape_ious = pairwise(iou, shape(side), shape(priors))
    centre = (objects.boxes[:, None, :2] + objects.boxes[:, None, 2:]) / 2
    inside = (jnp.floor(centre / strides[None]).astype(jnp.int32) == cells[None].astype(jnp.int32)).all(-1)
    which = jnp.where(objects.valid & inside.any(1), jnp.where(inside, shape_ious, -1).argmax(1), len(cells))
    number = jnp.arange(len(side), dtype=jnp.int32)
    return jnp.full(len(cells), -1, jnp.int32).at[which].max(number, mode="drop")


def boxes_of(predicted: Float[Array, "a c"], anchors: Anchors) -> Float[Array, "a 4"]:
    """The boxes that are predicted, in pixels of the canvas."""
    return box_codec.decode_yolo(predicted[:, :4], *(jnp.asarray(each, predicted.dtype) for each in anchors))


def anchors_of(shapes: Sequence[tuple[int, int]], priors: Priors, canvas: tuple[int, int]) -> Anchors:
    """The anchors of maps of these rows and columns.

    Raises:
      ValueError: unless there are priors for every map, and each divides the canvas into square cells of whole pixels.
    """
    if len(shapes) != len(priors):
        raise ValueError(f"the network has {len(shapes)} maps, and there are priors for {len(priors)}")
    parts = []
    for (rows, columns), sizes in zip(shapes, priors, strict=True):
        stride = canvas[0] // rows
        if (rows * stride, columns * stride) != canvas:
            raise ValueError(f"a canvas of {canvas} pixels has no square cells for a map of {(rows, columns)}")
        y, x, prior = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(len(sizes)), indexing="ij")
        sides = np.asarray(sizes, np.float32)[prior.reshape(-1)]
        cells = np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)
        parts.append((cells, sides, np.full((len(cells), 1), stride, np.float32)))
    return Anchors(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _flat(outputs: Sequence[Array], priors: Priors, images: tuple[int, ...]) -> tuple[Float[Array, "b a c"], Anchors]:
    """The outputs of all maps in one row, and what they are about."""
    anchors = anchors_of([(x.shape[1], x.shape[2]) for x in outputs], priors, (images[1], images[2]))
    return jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in outputs], 1), anchors

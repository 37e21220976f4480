"""YOLO, the first (arXiv:1506.02640): a grid of cells, each with one class and a few boxes; squared errors alone.

The plainest of the detectors with one stage, to learn and to teach with.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxvision.nn.conv import Conv
from jaxvision.nn.darknet import darknet_layer, darknet_norm, darknet_normal
from jaxvision.nn.norm import Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import pixels
from jaxvision.ops.boxes import clip, from_centre, iou, to_centre
from jaxvision.ops.nms import NMS, greedy
from jaxvision.ops.selection import Selection, best_of_each_class
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables


class GridHead(nn.Module):
    """YOLO's grid (arXiv:1506.02640) over the last map of a backbone, by convolutions where the paper has dense layers."""

    backbone: nn.Module
    """Returns a list of maps; the grid has the cells of the last."""
    classes: int
    boxes: int = 2
    """Boxes of every cell."""
    channels: int = 512
    """Channels of the convolution before the outputs."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = darknet_norm

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b y x o"]:
        """`b rows columns (5 boxes + classes)`, as `yolo_v1` takes it, in float32 at least."""
        x = self.backbone(images, train=train)[-1]
        x = darknet_layer(self.channels, 3, dtype=self.dtype, norm=self.norm, name="before")(x, train=train)
        x = Conv(5 * self.boxes + self.classes, 1, dtype=self.dtype, kernel_init=darknet_normal, name="grid")(x)
        return x.astype(at_least_float32(self.dtype))


def yolo_v1(
    network: nn.Module,
    *,
    boxes: int = 2,
    coordinates: float | int = 5.0,
    no_object: float | int = 0.5,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    score_threshold: float | int = 0.005,
    nms: NMS = greedy(0.5),
    max_detections: int = 100,
    dtype=jnp.float32,
) -> Task:
    """The task of YOLO.

    Args:
      network: returns `b rows columns (5 * boxes + classes)`: of every box `x y` in its cell, 0 to 1, the square roots of
        width and height as fractions of the canvas, and the confidence; then the classes. `GridHead`, say.
      boxes: of every cell.
      coordinates: weight of the errors of places and sizes.
      no_object: weight of the confidence of boxes that are responsible for nothing.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      score_threshold: detections have a score, confidence times class, above it.
      nms: what a detection keeps of its score beside better ones of its class: `ops.nms.greedy(iou)`, or one of
        `ops.other_nms`.
      max_detections: rows of the prediction of each image.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `box_loss`,
      `confidence_loss` and `class_loss`, each the mean over the images of its sum in each.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, detection.images(batch, mean, std, dtype), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        images = detection.images(batch, mean, std, dtype)
        outputs, collections = forward_training(network, variables, images, valid=batch.valid, key=key)
        canvas = (batch.image.shape[1], batch.image.shape[2])
        terms = jax.vmap(lambda o, t: loss_terms(o, t, canvas, boxes, coordinates, no_object))(
            outputs, detection.targets(batch)
        )
        return detection.mean_loss(terms, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs: Any = network.apply(model_variables(variables), detection.images(batch, mean, std, dtype), train=False)
        canvas = (batch.image.shape[1], batch.image.shape[2])

        options = {"score_threshold": score_threshold, "nms": nms, "max_detections": max_detections}
        one = lambda o, s: decode(o, canvas, s, boxes=boxes, **options)
        return detection.detections(one, outputs, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    output: Float[Array, "h w c"],
    target: Objects,
    canvas: tuple[int, int],
    boxes: int = 2,
    coordinates: float | int = 5.0,
    no_object: float | int = 0.5,
) -> LossTerms:
    """Sums of `box_loss`, `confidence_loss` and `class_loss` of one image, which counts as one: equation 3 of the paper.

    A cell is about the object whose centre it holds, of several the last; of its boxes the one with the highest IoU
    with it is responsible, and its confidence should be that IoU. An object's `weight` multiplies what it adds.
    """
    predicted, classes = _split(output, boxes)
    owner = _owner(target, output.shape[:2], canvas)
    positive = owner >= 0
    target_boxes = target.boxes[owner].astype(output.dtype)
    weight = detection.weights(target)[owner].astype(output.dtype)

    ious = jax.lax.stop_gradient(iou(boxes_of(predicted, canvas), target_boxes[:, :, None]))
    best = jax.nn.one_hot(ious.argmax(-1), boxes, dtype=bool)  # of equal ones the first
    chosen = positive[..., None] & best

    by_place = jnp.square(predicted[..., :4] - _encoded(target_boxes, output.shape[:2], canvas)[:, :, None]).sum(-1)
    by_confidence = jnp.square(predicted[..., 4] - jnp.where(chosen, ious, 0))
    by_class = jnp.square(classes - jax.nn.one_hot(target.labels[owner], classes.shape[-1], dtype=output.dtype)).sum(-1)
    confidence_weight = jnp.where(chosen, weight[..., None], no_object)
    sums = {
        "box_loss": coordinates * jnp.where(chosen, by_place * weight[..., None], 0).sum(),
        "confidence_loss": (by_confidence * confidence_weight).sum(),
        "class_loss": jnp.where(positive, by_class * weight, 0).sum(),
    }
    return LossTerms(sums, dict.fromkeys(sums, jnp.ones((), output.dtype)))


def decode(
    output: Float[Array, "h w c"],
    canvas: tuple[int, int],
    size: Int[Array, "2"],
    *,
    boxes: int,
    score_threshold: float | int,
    nms: NMS,
    max_detections: int,
) -> Selection:
    """The detections of one image, the best first, their boxes in pixels of the canvas and cut at the content.

    Args:
      output: of the network for this image, see `yolo_v1`.
      canvas: its height and width in pixels, which the grid covers.
      size: height and width of the content in pixels.
      boxes: of every cell.
      score_threshold: detections have a score, confidence times class, above it.
      nms: what a detection keeps of its score beside better ones of its class; it sees all boxes.
      max_detections: rows of the result; `index` counts the boxes of one cell after another.
    """
    predicted, classes = _split(output, boxes)
    found = boxes_of(predicted, canvas).reshape(-1, 4)
    scores = predicted[..., 4:] * classes[:, :, None]
    return best_of_each_class(
        clip(found, size),
        scores.reshape(len(found), -1),
        score_threshold=score_threshold,
        pre_nms_top_k=len(found),
        nms=nms,
        max_detections=max_detections,
    )


def boxes_of(predicted: Float[Array, "h w k c"], canvas: tuple[int, int]) -> Float[Array, "h w k 4"]:
    """The boxes that are predicted, in pixels of the canvas."""
    rows, columns = predicted.shape[:2]
    y, x = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    cells = jnp.stack([x, y], -1)[:, :, None].astype(predicted.dtype)
    extent = jnp.asarray([canvas[1], canvas[0]], predicted.dtype).reshape(1, 1, 1, 2)
    number = jnp.asarray([columns, rows], predicted.dtype).reshape(1, 1, 1, 2)
    centre = (predicted[..., :2] + cells) / number * extent
    return from_centre(jnp.concatenate([centre, jnp.square(predicted[..., 2:4]) * extent], -1))


def _encoded(boxes: Float[Array, "h w 4"], shape: tuple[int, ...], canvas: tuple[int, int]) -> Float[Array, "h w 4"]:
    """What the responsible box of each cell should be: place in the cell, and roots of the sides."""
    extent = jnp.asarray([canvas[1], canvas[0]], boxes.dtype).reshape(1, 1, 2)
    number = jnp.asarray([shape[1], shape[0]], boxes.dtype).reshape(1, 1, 2)
    box = to_centre(boxes)
    place = box[..., :2] / extent * number
    return jnp.concatenate([place - jnp.floor(place), jnp.sqrt(jnp.maximum(box[..., 2:], 0) / extent)], -1)


def _owner(target: Objects, shape: tuple[int, ...], canvas: tuple[int, int]) -> Int[Array, "h w"]:
    """The number of the object whose centre each cell holds, or -1."""
    rows, columns = shape[0], shape[1]
    cells = _cell(target.boxes, canvas, rows, columns)
    real = detection.trained_on(target) & (cells >= 0).all(-1) & (cells[:, 0] < columns) & (cells[:, 1] < rows)
    flat = jnp.where(real, cells[:, 1] * columns + cells[:, 0], rows * columns)
    number = jnp.arange(len(flat), dtype=jnp.int32)
    return jnp.full(rows * columns, -1, jnp.int32).at[flat].max(number, mode="drop").reshape(rows, columns)


def _cell(boxes: Float[Array, "n 4"], canvas: tuple[int, int], rows: int, columns: int) -> Int[Array, "n 2"]:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    scale = jnp.asarray([columns / canvas[1], rows / canvas[0]], boxes.dtype).reshape(1, 2)
    return jnp.floor(centre * scale).astype(jnp.int32)


def _split(output: Float[Array, "h w c"], boxes: int) -> tuple[Float[Array, "h w k 5"], Float[Array, "h w n"]]:
    """The boxes and the classes of every cell."""
    return output[..., : 5 * boxes].reshape(*output.shape[:2], boxes, 5), output[..., 5 * boxes :]

"""Fast R-CNN (arXiv:1504.08083): regions that are given, classified; all are pooled from maps of the whole image."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxvision.nn import vgg
from jaxvision.nn.fpn import FPN, Backbone, first_map
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.roi_heads import BoxHead, Last, Pool, RegionScores, pool_last
from jaxvision.ops import pixels
from jaxvision.ops.boxes import area, clip, iou, pairwise
from jaxvision.ops.nms import greedy
from jaxvision.ops.roi_align import roi_pool
from jaxvision.ops.roi_pyramid import roi_align_pyramid
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import padded
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.tasks.roi_heads import ROIHeads, ROIs, decode, loss_terms, sample_rois
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables


class FastRCNN(nn.Module):
    """A head on what is pooled from maps of the image."""

    features: nn.Module
    """Returns a list of maps, finest first."""
    box_head: BoxHead
    pool: Pool

    def __call__(self, images: Float[Array, "b h w c"], boxes: Float[Array, "b n 4"], *, train: bool) -> RegionScores:
        """What the head says of these boxes, `x0 y0 x1 y1` in pixels."""
        maps = self.features(images, train=train)
        return self.box_head(jax.vmap(self.pool)(maps, boxes), train=train)


def fast_rcnn_vgg16(
    classes: int, *, hidden: int = 4096, dropout: float = 0.5, dtype: DTypeLike = jnp.float32
) -> FastRCNN:
    """The paper's: ROIPool to 7x7 cells from conv5_3 of VGG16, whose dense layers are those of the head."""
    features = Last(vgg.Backbone(vgg.VGG16, dtype=dtype))
    return FastRCNN(features, BoxHead(classes, hidden, dropout, dtype), pool_last)


def fast_rcnn_last_map(backbone: Backbone, classes: int, *, hidden: int = 1024) -> FastRCNN:
    """Fast R-CNN on any backbone: ROIPool to 7x7 cells from its last map, and two dense layers.

    Three stages, as in `resnet.Backbone(resnet.Bottleneck, (3, 4, 6))`, have the stride 16 of the paper.
    """
    scale = 1 / backbone.strides[-1]
    pool = lambda maps, boxes: roi_pool(maps[-1], boxes, size=7, scale=scale)
    return FastRCNN(Last(backbone), BoxHead(classes, hidden, dtype=backbone.dtype), pool)


def fast_rcnn_fpn(
    backbone: Backbone, classes: int, *, finest: int = 4, channels: int = 256, hidden: int = 1024
) -> FastRCNN:
    """The second stage of `faster_rcnn_fpn` (arXiv:1612.03144, section 5.2): ROIAlign from the map that fits.

    Maps of the backbone whose stride is below `finest` are left aside.
    """
    features = FPN(backbone, first_map(backbone, finest), channels, dtype=backbone.dtype)
    pool = partial(roi_align_pyramid, strides=features.strides, size=7)
    return FastRCNN(features, BoxHead(classes, hidden, dtype=backbone.dtype), pool)


FAST = ROIHeads(samples_per_image=64, nms=greedy(0.3))
"""ROI heads with the paper's numbers for two images a batch."""


def fast_rcnn(
    network: nn.Module,
    *,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    roi_heads: ROIHeads = FAST,
    background: float = 0.1,
    dtype=jnp.float32,
) -> Task:
    """The task of Fast R-CNN.

    Args:
      network: a `FastRCNN`, or what is called as it is: `network(images, boxes, train=...) -> RegionScores`.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      roi_heads: how the head is trained, and what it detects.
      background: a region is background if its best IoU with an object is at least this, and below that of a match.
      dtype: of the normalised images.

    Returns:
      A task whose `batch.given` are its proposals as `Objects` (their labels mean nothing), whose target is `Objects` and
      whose prediction is `Detections`. What of a proposal lies beyond the content is cut off. In training, regions are
      sampled from the proposals and the ground truth; an image without objects has no background. The loss is the sum of
      `class_loss` and `box_loss` (smooth L1, its beta 1/9 as in Faster R-CNN, not 1), each the mean over the regions
      sampled in all images. Without proposals, `loss` and `predict` raise TypeError. The canvas is padded to a
      multiple of 32 pixels. BatchNorm sees the valid images alone; behind the pooling, where `FastRCNN` has none, all rows
      of their samples.
    """

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        return padded(detection.images(batch, mean, std, dtype))

    def init(key: Key, batch: Batch) -> Variables:
        shown = images(batch)
        boxes = jnp.zeros((len(shown), 1, 4), at_least_float32(dtype))
        return network.init(key, shown, boxes, train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        target, (boxes, valid) = detection.targets(batch), proposals(batch, dtype)
        sample_key, dropout_key = jax.random.split(key)
        valid = valid & jax.vmap(lambda b, t: nearest(b, t) >= background)(boxes, target)
        rois = sampled(sample_key, boxes, valid, target, roi_heads)
        inputs = images(batch), rois.boxes
        scores, collections = forward_training(network, variables, *inputs, valid=batch.valid, key=dropout_key)
        terms = jax.vmap(partial(loss_terms, settings=roi_heads))(scores.logits, scores.offsets, rois, target)
        return detection.mean_loss(terms, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        boxes, valid = proposals(batch, dtype)
        scores: RegionScores = network.apply(model_variables(variables), images(batch), boxes, train=False)  # type: ignore[assignment]
        one = partial(decode, settings=roi_heads)
        return detection.detections(one, *scores, boxes, valid, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def proposals(batch: Batch, dtype) -> tuple[Float[Array, "b n 4"], Bool[Array, "b n"]]:
    """The given boxes, cut at the content, and which rows are valid: those of which something is left, of valid images.

    Raises:
      TypeError: if `batch.given` is something else.
    """
    given = batch.given
    if not isinstance(given, Objects):
        what = "None" if given is None else type(given).__name__
        raise TypeError(f"a detector on given regions needs batch.given to be Objects, its proposals, got {what}")
    boxes = jnp.asarray(given.boxes, at_least_float32(dtype))
    boxes = jax.vmap(clip)(boxes, jnp.asarray(batch.size))
    valid = jnp.asarray(given.valid) & jnp.asarray(batch.valid)[:, None] & (area(boxes) > 0)
    return jnp.where(valid[..., None], boxes, 0), valid


def nearest(boxes: Float[Array, "n 4"], target: Objects) -> Float[Array, "n"]:
    """The best IoU of each box with an object that is trained on; 0 where there is none."""
    ious = pairwise(iou, boxes, target.boxes.astype(boxes.dtype))
    return jnp.where(detection.trained_on(target)[None], ious, 0).max(1)


def sampled(
    key: Key, boxes: Float[Array, "b n 4"], valid: Bool[Array, "b n"], target: Objects, settings: ROIHeads
) -> ROIs:
    """The regions of every image that are trained on."""
    keys = jax.random.split(key, len(boxes))
    return jax.vmap(lambda k, b, v, t: sample_rois(k, b, v, t, settings))(keys, boxes, valid, target)

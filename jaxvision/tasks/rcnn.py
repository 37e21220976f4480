"""R-CNN (arXiv:1311.2524): regions that are given, each cut out of the image, warped to one size and classified.

The paper trains in three stages: a network by softmax, then support vector machines for the classes and ridge regressions
for the boxes on its features. Here the softmax stays and the boxes are learned together with it.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import resnet, vgg
from jaxvision.nn.conv import max_pool
from jaxvision.nn.fpn import Backbone
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.roi_heads import BoxHead, Last, RegionScores
from jaxvision.ops import pixels
from jaxvision.ops.matching import BACKGROUND
from jaxvision.ops.nms import greedy
from jaxvision.ops.roi_align import roi_align
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.fast_rcnn import nearest, proposals, sampled
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.tasks.roi_heads import ROIHeads, ROIs, decode
from jaxvision.tasks.roi_heads import loss_terms as roi_loss_terms
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables


class RCNN(nn.Module):
    """A network that classifies images, on crops of regions."""

    features: nn.Module
    """Returns a list of maps, of which the last is used."""
    box_head: nn.Module
    """`(map n s s c, train=) -> RegionScores`."""

    def __call__(self, crops: Float[Array, "*b n s s c"], *, train: bool) -> RegionScores:
        """What the head says of these crops, `n` of each image."""
        maps = self.features(crops.reshape(-1, *crops.shape[-3:]), train=train)
        scores: RegionScores = self.box_head(maps[-1], train=train)
        logits, offsets = (x.reshape(*crops.shape[:-3], *x.shape[1:]) for x in scores)
        return RegionScores(logits, offsets)


class MeanHead(nn.Module):
    """Classes and boxes from the mean of a map: names `logits`, `offsets`."""

    classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Float[Array, "n s s c"], *, train: bool) -> RegionScores:
        """Scores, in float32 at least."""
        wide, all_classes = at_least_float32(self.dtype), self.classes + 1
        pooled = maps.astype(wide).mean((1, 2))
        dense = partial(nn.Dense, dtype=wide, param_dtype=wide, kernel_init=resnet.uniform_fan_in)
        offsets = dense(4 * all_classes, name="offsets")(pooled)
        return RegionScores(dense(all_classes, name="logits")(pooled), offsets.reshape(-1, all_classes, 4))


class Halved(nn.Module):
    """The coarsest map of a backbone alone, pooled to half its size."""

    backbone: Backbone

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """A list of one map."""
        return [max_pool(self.backbone(images, train=train)[-1], 2)]


def rcnn_vgg16(classes: int, *, hidden: int = 4096, dropout: float = 0.5, dtype: DTypeLike = jnp.float32) -> RCNN:
    """VGG16 (the paper's "O-Net"), its last layer replaced, on crops of 224 pixels.

    Boxes come from the last dense layer, too, where the paper's come from pool5.
    """
    return RCNN(Halved(vgg.Backbone(vgg.VGG16, dtype=dtype)), BoxHead(classes, hidden, dropout, dtype))


def rcnn_last_map(backbone: Backbone, classes: int) -> RCNN:
    """R-CNN on any backbone, whose last map is averaged, on crops of any size."""
    return RCNN(Last(backbone), MeanHead(classes, backbone.dtype))


RCNN_SETTINGS = ROIHeads(samples_per_image=64, nms=greedy(0.3))
"""ROI heads with the paper's numbers for two images a batch: 32 regions of objects, 96 of background."""
AT_ONCE = 128
"""Regions, of all images, that are cut out and classified together in prediction; at least one of each image."""
ANY_SIZE = 16
"""Regions of each image that are, in a program for batches of any size."""


def rcnn(
    network: nn.Module,
    *,
    size: int = 224,
    context: int = 16,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    roi_heads: ROIHeads = RCNN_SETTINGS,
    box_match_iou: float = 0.6,
    dtype=jnp.float32,
) -> Task:
    """The task of R-CNN.

    Args:
      network: an `RCNN`, or what is called as it is: `network(crops, train=...) -> RegionScores`.
      size: side of the crops in pixels.
      context: pixels of the crop, on every side, that show what is around the region.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      roi_heads: how the head is trained, and what it detects.
      box_match_iou: from this IoU with its ground truth on a region learns the bounding box.
      dtype: of the normalised images.

    Returns:
      A task whose `batch.given` are its proposals, as that of `fast_rcnn`; target, prediction and losses as there. All
      regions that match no object are background. Beyond the content crops show the mean colour. BatchNorm sees the crops of
      the regions that are trained on alone.

    Raises:
      ValueError: if the context leaves nothing of a crop.
    """
    if not 0 <= 2 * context < size:
        raise ValueError(f"rcnn(size={size}, context={context}): allowed is a context from 0 to below half the size")

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        return detection.images(batch, mean, std, dtype)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, jnp.zeros((1, size, size, batch.image.shape[-1]), dtype), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        target, (boxes, valid) = detection.targets(batch), proposals(batch, dtype)
        sample_key, dropout_key = jax.random.split(key)
        rois = sampled(sample_key, boxes, valid, target, roi_heads)
        seen = jax.vmap(lambda image, boxes: crops(image, boxes, size, context))(images(batch), rois.boxes)
        scores, collections = forward_training(network, variables, seen, valid=rois.valid, key=dropout_key)
        one = partial(loss_terms, settings=roi_heads, box_match_iou=box_match_iou)
        terms = jax.vmap(one)(scores.logits, scores.offsets, rois, target)
        return detection.mean_loss(terms, batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        boxes, valid = proposals(batch, dtype)
        model, shown = model_variables(variables), images(batch)

        def classify(regions: Float[Array, "b k 4"]) -> RegionScores:
            """Regions of every image, image by image: so a batch that is split over devices stays so."""
            seen = jax.vmap(lambda image, boxes: crops(image, boxes, size, context))(shown, regions)
            scores = network.apply(model, seen.reshape(-1, *seen.shape[2:]), train=False)
            return jax.tree.map(lambda x: x.reshape(*regions.shape[:2], *x.shape[1:]), scores)

        rows, count, _ = boxes.shape
        at_once = min(max(AT_ONCE // rows, 1) if isinstance(rows, int) else ANY_SIZE, count)
        filled = jnp.pad(boxes, ((0, 0), (0, -count % at_once), (0, 0)))
        turns = filled.reshape(rows, -1, at_once, 4).swapaxes(0, 1)
        scores = jax.lax.map(classify, turns)
        scores = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(rows, -1, *x.shape[3:])[:, :count], scores)
        one = partial(decode, settings=roi_heads)
        return detection.detections(one, *scores, boxes, valid, jnp.asarray(batch.size))

    return Task(init, loss, predict)


def loss_terms(
    logits: Float[Array, "n k"],
    offsets: Float[Array, "n k 4"],
    rois: ROIs,
    target: Objects,
    settings: ROIHeads = RCNN_SETTINGS,
    box_match_iou: float = 0.6,
) -> LossTerms:
    """Loss terms as those of `roi_heads`; only regions near their ground truth, from `box_match_iou` on, learn its box."""
    terms = roi_loss_terms(logits, offsets, rois, target, settings)
    near = jnp.where(nearest(rois.boxes, target) >= box_match_iou, rois.match, BACKGROUND)
    of_near = roi_loss_terms(logits, offsets, rois._replace(match=near), target, settings)
    return terms._replace(sums=terms.sums | {"box_loss": of_near.sums["box_loss"]})


def crops(
    image: Float[Array, "h w c"], boxes: Float[Array, "n 4"], size: int, context: int
) -> Float[Array, "n {size} {size} c"]:
    """What the boxes show, stretched to squares, with some of what is around them (the paper's appendix A, "warp").

    Each pixel lies between four of the image's (bilinear, as in the original code without averaging where a region
    shrinks); beyond the image is 0.
    """
    inside = size - 2 * context
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * (size / inside)
    around = jnp.concatenate([centre - half, centre + half], 1)
    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    return roi_align(framed, around + 1, size=size, scale=1, samples=1, aligned=True)

"""Faster R-CNN (arXiv:1506.01497): an RPN and ROI heads on the same maps, trained together."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxvision.nn import resnet, vgg
from jaxvision.nn.conv import Conv
from jaxvision.nn.fpn import FPN, Backbone, Maps, Predictions, SimplePyramid, first_map
from jaxvision.nn.norm import FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.roi_heads import BoxHead, Last, Pool, RegionScores, pool_last
from jaxvision.ops import pixels
from jaxvision.ops.anchors import Anchors
from jaxvision.ops.roi_pyramid import roi_align_pyramid
from jaxvision.tasks import detection
from jaxvision.tasks.anchored import anchors_of, by_level, padded
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.tasks.roi_heads import DEFAULT_ROI_HEADS, ROIHeads, ROIs, decode, sample_rois
from jaxvision.tasks.roi_heads import loss_terms as roi_loss_terms
from jaxvision.tasks.rpn import DEFAULT_RPN, RPN, propose
from jaxvision.tasks.rpn import loss_terms as rpn_loss_terms
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables

small_normal = nn.initializers.normal(0.01)


class RPNHead(nn.Module):
    """The RPN head, shared by all maps: whether there is an object at each anchor, and where.

    Names: `conv`, `logits`, `offsets`.
    """

    anchors_per_cell: int
    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Maps) -> list[Predictions]:
        """Predictions on every map, with one logit for each anchor; computed as `dtype`, given as float32 at least."""
        layer = partial(Conv, dtype=self.dtype, kernel_init=small_normal)
        conv = layer(self.channels, 3, padding=1, name="conv")
        logits, offsets = (
            layer(self.anchors_per_cell, 1, name="logits"),
            layer(4 * self.anchors_per_cell, 1, name="offsets"),
        )
        hidden = [nn.relu(conv(x)) for x in maps]
        return [Predictions(self._shaped(logits(x)), self._shaped(offsets(x))) for x in hidden]

    def _shaped(self, y: Array) -> Array:
        return y.astype(at_least_float32(self.dtype)).reshape(*y.shape[:3], self.anchors_per_cell, -1)


class FasterRCNN(nn.Module):
    """Both stages on the same maps: names `features`, `region_head`, `box_head`."""

    features: nn.Module
    """Returns a list of maps of one width, finest first."""
    region_head: RPNHead
    box_head: BoxHead
    pool: Pool

    def propose(self, images: Float[Array, "b h w c"], *, train: bool) -> tuple[Maps, list[Predictions]]:
        """The maps, and on each of them what the RPN head predicts."""
        maps = self.features(images, train=train)
        return maps, self.region_head(maps)

    def classify(self, maps: Maps, boxes: Float[Array, "b n 4"], *, train: bool) -> RegionScores:
        """What the box head says of these boxes."""
        return self.box_head(jax.vmap(self.pool)(maps, boxes), train=train)

    def __call__(
        self, images: Float[Array, "b h w c"], boxes: Float[Array, "b n 4"], *, train: bool
    ) -> tuple[list[Predictions], RegionScores]:
        """Both stages, with boxes that are given."""
        maps, regions = self.propose(images, train=train)
        return regions, self.classify(maps, boxes, train=train)


def faster_rcnn_fpn(
    backbone: Backbone,
    classes: int,
    *,
    finest: int = 4,
    channels: int = 256,
    hidden: int = 1024,
    anchors_per_cell: int = 3,
) -> FasterRCNN:
    """Faster R-CNN on a pyramid above any backbone: regions of 7x7 cells from P2 to P5, anchors on P6 too.

    Maps of the backbone whose stride is below `finest` are left aside.
    """
    features = FPN(backbone, first_map(backbone, finest), channels, dtype=backbone.dtype)
    return faster_rcnn_on(features, classes, hidden=hidden, anchors_per_cell=anchors_per_cell)


def faster_rcnn_on(
    features: FPN | SimplePyramid,
    classes: int,
    *,
    hidden: int = 1024,
    anchors_per_cell: int = 3,
) -> FasterRCNN:
    """Faster R-CNN on any pyramid.

    Args:
      features: the pyramid; regions are pooled from all maps but those on top, and anchors lie on these too.
      classes: how many there are.
      hidden: width of the two dense layers.
      anchors_per_cell: of every map.
    """
    return FasterRCNN(
        features,
        RPNHead(anchors_per_cell, features.channels, features.dtype),
        BoxHead(classes, hidden, dtype=features.dtype),
        partial(roi_align_pyramid, strides=features.strides, size=7),
    )


def faster_rcnn_resnet50_fpn(
    classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32
) -> FasterRCNN:
    """Faster R-CNN on ResNet-50, as torchvision's `fasterrcnn_resnet50_fpn`."""
    return faster_rcnn_fpn(resnet.resnet50(None, norm=norm, dtype=dtype).backbone, classes)


def faster_rcnn_vgg16(
    classes: int, *, hidden: int = 4096, dropout: float = 0.5, dtype: DTypeLike = jnp.float32
) -> FasterRCNN:
    """The paper's: ROIPool from conv5_3 of VGG16, whose dense layers are those of the box head, and 9 anchors a cell."""
    return FasterRCNN(
        Last(vgg.Backbone(vgg.VGG16, dtype=dtype)),
        RPNHead(9, 512, dtype),
        BoxHead(classes, hidden, dropout, dtype),
        pool_last,
    )


FPN_SIZES = ((32,), (64,), (128,), (256,), (512,))
"""Sizes of the anchors on P2 to P6."""
SINGLE_SIZES = ((128, 256, 512),)
"""Sizes of the anchors on the one map of the paper."""

_Proposed = tuple[Maps, list[Predictions]]


class OfImages(NamedTuple):
    """What the losses of each image are made of, by image; the arguments of `loss_terms` that differ from image to image."""

    key: Key
    """Key of the sample of anchors."""
    logits: Float[Array, "b a"]
    offsets: Float[Array, "b a 4"]
    scores: RegionScores
    rois: ROIs
    target: Objects


class Training(NamedTuple):
    """Outputs of both stages on a batch that they are trained on."""

    maps: Maps
    anchors: Anchors
    images: OfImages
    collections: dict
    """Collections as they are after both stages."""


class Regions(NamedTuple):
    """Outputs of both stages on a batch to predict: scores of what was proposed."""

    maps: Maps
    scores: RegionScores
    boxes: Float[Array, "b n 4"]
    valid: Bool[Array, "b n"]


class Stages(NamedTuple):
    """Both stages as a task runs them on a batch; for the fields see `faster_rcnn`."""

    network: FasterRCNN
    sizes: Sequence[Sequence[float | int]]
    ratios: Sequence[float | int]
    mean: float | Sequence[float]
    std: float | Sequence[float]
    rpn: RPN
    roi_heads: ROIHeads
    dtype: DTypeLike

    def init(self, key: Key, batch: Batch) -> Variables:
        """Fresh variables."""
        given = self.images(batch)
        return self.network.init(key, given, jnp.zeros((len(given), 1, 4), given.dtype), train=False)

    def images(self, batch: Batch) -> Float[Array, "b h w c"]:
        """The images as the network sees them, the canvas padded to a multiple of 32 pixels."""
        return padded(detection.images(batch, self.mean, self.std, self.dtype))

    def train(self, variables: Variables, batch: Batch, key: Key) -> Training:
        """Both stages, the second on regions sampled from the proposals of the first and the ground truth."""
        network, given, target = self.network, self.images(batch), detection.targets(batch)
        keys = jax.random.split(key, 4)
        anchor_keys, roi_keys = (jax.random.split(each, len(given)) for each in keys[:2])
        (maps, outputs), collections = forward_training(
            network, variables, given, valid=batch.valid, key=keys[2], method="propose"
        )
        anchors = anchors_of(outputs, given.shape, self.sizes, self.ratios)
        logits, offsets = _by_level(outputs)
        boxes, proposed = _propose(logits, offsets, anchors, batch, True, self.rpn)
        proposed = proposed & batch.valid[:, None]
        one = lambda k, b, v, t: sample_rois(k, b, v, t, self.roi_heads)
        rois = jax.vmap(one)(roi_keys, boxes, proposed, target)
        variables = {**variables, **collections}
        scores, collections = forward_training(
            network, variables, maps, rois.boxes, valid=rois.valid, key=keys[3], method="classify"
        )
        logits, offsets = jnp.concatenate(logits, 1), jnp.concatenate(offsets, 1)
        images = OfImages(anchor_keys, logits, offsets, scores, rois, target)
        return Training(maps, np.concatenate(anchors), images, collections)

    def predict(self, variables: Variables, batch: Batch) -> Regions:
        """Both stages, the second on the proposals of the first."""
        given, model = self.images(batch), model_variables(variables)
        maps, outputs = cast(_Proposed, self.network.apply(model, given, train=False, method="propose"))
        anchors = anchors_of(outputs, given.shape, self.sizes, self.ratios)
        boxes, proposed = _propose(*_by_level(outputs), anchors, batch, False, self.rpn)
        scores = cast(RegionScores, self.network.apply(model, maps, boxes, train=False, method="classify"))
        return Regions(maps, scores, boxes, proposed)


def faster_rcnn(
    network: FasterRCNN,
    *,
    sizes: Sequence[Sequence[float | int]] = FPN_SIZES,
    ratios: Sequence[float | int] = (0.5, 1.0, 2.0),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    rpn: RPN = DEFAULT_RPN,
    roi_heads: ROIHeads = DEFAULT_ROI_HEADS,
    dtype=jnp.float32,
) -> Task:
    """The task of Faster R-CNN.

    Args:
      network: both stages, with an anchor a cell for each size and ratio.
      sizes: the square roots of the areas of the anchors, in pixels, on every map.
      ratios: height by width of the anchors.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      rpn: how the first stage is trained, and what it proposes.
      roi_heads: how the second stage is trained, and what it detects.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`. Its loss is the sum of `objectness_loss` and
      `rpn_box_loss`, each the mean over the anchors sampled in all images, and of `class_loss` and `box_loss`, each the
      mean over the regions sampled in all images. Anchors and regions whose IoU with an object to be ignored
      reaches the lower threshold of `matching` are no background. An object's `weight` multiplies the losses of what is
      matched to it. The canvas is padded to a multiple of 32 pixels.
    """
    stages = Stages(network, sizes, ratios, mean, std, rpn, roi_heads, dtype)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        found = stages.train(variables, batch, key)
        one = lambda k, l, o, s, r, t: loss_terms(k, l, o, found.anchors, s, r, t, rpn, roi_heads)
        return detection.mean_loss(jax.vmap(one)(*found.images), batch, found.collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        found = stages.predict(variables, batch)
        one = partial(decode, settings=roi_heads)
        return detection.detections(one, *found.scores, found.boxes, found.valid, jnp.asarray(batch.size))

    return Task(stages.init, loss, predict)


def loss_terms(
    key: Key,
    logits: Float[Array, "a"],
    offsets: Float[Array, "a 4"],
    anchors: Anchors,
    scores: RegionScores,
    rois: ROIs,
    target: Objects,
    rpn: RPN = DEFAULT_RPN,
    roi_heads: ROIHeads = DEFAULT_ROI_HEADS,
) -> LossTerms:
    """Loss terms of one image: those of `rpn` over its sampled anchors and those of `roi_heads` over its sampled regions.

    Args:
      key: for the sample of anchors.
      logits: of the anchors, from the RPN head.
      offsets: of the anchors, from the RPN head.
      anchors: bounding boxes of all maps.
      scores: `n k` and `n k 4`, from the box head.
      rois: the `n` regions that they are of.
      target: the ground truth.
      rpn: how anchors are sampled, and their box loss.
      roi_heads: the box loss of regions.
    """
    first = rpn_loss_terms(key, logits, offsets, anchors, target, rpn)
    return first | roi_loss_terms(scores.logits, scores.offsets, rois, target, roi_heads)


def _by_level(outputs: Sequence[Predictions]) -> tuple[list[Float[Array, "b _"]], list[Float[Array, "b _ 4"]]]:
    logits, offsets = by_level(outputs)
    return [x[..., 0] for x in logits], offsets


def _propose(
    logits: list[Array], offsets: list[Array], anchors: list[np.ndarray], batch: Batch, train: bool, settings: RPN
) -> tuple[Float[Array, "b n 4"], Array]:
    """The proposals of every image, and which of them are valid."""

    def one(logits: list[Array], offsets: list[Array], size: Array) -> tuple[Array, Array]:
        return propose(logits, offsets, anchors, size, train=train, settings=settings)

    return jax.vmap(one)(logits, offsets, jnp.asarray(batch.size))

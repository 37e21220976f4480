"""Mask R-CNN (arXiv:1703.06870): Faster R-CNN, and a mask head on the regions that show an object."""

from collections.abc import Sequence
from functools import partial
from typing import cast, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.nn.fpn import FPN, Maps, Predictions, SimplePyramid
from jaxvision.nn.norm import FrozenBatchNorm, Norm
from jaxvision.nn.roi_heads import MaskHead, Pool, RegionScores
from jaxvision.ops import pixels
from jaxvision.ops.anchors import Anchors
from jaxvision.ops.masks import Geometry, targets_in_boxes
from jaxvision.ops.roi_pyramid import roi_align_pyramid
from jaxvision.tasks import detection, faster_rcnn
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.faster_rcnn import FPN_SIZES, FasterRCNN, Stages, faster_rcnn_resnet50_fpn
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.tasks.roi_heads import DEFAULT_ROI_HEADS, ROIHeads, ROIs, decode
from jaxvision.tasks.rpn import DEFAULT_RPN, RPN
from jaxvision.types import Batch, BoxMasks, Detections, Key, LossOutput, Objects, Scalar, Task, Variables


class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a mask head on the same maps: names `features`, `region_head`, `box_head`, `mask_head`."""

    mask_head: MaskHead
    mask_pool: Pool

    def segment(
        self, maps: Maps, boxes: Float[Array, "b n 4"], valid: Bool[Array, "b n"] | None = None, *, train: bool
    ) -> Float[Array, "b n s s k"]:
        """Logits of the masks in these boxes, for background, which means nothing, and every class.

        Those of boxes that are not valid mean nothing; valid ones are best the first.
        """
        del train
        return self.mask_head(jax.vmap(self.mask_pool)(maps, boxes), valid)

    def __call__(
        self, images: Float[Array, "b h w c"], boxes: Float[Array, "b n 4"], *, train: bool
    ) -> tuple[list[Predictions], RegionScores, Float[Array, "b n s s k"]]:
        """All of it, with boxes that are given."""
        maps, regions = self.propose(images, train=train)
        return regions, self.classify(maps, boxes, train=train), self.segment(maps, boxes, train=train)


def with_mask_head(detector: FasterRCNN, *, channels: int = 256, layers: int = 4, size: int = 14) -> MaskRCNN:
    """Mask R-CNN on a Faster R-CNN on a pyramid.

    Args:
      detector: the first two heads.
      channels: width of the mask head.
      layers: its 3x3 convolutions.
      size: cells along each side of a region that the mask head sees; masks have twice as many.

    Raises:
      TypeError: if the detector has no pyramid.
    """
    pyramid = detector.features
    if not isinstance(pyramid, FPN | SimplePyramid):
        raise TypeError(f"a mask head needs maps of a pyramid, FPN or SimplePyramid, not of {type(pyramid).__name__}")
    head = MaskHead(detector.box_head.classes, channels, layers, pyramid.dtype)
    pool = partial(roi_align_pyramid, strides=pyramid.strides, size=size)
    return MaskRCNN(pyramid, detector.region_head, detector.box_head, detector.pool, head, pool)


def mask_rcnn_resnet50_fpn(classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32) -> MaskRCNN:
    """Mask R-CNN on ResNet-50, as torchvision's `maskrcnn_resnet50_fpn`."""
    return with_mask_head(faster_rcnn_resnet50_fpn(classes, norm=norm, dtype=dtype))


def mask_rcnn(
    network: MaskRCNN,
    *,
    geometry: Geometry | str = "aligned",
    sizes: Sequence[Sequence[float | int]] = FPN_SIZES,
    ratios: Sequence[float | int] = (0.5, 1.0, 2.0),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    rpn: RPN = DEFAULT_RPN,
    roi_heads: ROIHeads = DEFAULT_ROI_HEADS,
    dtype=jnp.float32,
) -> Task:
    """The task of Mask R-CNN.

    Args:
      network: all stages, with an anchor a cell for each size and ratio.
      geometry: how a mask lies in its box, in targets and in predictions: `aligned`, or `torchvision` for its weights.
      sizes: the square roots of the areas of the anchors, in pixels, on every map.
      ratios: height by width of the anchors.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      rpn: how the first stage is trained, and what it proposes.
      roi_heads: how the second stage is trained, and what it detects; the mask head is trained on its positive regions.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` with masks in any form of `Masks`, and whose prediction is `Detections` with
      `BoxMasks` of the label found. Its loss is that of `faster_rcnn` and `mask_loss`, the binary cross-entropy of the mask
      of the object's class, the mean over the pixels of all positive regions in all images. In all else as
      `faster_rcnn`.

    Raises:
      ValueError: for another geometry; in use, without masks of the objects.
    """
    if geometry not in get_args(Geometry):
        raise ValueError(f"geometry={geometry!r}; allowed: {', '.join(get_args(Geometry))}")
    geometry = cast(Geometry, geometry)
    stages = Stages(network, sizes, ratios, mean, std, rpn, roi_heads, dtype)
    positives = max(int(roi_heads.samples_per_image * roi_heads.positive_fraction), 1)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        found = stages.train(variables, batch, key)
        if found.images.target.masks is None:
            raise ValueError("mask_rcnn needs masks of the objects in batch.target, which has None")
        rois = jax.tree.map(lambda x: x[:, :positives], found.images.rois)
        variables = {**variables, **found.collections}
        valid, method = rois.match >= 0, "segment"
        masks, collections = forward_training(
            network, variables, found.maps, rois.boxes, valid, valid=valid, key=key, method=method
        )
        one = lambda m, k, l, o, s, r, t: loss_terms(k, l, o, found.anchors, s, m, r, t, geometry, rpn, roi_heads)
        return detection.mean_loss(jax.vmap(one)(masks, *found.images), batch, collections)

    def predict(variables: Variables, batch: Batch) -> Detections:
        found = stages.predict(variables, batch)
        one = partial(decode, settings=roi_heads)
        detected = detection.detections(one, *found.scores, found.boxes, found.valid, jnp.asarray(batch.size))
        model = model_variables(variables)
        masks = network.apply(model, found.maps, detected.boxes, detected.valid, train=False, method="segment")
        probabilities = jax.nn.sigmoid(jax.vmap(_of_class)(cast(Array, masks), detected.labels))
        shown = jnp.where(detected.valid[..., None, None], probabilities, 0)
        return detected.replace(masks=BoxMasks(shown, detected.boxes, geometry))

    return Task(stages.init, loss, predict)


def loss_terms(
    key: Key,
    logits: Float[Array, "a"],
    offsets: Float[Array, "a 4"],
    anchors: Anchors,
    scores: RegionScores,
    masks: Float[Array, "p s s k"],
    rois: ROIs,
    target: Objects,
    geometry: Geometry = "aligned",
    rpn: RPN = DEFAULT_RPN,
    roi_heads: ROIHeads = DEFAULT_ROI_HEADS,
) -> LossTerms:
    """Loss terms of one image: those of `faster_rcnn.loss_terms`, and `mask_loss` over its positive regions.

    Args:
      key: for the sample of anchors.
      logits: of the anchors, from the RPN head.
      offsets: of the anchors, from the RPN head.
      anchors: bounding boxes of all maps.
      scores: `n k` and `n k 4`, from the box head.
      masks: logits of the first `p` of the regions, all positive ones among them, from the mask head.
      rois: the `n` regions that all of these are of.
      target: the ground truth, with masks.
      geometry: how the targets of the mask head lie in their boxes.
      rpn: how anchors are sampled, and their box loss.
      roi_heads: the box loss of regions.
    """
    boxes_alone = faster_rcnn.loss_terms(key, logits, offsets, anchors, scores, rois, target, rpn, roi_heads)
    positive_first = jax.tree.map(lambda x: x[: len(masks)], rois)
    return boxes_alone | mask_loss_terms(masks, positive_first, target, geometry)


def mask_loss_terms(
    masks: Float[Array, "p s s k"], rois: ROIs, target: Objects, geometry: Geometry = "aligned"
) -> LossTerms:
    """Sum of `mask_loss`, the mean over the pixels of a mask, over the positive of these regions, by their number."""
    positive, match = rois.match >= 0, jnp.maximum(rois.match, 0)
    logits = _of_class(masks, target.labels[match])
    wanted = targets_in_boxes(target.masks, match, rois.boxes, masks.shape[1], geometry).astype(logits.dtype)
    by_region = optax.sigmoid_binary_cross_entropy(logits, wanted).mean((1, 2))
    weight = detection.weights(target)[match].astype(logits.dtype)
    total = jnp.where(positive, by_region * weight, 0).sum()
    return LossTerms({"mask_loss": total}, {"mask_loss": positive.sum()})


def _of_class(masks: Float[Array, "n s s k"], label: Int[Array, "n"]) -> Float[Array, "n s s"]:
    """The mask of the label of each row, counted from 0; background is before them."""
    return jnp.take_along_axis(masks, label[:, None, None, None] + 1, 3)[..., 0]

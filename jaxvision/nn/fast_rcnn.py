"""Networks that classify given regions: Fast R-CNN (arXiv:1504.08083) pools them from maps of the whole image, R-CNN
(arXiv:1311.2524) sees each as an image of its own.

Names: `features/backbone/...`, then `box_head/...`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import resnet, vgg
from jaxvision.nn.conv import max_pool
from jaxvision.nn.faster_rcnn import BoxHead, Last, Pool, RegionScores, pool_last
from jaxvision.nn.fpn import FPN
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops.roi_align import roi_pool
from jaxvision.ops.roi_pyramid import roi_align_pyramid

VGG16 = (2, 2, 3, 3, 3)


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
    features = Last(vgg.Backbone(VGG16, dtype=dtype))
    return FastRCNN(features, BoxHead(classes, hidden, dropout, dtype), pool_last)


def fast_rcnn_resnet(backbone: resnet.Backbone, classes: int, *, hidden: int = 1024) -> FastRCNN:
    """ROIPool to 7x7 cells from the last map of any residual network, and two dense layers.

    Three stages, as in `resnet.Backbone(resnet.Bottleneck, (3, 4, 6))`, have the stride 16 of the paper.
    """
    finest = 4 if backbone.stem == "imagenet" else 1
    scale = 1 / (finest * 2 ** (len(backbone.stage_sizes) - 1))
    pool = lambda maps, boxes: roi_pool(maps[-1], boxes, size=7, scale=scale)
    return FastRCNN(Last(backbone), BoxHead(classes, hidden, dtype=backbone.dtype), pool)


def fast_rcnn_fpn(backbone: resnet.Backbone, classes: int, *, channels: int = 256, hidden: int = 1024) -> FastRCNN:
    """The second stage of `faster_rcnn_fpn` (arXiv:1612.03144, section 5.2): ROIAlign from the map that fits."""
    finest = 4 if backbone.stem == "imagenet" else 1
    strides = tuple(finest * 2**n for n in range(len(backbone.stage_sizes)))
    pool = partial(roi_align_pyramid, strides=strides, size=7)
    features = FPN(backbone, channels=channels, dtype=backbone.dtype)
    return FastRCNN(features, BoxHead(classes, hidden, dtype=backbone.dtype), pool)


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

    backbone: nn.Module

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """A list of one map."""
        return [max_pool(self.backbone(images, train=train)[-1], 2)]


def rcnn_vgg16(classes: int, *, hidden: int = 4096, dropout: float = 0.5, dtype: DTypeLike = jnp.float32) -> RCNN:
    """VGG16 (the paper's "O-Net"), its last layer replaced, on crops of 224 pixels.

    Boxes come from the last dense layer, too, where the paper's come from pool5.
    """
    return RCNN(Halved(vgg.Backbone(VGG16, dtype=dtype)), BoxHead(classes, hidden, dropout, dtype))


def rcnn_resnet(backbone: resnet.Backbone, classes: int) -> RCNN:
    """Any residual network, its last layer replaced, on crops of any size."""
    return RCNN(Last(backbone), MeanHead(classes, backbone.dtype))

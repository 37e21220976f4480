"""Faster R-CNN (arXiv:1506.01497): a head that proposes regions, and one that classifies what is pooled from each."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import resnet, vgg
from jaxvision.nn.conv import Conv
from jaxvision.nn.fpn import FPN, Maps, Predictions
from jaxvision.nn.norm import FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops.roi_align import roi_pool
from jaxvision.ops.roi_pyramid import roi_align_pyramid

small_normal = nn.initializers.normal(0.01)
Pool = Callable[[Sequence[Float[Array, "_ _ c"]], Float[Array, "n 4"]], Float[Array, "n s s c"]]
"""`(maps of one image, boxes in its pixels) -> features of each box`."""


class RegionHead(nn.Module):
    """Whether there is an object about each anchor, and where: names `conv`, `logits`, `offsets`. All maps share it."""

    kinds: int
    """Anchors a cell."""
    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Maps) -> list[Predictions]:
        """Predictions on every map, with one logit for each anchor; computed as `dtype`, given as float32 at least."""
        layer = partial(Conv, dtype=self.dtype, kernel_init=small_normal)
        conv = layer(self.channels, 3, padding=1, name="conv")
        logits, offsets = layer(self.kinds, 1, name="logits"), layer(4 * self.kinds, 1, name="offsets")
        hidden = [nn.relu(conv(x)) for x in maps]
        return [Predictions(self._shaped(logits(x)), self._shaped(offsets(x))) for x in hidden]

    def _shaped(self, y: Array) -> Array:
        return y.astype(at_least_float32(self.dtype)).reshape(*y.shape[:3], self.kinds, -1)


class RegionScores(NamedTuple):
    """What is predicted for each region."""

    logits: Float[Array, "*b n k"]
    """Background first, then the classes."""
    offsets: Float[Array, "*b n k 4"]
    """Of the box for each class, as `ops.box_codec` encodes them; those of background mean nothing."""


class BoxHead(nn.Module):
    """Two dense layers, and one each for classes and boxes: names `dense1`, `dense2`, `logits`, `offsets`.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    classes: int
    hidden: int = 1024
    dropout: float = 0.0
    """Share of the units of both dense layers that are dropped while training; 0.5 in VGG16."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pooled: Float[Array, "*b n s s c"], *, train: bool) -> RegionScores:
        """Scores of every region, in float32 at least."""
        wide = at_least_float32(self.dtype)
        dense = partial(nn.Dense, param_dtype=wide, kernel_init=resnet.uniform_fan_in)
        x = pooled.reshape(*pooled.shape[:-3], -1)
        for name in ("dense1", "dense2"):
            x = nn.relu(dense(self.hidden, dtype=self.dtype, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x, all_classes = x.astype(wide), self.classes + 1
        offsets = dense(4 * all_classes, dtype=wide, name="offsets")(x)
        return RegionScores(
            dense(all_classes, dtype=wide, name="logits")(x), offsets.reshape(*x.shape[:-1], all_classes, 4)
        )


class FasterRCNN(nn.Module):
    """Both stages on the same maps: names `features`, `region_head`, `box_head`."""

    features: nn.Module
    """Returns a list of maps of one width, finest first."""
    region_head: RegionHead
    box_head: BoxHead
    pool: Pool

    def propose(self, images: Float[Array, "b h w c"], *, train: bool) -> tuple[Maps, list[Predictions]]:
        """The maps, and on each of them what the region head predicts."""
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
    backbone: resnet.Backbone, classes: int, *, channels: int = 256, hidden: int = 1024, kinds: int = 3
) -> FasterRCNN:
    """Faster R-CNN on a pyramid above any residual network: regions of 7x7 cells from P2 to P5, anchors on P6 too."""
    finest = 4 if backbone.stem == "imagenet" else 1
    strides = tuple(finest * 2**n for n in range(len(backbone.stage_sizes)))
    features = FPN(backbone, channels=channels, dtype=backbone.dtype)
    return faster_rcnn_on(features, strides, classes, hidden=hidden, kinds=kinds)


def faster_rcnn_on(
    features: FPN, strides: Sequence[int], classes: int, *, hidden: int = 1024, kinds: int = 3
) -> FasterRCNN:
    """Faster R-CNN on any pyramid.

    Args:
      features: the pyramid.
      strides: pixels a cell of each of its maps from which regions are pooled; anchors lie on all maps.
      classes: how many there are.
      hidden: width of the two dense layers.
      kinds: anchors a cell.
    """
    return FasterRCNN(
        features,
        RegionHead(kinds, features.channels, features.dtype),
        BoxHead(classes, hidden, dtype=features.dtype),
        partial(roi_align_pyramid, strides=tuple(strides), size=7),
    )


def faster_rcnn_resnet50_fpn(
    classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32
) -> FasterRCNN:
    """Faster R-CNN on ResNet-50, as torchvision's `fasterrcnn_resnet50_fpn`."""
    return faster_rcnn_fpn(resnet.resnet50(None, norm=norm, dtype=dtype).backbone, classes)


class Last(nn.Module):
    """The coarsest map of a backbone alone."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """A list of one map."""
        return self.backbone(images, train=train)[-1:]


def faster_rcnn_vgg16(
    classes: int, *, hidden: int = 4096, dropout: float = 0.5, dtype: DTypeLike = jnp.float32
) -> FasterRCNN:
    """The paper's: ROIPool from conv5_3 of VGG16, whose dense layers are those of the box head, and 9 anchors a cell."""
    return FasterRCNN(
        Last(vgg.Backbone((2, 2, 3, 3, 3), dtype=dtype)),
        RegionHead(9, 512, dtype),
        BoxHead(classes, hidden, dropout, dtype),
        pool_last,
    )


def pool_last(maps: Sequence[Float[Array, "_ _ c"]], boxes: Float[Array, "n 4"]) -> Float[Array, "n 7 7 c"]:
    """ROIPool (arXiv:1504.08083) to 7x7 cells from the last map, whose stride is 16."""
    return roi_pool(maps[-1], boxes, size=7, scale=1 / 16)

"""Fully convolutional networks: the paper's on VGG16 (arXiv:1411.4038), and torchvision's on dilated residual networks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import resnet, vgg
from jaxvision.nn.conv import Conv, ConvNormAct, max_pool_rounding_up
from jaxvision.nn.fpn import Backbone
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.resnet import uniform_fan_in
from jaxvision.ops import pixels
from jaxvision.ops.pixel_losses import PixelLoss, summed
from jaxvision.tasks.segmentation import CROSS_ENTROPY, decode, loss_terms, segmenter
from jaxvision.types import Task

__all__ = ["decode", "fcn", "loss_terms", "skip_fcn"]

Scores = Float[Array, "b _ _ k"]


class FCNHead(nn.Module):
    """torchvision's head: a 3x3 convolution to a quarter of the channels, dropout, and a 1x1 convolution.

    Names: `conv`, `norm`, `logits`.
    """

    classes: int
    dropout: float = 0.1
    """Fraction of the values that are dropped while training."""
    norm: Norm = BatchNorm
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"], *, train: bool) -> Scores:
        """Logits on the map, in float32 (float64 if `dtype` is)."""
        layer = ConvNormAct(features.shape[-1] // 4, 3, norm=self.norm, dtype=self.dtype, kernel_init=uniform_fan_in)
        x = layer.flat(features, "conv", "norm", train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return logits(x, self.classes, self.dtype)


class FCN(nn.Module):
    """A head on the last map of a backbone, and an auxiliary one, if any, on the map before: both as large as these.

    Needs an rng named "dropout" while training.
    """

    backbone: Backbone
    head: nn.Module
    auxiliary: nn.Module | None = None

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> tuple[Scores, ...]:
        """Logits of normalised images: of the head, and of the auxiliary one."""
        *_, before, last = self.backbone(images, train=train)
        scores = self.head(last, train=train)
        return (scores,) if self.auxiliary is None else (scores, self.auxiliary(before, train=train))


class SkipFCN(nn.Module):
    """The paper's FCN-32s, FCN-16s and FCN-8s: VGG16 with its dense layers as convolutions, and scores of finer maps added.

    Names: `backbone`, `conv6`, `conv7`, `scores`, `scores4` and `scores3`, of the maps behind the fourth and third pooling.
    Upsampling is bilinear and fixed, as in the authors' code. Needs an rng named "dropout" while training, unless `dropout`
    is 0.
    """

    backbone: vgg.Backbone
    """Five stages, with ceiling pooling."""
    classes: int
    stride: int = 8
    """Pixels between the scores that are added last: 32, 16 or 8."""
    hidden: int = 4096
    """Channels of the two convolutions that were VGG16's dense layers."""
    dropout: float = 0.5
    """Fraction of the values of both that are dropped while training."""
    at_once: bool = False
    """Multiply the maps of the fourth and third pooling by 0.01 and 0.0001, so that all can be trained at once."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w k"]:
        """Logits of every pixel of normalised images, in float32 (float64 if the network computes in that).

        Raises:
          ValueError: for another stride than 32, 16 and 8.
        """
        if self.stride not in CROPS:
            raise ValueError(f"stride={self.stride} of a SkipFCN; allowed: 32, 16, 8")
        pooled = [max_pool_rounding_up(x, 2) for x in self.backbone(_framed(images), train=train)]
        scores, step, last = self._scores(pooled[4], train), 32, CROPS[self.stride][-1]
        for number, scale, crop in zip((4, 3), (0.01, 0.0001), CROPS[self.stride][:-1], strict=False):
            skip = pooled[number - 1] * (scale if self.at_once else 1)
            scores, step = upsampled(scores, 2, 0, (2 * scores.shape[1] + 2, 2 * scores.shape[2] + 2)), step // 2
            fine = self._zero_scores(skip, f"scores{number}")
            scores = scores + fine[:, crop : crop + scores.shape[1], crop : crop + scores.shape[2]]
        return upsampled(scores, step, last, images.shape[1:3])

    def _scores(self, x: Array, train: bool) -> Scores:
        """Scores of the coarsest map, which is 6 cells smaller than it."""
        for name, size in (("conv6", 7), ("conv7", 1)):
            conv = Conv(self.hidden, size, dtype=self.backbone.dtype, kernel_init=vgg.small_normal, name=name)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(conv(x)))
        return self._zero_scores(x, "scores")

    def _zero_scores(self, x: Array, name: str) -> Scores:
        wide = at_least_float32(self.backbone.dtype)
        return Conv(self.classes, 1, dtype=wide, kernel_init=nn.initializers.zeros, name=name)(x)


CROPS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}
"""Cells of each finer map that lie before the first of the coarser scores, and last pixels before the first of the image."""


def _framed(images: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    """Images with 99 zeros on every side, to which the first convolution adds one: the authors' padding of 100."""
    return jnp.pad(images, ((0, 0), (99, 99), (99, 99), (0, 0)))


def upsampled(
    scores: Float[Array, "b h w k"], factor: int, start: int, size: tuple[int, ...]
) -> Float[Array, "b y x k"]:
    """Scores by a transposed convolution with the bilinear kernel of side `2 * factor`, cut from `start` to this size.

    Without padding: the result begins half a kernel before the first score, and fades to 0 at its border.
    """
    rows, columns = (
        jnp.asarray(_bilinear(extent, factor, start, places), scores.dtype)
        for extent, places in zip(scores.shape[1:3], size, strict=True)
    )
    return jnp.einsum("yh,xw,bhwk->byxk", rows, columns, scores, precision=jax.lax.Precision.HIGHEST)


def _bilinear(extent: int, factor: int, start: int, places: int) -> Float[np.ndarray, "o i"]:
    """Weights with which each place of the result takes from each score."""
    place = np.arange(start, start + places)[:, None] - factor * np.arange(extent)[None, :]
    return np.maximum(1 - np.abs(place - (factor - 0.5)) / factor, 0)


def logits(x: Float[Array, "b h w c"], classes: int, dtype: DTypeLike) -> Scores:
    """Logits by a 1x1 convolution called `logits`, in float32 (float64 if `dtype` is)."""
    return Conv(classes, 1, dtype=at_least_float32(dtype), kernel_init=uniform_fan_in, name="logits")(x)


def fcn_resnet50(
    classes: int, *, auxiliary: bool = True, norm: Norm = BatchNorm, dtype: DTypeLike = jnp.float32
) -> FCN:
    """FCN on ResNet-50, dilated to stride 8, as torchvision has it; 35,322,218 parameters for 21 classes."""
    backbone = resnet.resnet50(None, output_stride=8, norm=norm, dtype=dtype).backbone
    heads = [FCNHead(classes, norm=norm, dtype=dtype) for _ in range(2 if auxiliary else 1)]
    return FCN(backbone, *heads)


def fcn32s(classes: int, *, dtype: DTypeLike = jnp.float32) -> SkipFCN:
    """FCN-32s: 134,346,581 parameters for 21 classes."""
    return SkipFCN(vgg.Backbone(vgg.VGG16, ceil_pooling=True, dtype=dtype), classes, 32)


def fcn16s(classes: int, *, at_once: bool = False, dtype: DTypeLike = jnp.float32) -> SkipFCN:
    """FCN-16s, to be trained from an FCN-32s, or at once; 134,357,354 parameters for 21 classes."""
    return SkipFCN(vgg.Backbone(vgg.VGG16, ceil_pooling=True, dtype=dtype), classes, 16, at_once=at_once)


def fcn8s(classes: int, *, at_once: bool = False, dtype: DTypeLike = jnp.float32) -> SkipFCN:
    """FCN-8s, to be trained from an FCN-16s, or at once; 134,362,751 parameters for 21 classes."""
    return SkipFCN(vgg.Backbone(vgg.VGG16, ceil_pooling=True, dtype=dtype), classes, 8, at_once=at_once)


SUM = summed(CROSS_ENTROPY)
"""Cross-entropy as a sum over the pixels of an image."""
MEAN = (122.67892, 116.66877, 104.00699)
"""Mean of the pixels, as the authors' code has it; the standard deviation there is 1."""


def fcn(
    network: FCN,
    *,
    loss: PixelLoss = CROSS_ENTROPY,
    auxiliary: Sequence[float | int] = (0.5,),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    dtype=jnp.float32,
) -> Task:
    """The task of torchvision's FCN; `auxiliary` is () for a network without an auxiliary head. See `segmenter`."""
    return segmenter(network, loss=loss, auxiliary=auxiliary, mean=mean, std=std, dtype=dtype)


def skip_fcn(
    network: SkipFCN,
    *,
    loss: PixelLoss = SUM,
    mean: float | Sequence[float] = MEAN,
    std: float | Sequence[float] = 1.0,
    dtype=jnp.float32,
) -> Task:
    """The task of the paper's FCN, whose loss is a sum over the pixels of an image: rates are some 1e-10. See `segmenter`."""
    return segmenter(network, loss=loss, mean=mean, std=std, dtype=dtype)

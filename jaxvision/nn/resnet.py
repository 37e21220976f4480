"""Residual networks (arXiv 1512.03385), with the stride in the 3x3 convolution of a bottleneck ("v1.5").

Also ResNeXt (arXiv 1611.05431), whose 3x3 convolutions have groups, and Wide ResNet (arXiv 1605.07146), where they have
more channels.

A `ResNet` is a `Backbone` and a head; `resnet50(...).backbone` is the backbone alone, for detection and segmentation.
Names: `backbone/stem_conv`, `backbone/stage1_block1/conv1`, `.../norm1`, `.../shortcut_conv`, `head`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import ConvNormAct, max_pool
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.nn.stochastic_depth import StochasticDepth, linear_rates

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1 / sqrt(inputs) of zero, as PyTorch starts its dense layers."""
keras_norm: Norm = partial(BatchNorm, epsilon=1.001e-5, momentum=0.99)
"""Batch normalisation as Keras' ResNets have it."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    channels: int
    stride: int
    dtype: DTypeLike
    norm: Norm
    last_scale: nn.initializers.Initializer
    drop: float
    groups: int
    width_per_group: int
    bias: bool
    stride_first: bool
    dilation: int = 1
    inside: int | None = None

    expansion = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run the block; the result has `channels` channels.

        Raises:
            ValueError: for groups, a width of them other than 64, or dilation: only a bottleneck has them.
        """
        if (self.groups, self.width_per_group) != (1, 64):
            raise ValueError(
                f"groups={self.groups}, width_per_group={self.width_per_group}: allowed without bottlenecks are 1 and 64"
            )
        if self.dilation != 1:
            raise ValueError(f"dilation={self.dilation}: allowed without bottlenecks is 1, so no output_stride")
        y = _layer(self, self.inside or self.channels, 3, self.stride).flat(x, "conv1", "norm1", train=train)
        last = _layer(self, self.channels, 3, activation=None, scale_init=self.last_scale)
        y = last.flat(y, "conv2", "norm2", train=train)
        y = StochasticDepth(self.drop, name="drop")(y, train=train)
        return settled(nn.relu(y + _shortcut(self, x, y.shape[-1], train)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride, unless the first has it) and 1x1 convolution beside a shortcut."""

    channels: int
    stride: int
    dtype: DTypeLike
    norm: Norm
    last_scale: nn.initializers.Initializer
    drop: float
    groups: int
    width_per_group: int
    bias: bool
    stride_first: bool
    dilation: int = 1
    inside: int | None = None

    expansion = 4

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run the block; the result has four times `channels` channels."""
        inside = self.inside or self.channels * self.width_per_group // 64 * self.groups
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        y = _layer(self, inside, 1, first).flat(x, "conv1", "norm1", train=train)
        middle = _layer(self, inside, 3, second, groups=self.groups, dilation=self.dilation)
        y = middle.flat(y, "conv2", "norm2", train=train)
        last = _layer(self, self.channels * self.expansion, 1, activation=None, scale_init=self.last_scale)
        y = last.flat(y, "conv3", "norm3", train=train)
        y = StochasticDepth(self.drop, name="drop")(y, train=train)
        return settled(nn.relu(y + _shortcut(self, x, y.shape[-1], train)))


Block = type[BasicBlock] | type[Bottleneck]


class Backbone(nn.Module):
    """A residual network without a head: one map of features for each stage."""

    block: Block
    stage_sizes: Sequence[int]
    """Blocks of every stage."""
    width: int = 64
    """Channels of the stem and of the first stage; every further stage has twice as many."""
    stem: str = "imagenet"
    """"imagenet": 7x7 with stride 2, then max pooling with stride 2. "cifar": 3x3 with stride 1."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = BatchNorm
    zero_init_last: bool = False
    """Start with the last scale of every block at zero, so that a block starts as its shortcut (arXiv 1706.02677)."""
    stochastic_depth: float = 0.0
    """Fraction of the examples whose last block is left out while training; of the first block none (arXiv:1603.09382).

    Needs an rng named "dropout" then.
    """
    groups: int = 1
    """Groups of the 3x3 convolution of a bottleneck."""
    width_per_group: int = 64
    """Channels of each of them in the first stage, where `width` is 64; every further stage has twice as many."""
    bias: bool = False
    """Give every convolution a bias, though a normalisation follows it."""
    stride_first: bool = False
    """Put the stride of a bottleneck into its first convolution, as the paper has it ("v1")."""
    output_stride: int | None = None
    """Largest stride of a map, for segmentation: stages that would have a larger one have dilated 3x3 convolutions instead
    (arXiv:1706.05587). None: no limit. Weights fit whatever it is."""
    inside: Sequence[int] | None = None
    """Channels between the convolutions of each block, one block after another. None: those of the paper."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map: 4, 8, 16, 32 with the "imagenet" stem, 1, 2, 4, 8 with "cifar".

        `output_stride` in place of those above it.
        """
        return tuple(min(stride, self.output_stride or stride) for stride in self._undilated())

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(self.width * 2**stage * self.block.expansion for stage in range(len(self.stage_sizes)))

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """Features of all stages, finest first, of type `dtype`: C2, C3, C4, C5 of the literature.

        Raises:
            ValueError: for another stem than these two, an output stride that no map has, and channels inside of more or
                fewer blocks than there are; see also the blocks and `stochastic_depth.linear_rates`.
        """
        x = self._stem(images, train)
        inside = iter(self._inside())
        dilations = self._dilations()
        rates = iter(linear_rates(self.stochastic_depth, sum(self.stage_sizes)))
        last_scale = nn.initializers.zeros if self.zero_init_last else nn.initializers.ones
        features = []
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                halving = stage > 0 and index == 0
                x = self.block(
                    channels=self.width * 2**stage,
                    stride=2 if halving and dilations[stage] == 1 else 1,
                    dtype=self.dtype,
                    norm=self.norm,
                    last_scale=last_scale,
                    drop=next(rates),
                    groups=self.groups,
                    width_per_group=self.width_per_group,
                    bias=self.bias,
                    stride_first=self.stride_first,
                    dilation=dilations[stage - 1] if halving else dilations[stage],
                    inside=next(inside),
                    name=f"stage{stage + 1}_block{index + 1}",
                )(x, train=train)
            features.append(x)
        return features

    def _inside(self) -> Sequence[int | None]:
        """Channels between the convolutions of each block; None: those of the paper."""
        blocks = sum(self.stage_sizes)
        if self.inside is not None and len(self.inside) != blocks:
            raise ValueError(f"inside={tuple(self.inside)} is of {len(self.inside)} blocks, and there are {blocks}")
        return self.inside or (None,) * blocks

    def _dilations(self) -> list[int]:
        """Dilation of each stage: the stride that its map would have, by the one that it has."""
        plain = self._undilated()
        if self.output_stride not in (None, *plain):
            raise ValueError(f"output_stride={self.output_stride}; allowed: {', '.join(map(str, plain))}, or None")
        return [whole // stride for whole, stride in zip(plain, self.strides, strict=True)]

    def _undilated(self) -> list[int]:
        """Strides of the maps without dilation."""
        finest = 4 if self.stem == "imagenet" else 1
        return [finest * 2**stage for stage in range(len(self.stage_sizes))]

    def _stem(self, images: Array, train: bool) -> Array:
        if self.stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem={self.stem!r} is unknown; allowed: 'imagenet', 'cifar'")
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _layer(self, self.width, size, stride).flat(images, "stem_conv", "stem_norm", train=train)
        return max_pool(x, 3, stride=2, padding=1) if self.stem == "imagenet" else x


class ResNet(nn.Module):
    """A residual network that classifies images."""

    backbone: Backbone
    classes: int | None
    """None: no head; the result are the averaged features of the last stage."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 whatever the network computes in (float64 if it does in that).

        `train` selects the statistics of the batch in place of the running ones.
        """
        wide = at_least_float32(self.backbone.dtype)
        pooled = self.backbone(images, train=train)[-1].astype(wide).mean((1, 2))
        if self.classes is None:
            return pooled
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, kernel_init=uniform_fan_in, name="head")(pooled)


def resnet18(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNet-18; `options` are those of `Backbone`: width, stem, dtype, norm, zero_init_last, stochastic_depth."""
    return ResNet(Backbone(BasicBlock, (2, 2, 2, 2), **options), classes)


def resnet34(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNet-34; `options` as for `resnet18`."""
    return ResNet(Backbone(BasicBlock, (3, 4, 6, 3), **options), classes)


def resnet50(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNet-50; `options` as for `resnet18`."""
    return ResNet(Backbone(Bottleneck, (3, 4, 6, 3), **options), classes)


def resnet101(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNet-101; `options` as for `resnet18`."""
    return ResNet(Backbone(Bottleneck, (3, 4, 23, 3), **options), classes)


def resnet152(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNet-152; `options` as for `resnet18`."""
    return ResNet(Backbone(Bottleneck, (3, 8, 36, 3), **options), classes)


def resnext50_32x4d(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNeXt-50 with 32 groups of 4 channels; `options` as for `resnet18`."""
    return resnet50(classes, groups=32, width_per_group=4, **options)


def resnext101_32x8d(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNeXt-101 with 32 groups of 8 channels; `options` as for `resnet18`."""
    return resnet101(classes, groups=32, width_per_group=8, **options)


def resnext101_64x4d(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNeXt-101 with 64 groups of 4 channels; `options` as for `resnet18`."""
    return resnet101(classes, groups=64, width_per_group=4, **options)


def wide_resnet50_2(classes: int | None = 1000, **options: Any) -> ResNet:
    """Wide ResNet-50-2: bottlenecks of twice the channels inside; `options` as for `resnet18`."""
    return resnet50(classes, width_per_group=128, **options)


def wide_resnet101_2(classes: int | None = 1000, **options: Any) -> ResNet:
    """Wide ResNet-101-2: bottlenecks of twice the channels inside; `options` as for `resnet18`."""
    return resnet101(classes, width_per_group=128, **options)


def keras_resnet50(classes: int | None = 1000, **options: Any) -> ResNet:
    """ResNet-50 as `keras.applications` has it: biases, "v1", epsilon 1.001e-5; `options` as for `resnet18`, but norm."""
    return resnet50(classes, bias=True, stride_first=True, norm=keras_norm, **options)


def _layer(
    network: BasicBlock | Bottleneck | Backbone, features: int, size: int, stride: int = 1, **options: Any
) -> ConvNormAct:
    """A layer with the normalisation, the type and the biases of the network; `options` are those of `ConvNormAct`."""
    part = {"use_bias": network.bias, "norm": network.norm, "dtype": network.dtype}
    return ConvNormAct(features, size, stride, **part, **options)


def _shortcut(block: BasicBlock | Bottleneck, x: Array, channels: int, train: bool) -> Array:
    """`x` itself, or projected where the block changes its shape."""
    if block.stride == 1 and x.shape[-1] == channels:
        return x
    layer = _layer(block, channels, 1, block.stride, activation=None)
    return layer.flat(x, "shortcut_conv", "shortcut_norm", train=train)

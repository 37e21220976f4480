"""Networks of inverted residuals: MobileNetV2 (arXiv 1801.04381), and what other tables of stages make of them.

A `MobileNet` is a `Backbone`, a last 1x1 convolution and a head. Names: `backbone/stem_conv`,
`backbone/stage2_block1/expand_conv`, `.../depthwise_conv`, `.../project_norm`, `last_conv`, `head`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Activation, ConvNormAct, Padding, kaiming_normal
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.nn.stochastic_depth import StochasticDepth, linear_rates

tensorflow_norm: Norm = partial(BatchNorm, epsilon=1e-3)
"""Batch normalisation with the epsilon of TensorFlow's networks of this kind."""
frozen_tensorflow_norm: Norm = partial(FrozenBatchNorm, epsilon=1e-3)
"""TensorFlow's normalisation with fixed statistics: for trained weights and little data."""
depthwise_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Normal with variance 2 / kernel area: what reaches one output of a depthwise convolution is one channel."""


class Stage(NamedTuple):
    """Blocks of one shape, one after another."""

    expansion: int
    """Channels inside a block, as a multiple of those that enter it; 1: the block has no expanding convolution."""
    channels: int
    blocks: int
    stride: int
    """Stride of the first block; the others have stride 1."""
    kernel: int = 3
    """Side of the depthwise convolution."""


MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution (which has the stride) and linear 1x1 projection; a shortcut if shapes agree."""

    expansion: int
    channels: int
    stride: int
    kernel: int
    padding: str
    dtype: DTypeLike
    norm: Norm
    drop: float

    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run the block; the result has `channels` channels."""
        return self.run(x, train=train)[0]

    @nn.compact
    def run(
        self, x: Float[Array, "b h w i"], *, train: bool
    ) -> tuple[Float[Array, "b y x o"], Float[Array, "b h w e"]]:
        """The result, and what was expanded for it."""
        inside, y = self.expansion * x.shape[-1], x
        if self.expansion > 1:
            y = _layer(self, "expand", y, inside, 1, train=train)
        expanded = y
        y = _layer(self, "depthwise", y, inside, self.kernel, self.stride, groups=inside, train=train)
        y = _layer(self, "project", y, self.channels, 1, activation=None, train=train)
        if self.stride > 1 or y.shape != x.shape:
            return y, expanded
        return settled(x + StochasticDepth(self.drop, name="drop")(y, train=train)), expanded


class Backbone(nn.Module):
    """A stem and stages of inverted residuals: one map of features for each stride."""

    stages: Sequence[Stage]
    stem: int = 32
    """Channels of the first convolution, 3x3 with stride 2."""
    padding: str = "symmetric"
    """"symmetric": half of the kernel on every side, as PyTorch. "same": TensorFlow's, see `same_padding`."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = BatchNorm
    stochastic_depth: float = 0.0
    """Fraction of the examples whose last block is left out while training, if it has a shortcut; of the first block none.

    Needs an rng named "dropout" then (arXiv:1603.09382).
    """
    expanded: bool = False
    """Take the features of every stride but the last inside the block that leaves it, six times as many: for SSD."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map: 2, 4, 8, 16, 32 of MobileNetV2."""
        strides = [2]
        for stage in self.stages:
            if stage.stride > 1:
                strides.append(strides[-1] * stage.stride)
        return tuple(strides)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        widths, channels = [self.stem], self.stem
        for stage in self.stages:
            if stage.stride > 1:
                widths[-1] = stage.expansion * channels if self.expanded else channels
                widths.append(stage.channels)
            widths[-1] = channels = stage.channels
        return tuple(widths)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """The last features of every stride, finest first, of type `dtype`: strides 2, 4, 8, 16, 32 of MobileNetV2.

        Raises:
            ValueError: for another padding than these two, or a rate of stochastic depth outside 0 to below 1.
        """
        rates = iter(linear_rates(self.stochastic_depth, sum(stage.blocks for stage in self.stages)))
        x = _layer(self, "stem", images, self.stem, 3, 2, train=train)
        features = [x]
        for number, stage in enumerate(self.stages, 1):
            for block in range(1, stage.blocks + 1):
                stride = stage.stride if block == 1 else 1
                x, inside = InvertedResidual(
                    expansion=stage.expansion,
                    channels=stage.channels,
                    stride=stride,
                    kernel=stage.kernel,
                    padding=self.padding,
                    dtype=self.dtype,
                    norm=self.norm,
                    drop=next(rates),
                    name=f"stage{number}_block{block}",
                ).run(x, train=train)
                if stride > 1 and self.expanded:
                    features[-1] = inside
                features = [*features, x] if stride > 1 else [*features[:-1], x]
        return features


class MobileNet(nn.Module):
    """Inverted residuals that classify images.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    backbone: Backbone
    classes: int | None
    """None: no head; the result are the averaged features of the last convolution."""
    last: int = 1280
    """Channels of the last 1x1 convolution."""
    dropout: float = 0.2
    """Fraction of the averaged features dropped while training."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if the network computes in that)."""
        wide = at_least_float32(self.backbone.dtype)
        x = self.backbone(images, train=train)[-1]
        last = ConvNormAct(self.last, 1, norm=self.backbone.norm, activation=relu6, dtype=self.backbone.dtype)
        x = last.flat(x, "last_conv", "last_norm", train=train).astype(wide).mean((1, 2))
        if self.classes is None:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        head = nn.Dense(
            self.classes, dtype=wide, param_dtype=wide, kernel_init=nn.initializers.normal(0.01), name="head"
        )
        return head(x)


def mobilenet_v2(classes: int | None = 1000, *, width: int | float = 1, **options: Any) -> MobileNet:
    """MobileNetV2.

    Args:
        classes: number of logits; None for features without a head.
        width: multiple of all channels but those of the last convolution, which never has fewer than 1280.
        options: those of `Backbone`: stages (by default those of the paper), padding, dtype, norm, stochastic_depth.
    """
    stages = [
        stage._replace(channels=multiple_of_8(stage.channels * width)) for stage in options.pop("stages", MOBILENET_V2)
    ]
    backbone = Backbone(stages, stem=multiple_of_8(32 * width), **options)
    return MobileNet(backbone, classes, last=multiple_of_8(1280 * max(1, width)))


def multiple_of_8(channels: int | float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def relu6(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`x` between 0 and 6; the gradient is 1 between them and 0 elsewhere, also at 0 and 6."""
    return jnp.where((x > 0) & (x < 6), x, lax.stop_gradient(jnp.clip(x, 0, 6)))


def same_padding(pixels: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after an axis of `pixels` for ceil(pixels / stride) outputs; the odd one goes behind."""
    outputs = -(-pixels // stride)
    total = max((outputs - 1) * stride + kernel - pixels, 0)
    return total // 2, total - total // 2


def _layer(
    module: InvertedResidual | Backbone,
    name: str,
    x: Array,
    features: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Activation | None = relu6,
    train: bool,
) -> Array:
    """A layer with the submodules `{name}_conv` and `{name}_norm`."""
    layer = ConvNormAct(
        features,
        kernel,
        stride,
        _padding(module.padding, x, kernel, stride),
        groups=groups,
        norm=module.norm,
        activation=activation,
        dtype=module.dtype,
        kernel_init=kaiming_normal if groups == 1 else depthwise_normal,
    )
    return layer.flat(x, f"{name}_conv", f"{name}_norm", train=train)


def _padding(padding: str, x: Array, kernel: int, stride: int) -> Padding:
    if padding == "symmetric":
        return kernel // 2
    if padding == "same":
        return same_padding(x.shape[1], kernel, stride), same_padding(x.shape[2], kernel, stride)
    raise ValueError(f"padding={padding!r} is unknown; allowed: 'symmetric', 'same'")

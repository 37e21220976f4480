"""SqueezeNet 1.0 and 1.1 (arXiv 1602.07360).

Names: `stem_conv`, `stage1_fire1/squeeze`, `.../expand1x1`, `.../expand3x3`, `head_conv`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv, max_pool_rounding_up
from jaxvision.nn.precision import at_least_float32

uniform_he = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
"""Uniform with variance 2 / (input channels * kernel area), for a ReLU behind it (arXiv 1502.01852)."""


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution of it side by side, four times as many each."""

    squeeze: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        """Run the module; the result has eight times `squeeze` channels."""
        x = nn.relu(_conv("squeeze", self.squeeze, 1, dtype=self.dtype)(x))
        one = _conv("expand1x1", 4 * self.squeeze, 1, dtype=self.dtype)(x)
        three = _conv("expand3x3", 4 * self.squeeze, 3, padding=1, dtype=self.dtype)(x)
        return nn.relu(jnp.concatenate([one, three], axis=-1))


class SqueezeNet(nn.Module):
    """Fire modules that classify images; 3x3 max pooling with stride 2 before every stage. There is no normalisation.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    stages: Sequence[Sequence[int]]
    """Squeezed channels of every fire module of every stage."""
    stem: int
    """Channels of the first convolution, which has stride 2 and no padding."""
    stem_kernel: int
    classes: int
    dropout: float = 0.5
    """Fraction of the last features dropped while training."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is): never negative, a ReLU is the last layer."""
        x = nn.relu(_conv("stem_conv", self.stem, self.stem_kernel, stride=2, dtype=self.dtype)(images))
        for stage, squeezed in enumerate(self.stages, 1):
            x = max_pool_rounding_up(x, 3)
            for number, channels in enumerate(squeezed, 1):
                x = Fire(channels, self.dtype, name=f"stage{stage}_fire{number}")(x)
        wide = at_least_float32(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.astype(wide))
        head = Conv(self.classes, 1, dtype=wide, kernel_init=nn.initializers.normal(0.01), name="head_conv")
        return nn.relu(head(x)).mean((1, 2))


def squeezenet1_0(classes: int = 1000, dtype: DTypeLike = jnp.float32) -> SqueezeNet:
    """SqueezeNet 1.0."""
    return SqueezeNet(((16, 16, 32), (32, 48, 48, 64), (64,)), 96, 7, classes, dtype=dtype)


def squeezenet1_1(classes: int = 1000, dtype: DTypeLike = jnp.float32) -> SqueezeNet:
    """SqueezeNet 1.1: a smaller stem and earlier pooling; 2.4 times less computation than 1.0, and as accurate."""
    return SqueezeNet(((16, 16), (32, 32), (48, 48, 64, 64)), 64, 3, classes, dtype=dtype)


def _conv(name: str, features: int, kernel: int, *, dtype: DTypeLike, stride: int = 1, padding: int = 0) -> Conv:
    return Conv(features, kernel, stride, padding, dtype=dtype, kernel_init=uniform_he, name=name)

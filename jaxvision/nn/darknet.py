"""Darknet's backbones: Darknet-53 (arXiv:1804.02767), and that of YOLOv3-tiny.

Convolutions are numbered from 0 in the order of their `.cfg` file, in the backbone and behind it: `conv12` is the
thirteenth. Each, but those of the outputs, has batch normalisation and a leaky ReLU: `conv12/conv`, `conv12/norm`.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv, ConvNormAct, max_pool
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled

darknet_norm: Norm = partial(BatchNorm, epsilon=1e-5, momentum=0.99)
"""Batch normalisation with Darknet's constants, those of its computation on a GPU, where its weights were trained."""
frozen_norm: Norm = partial(FrozenBatchNorm, epsilon=1e-5)
"""Darknet's normalisation with fixed statistics: for trained weights and little data."""
darknet_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Normal with variance 2 / (input channels * kernel area), as Darknet begins: outputs, which are few, begin small."""
darknet_layer = partial(ConvNormAct, activation=partial(nn.leaky_relu, negative_slope=0.1), kernel_init=darknet_normal)
"""Convolution, normalisation, leaky ReLU of slope 0.1; the field `norm` is to be given."""
Maps = list[Float[Array, "b _ _ _"]]


class Darknet53(nn.Module):
    """The 52 convolutions of Darknet-53: pairs of 1x1 and 3x3 beside shortcuts."""

    blocks: Sequence[int] = (1, 2, 8, 8, 4)
    """Pairs in each stage."""
    width: int = 32
    """Channels of the first convolution; every stage has twice as many as the one before."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = darknet_norm
    convolutions = property(lambda self: 1 + sum(1 + 2 * blocks for blocks in self.blocks))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map: 2, 4, 8, 16, 32."""
        return tuple(2**stage for stage in range(1, len(self.blocks) + 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(self.width * stride for stride in self.strides)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """Features of all stages, finest first: strides 2, 4, 8, 16, 32."""
        layer = Numbered(self.dtype, self.norm, train, 0)
        x, features, channels = layer(images, self.width, 3), [], self.width
        for blocks in self.blocks:
            channels *= 2
            x = layer(x, channels, 3, 2)
            for _ in range(blocks):
                x = settled(x + layer(layer(x, channels // 2, 1), channels, 3))
            features.append(x)
        return features


class DarknetTiny(nn.Module):
    """The seven convolutions of YOLOv3-tiny before its outputs, with 2x2 max pooling between them."""

    width: int = 16
    """Channels of the first; every one has twice as many as the one before."""
    layers: int = 7
    """Convolutions; the pooling before the last has stride 1."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = darknet_norm
    convolutions = property(lambda self: self.layers)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of both maps: 16 and 32."""
        return 2 ** (self.layers - 3), 2 ** (self.layers - 2)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of both maps."""
        return self.width * 2 ** (self.layers - 3), self.width * 2 ** (self.layers - 1)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The last but two of these maps and the last: strides 16 and 32."""
        layer = Numbered(self.dtype, self.norm, train, 0)
        x, features = images, []
        for number in range(self.layers):
            if number == self.layers - 1:
                x = max_pool(x, 2, stride=1, padding=((0, 1), (0, 1)))
            elif number > 0:
                x = max_pool(x, 2)
            x = layer(x, self.width * 2**number, 3)
            features.append(x)
        return [features[-3], features[-1]]


class Numbered:
    """Makes layers `conv0`, `conv1`, ... of the module that is being run."""

    def __init__(self, dtype: DTypeLike, norm: Norm, train: bool, first: int):
        self.dtype, self.norm, self.train, self.number = dtype, norm, train, first

    def name(self) -> str:
        """The name of the next layer."""
        self.number += 1
        return f"conv{self.number - 1}"

    def __call__(self, x: Array, channels: int, kernel: int, stride: int = 1) -> Array:
        """What the next layer makes of `x`."""
        layer = darknet_layer(channels, kernel, stride, dtype=self.dtype, norm=self.norm, name=self.name())
        return layer(x, train=self.train)

    def output(self, x: Array, priors: int, each: int) -> Array:
        """A 1x1 convolution without normalisation, in float32 at least: `b h w priors each`."""
        y = Conv(priors * each, 1, dtype=self.dtype, kernel_init=darknet_normal, name=self.name())(x)
        return y.reshape(*y.shape[:3], priors, each).astype(at_least_float32(self.dtype))


def enlarged(x: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    """Every pixel twice along both axes."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

"""VGG networks (arXiv 1409.1556), plain and with batch normalisation.

A `VGG` is a `Backbone` and three dense layers; `vgg16(...).backbone` is the backbone alone, for detection.
Names: `backbone/stage4_conv3`, `backbone/stage4_norm3`, `dense1`, `dense2`, `head`.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import ConvNormAct, max_pool, max_pool_rounding_up
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32

VGG16 = (2, 2, 3, 3, 3)
"""Convolutions of every stage of VGG-16 (D)."""

small_normal = nn.initializers.normal(0.01)
"""Normal with standard deviation 0.01, as torchvision starts the dense layers."""


class Backbone(nn.Module):
    """Stages of 3x3 convolutions, each with normalisation (if any) and ReLU, and 2x2 max pooling between stages."""

    depths: Sequence[int]
    """Convolutions of every stage."""
    channels: Sequence[int] = (64, 128, 256, 512, 512)
    """Channels of every stage."""
    dtype: DTypeLike = jnp.float32
    norm: Norm | None = None
    ceil_pooling: bool = False
    """Sides of an odd number of pixels are halved upwards, as SSD has it."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map: 1, 2, 4, 8, 16."""
        return tuple(2**stage for stage in range(len(self.depths)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(self.channels)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """Features of all stages before their pooling, finest first, of type `dtype`; strides 1, 2, 4, 8, 16.

        Raises:
            ValueError: if `depths` and `channels` name different numbers of stages.
        """
        if len(self.depths) != len(self.channels):
            raise ValueError(f"VGG: depths {self.depths} and channels {self.channels} must name the same stages")
        x, features = images, []
        for stage, (depth, channels) in enumerate(zip(self.depths, self.channels, strict=True), 1):
            if stage > 1:
                x = max_pool_rounding_up(x, 2) if self.ceil_pooling else max_pool(x, 2)
            for layer in range(1, depth + 1):
                conv = ConvNormAct(channels, 3, use_bias=True, norm=self.norm, dtype=self.dtype)
                x = conv.flat(x, f"stage{stage}_conv{layer}", f"stage{stage}_norm{layer}", train=train)
            features.append(x)
        return features


class VGG(nn.Module):
    """A VGG network that classifies images.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    backbone: Backbone
    classes: int
    hidden: int = 4096
    """Units of the two dense layers before the head."""
    dropout: float = 0.5
    """Fraction of the units of both dense layers that are dropped while training."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images of at least 32x32 pixels, in float32 (float64 if the network computes in that)."""
        dtype = self.backbone.dtype
        wide = at_least_float32(dtype)
        x = max_pool(self.backbone(images, train=train)[-1], 2)
        x = adaptive_average_pool(x.astype(wide), 7)
        x = x.reshape(x.shape[0], -1)
        for name in ("dense1", "dense2"):
            dense = nn.Dense(self.hidden, dtype=dtype, param_dtype=wide, kernel_init=small_normal, name=name)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(dense(x)))
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, kernel_init=small_normal, name="head")(x)


def adaptive_average_pool(images: Float[Array, "b h w c"], side: int) -> Float[Array, "b {side} {side} c"]:
    """Means over `side` x `side` areas, as even as possible: PyTorch's AdaptiveAvgPool2d; fewer pixels are repeated."""
    height, width = images.shape[1:3]
    if (height, width) == (side, side):
        return images
    rows, columns = (jnp.asarray(_averages(count, side), images.dtype) for count in (height, width))
    return jnp.einsum("yh,xw,bhwc->byxc", rows, columns, images, precision=lax.Precision.HIGHEST)


def _averages(count: int, areas: int) -> np.ndarray:
    """A matrix of `areas` rows that averages `count` pixels: row `i` those from i/areas to (i+1)/areas, rounded outwards."""
    area, pixel = np.arange(areas)[:, None], np.arange(count)[None, :]
    inside = (pixel >= area * count // areas) & (pixel < -(-(area + 1) * count // areas))
    return inside / inside.sum(1, keepdims=True)


def vgg11(classes: int = 1000, **options: Any) -> VGG:
    """VGG-11 (A); `options` are those of `Backbone`: channels, dtype, norm. Without a norm unless one is given."""
    return VGG(Backbone((1, 1, 2, 2, 2), **options), classes)


def vgg13(classes: int = 1000, **options: Any) -> VGG:
    """VGG-13 (B); `options` as for `vgg11`."""
    return VGG(Backbone((2, 2, 2, 2, 2), **options), classes)


def vgg16(classes: int = 1000, **options: Any) -> VGG:
    """VGG-16 (D); `options` as for `vgg11`."""
    return VGG(Backbone(VGG16, **options), classes)


def vgg19(classes: int = 1000, **options: Any) -> VGG:
    """VGG-19 (E); `options` as for `vgg11`."""
    return VGG(Backbone((2, 2, 4, 4, 4), **options), classes)


def vgg11_bn(classes: int = 1000, norm: Norm = BatchNorm, **options: Any) -> VGG:
    """VGG-11 with a normalisation behind every convolution; `options` as for `vgg11`."""
    return vgg11(classes, norm=norm, **options)


def vgg13_bn(classes: int = 1000, norm: Norm = BatchNorm, **options: Any) -> VGG:
    """VGG-13 with a normalisation behind every convolution; `options` as for `vgg11`."""
    return vgg13(classes, norm=norm, **options)


def vgg16_bn(classes: int = 1000, norm: Norm = BatchNorm, **options: Any) -> VGG:
    """VGG-16 with a normalisation behind every convolution; `options` as for `vgg11`."""
    return vgg16(classes, norm=norm, **options)


def vgg19_bn(classes: int = 1000, norm: Norm = BatchNorm, **options: Any) -> VGG:
    """VGG-19 with a normalisation behind every convolution; `options` as for `vgg11`."""
    return vgg19(classes, norm=norm, **options)

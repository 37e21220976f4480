"""GoogLeNet (arXiv 1409.4842) with batch normalisation, in the form of torchvision, for images of 224x224 pixels.

torchvision's 5x5 branches are 3x3 convolutions. Modules are named as there: `conv1`, `inception3a/branch2_1`, `aux1`,
each with `conv` and `norm`; `head`.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import ConvNormAct, max_pool, max_pool_rounding_up
from jaxvision.nn.inception import tensorflow_norm
from jaxvision.nn.norm import Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.vgg import adaptive_average_pool, small_normal

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of every module: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 behind pooling (table 1)."""


class Inception(nn.Module):
    """Four branches of convolutions over the same features, concatenated."""

    channels: tuple[int, int, int, int, int, int]
    dtype: DTypeLike
    norm: Norm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b h w o"]:
        """Run the branches."""
        one, reduce2, two, reduce3, three, pooled = self.channels
        branches = [
            _conv(self, "branch1", x, one, 1, train),
            _conv(self, "branch2_2", _conv(self, "branch2_1", x, reduce2, 1, train), two, 3, train),
            _conv(self, "branch3_2", _conv(self, "branch3_1", x, reduce3, 1, train), three, 3, train),
            _conv(self, "branch4", max_pool(x, 3, stride=1, padding=1), pooled, 1, train),
        ]
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """A small classifier of the features in the middle, which trains the layers below; not used afterwards."""

    classes: int
    dropout: float
    dtype: DTypeLike
    norm: Norm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b k"]:
        """Logits."""
        wide = at_least_float32(self.dtype)
        x = _conv(self, "conv", adaptive_average_pool(x, 4), 128, 1, train)
        x = x.astype(wide).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(1024, dtype=wide, param_dtype=wide, kernel_init=small_normal, name="fc1")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, kernel_init=small_normal, name="fc2")(x)


class GoogLeNet(nn.Module):
    """GoogLeNet, which classifies images of at least 15x15 pixels.

    Needs an rng named "dropout" while training, unless `dropout` and `auxiliary_dropout` are 0.
    """

    classes: int
    auxiliary: bool = False
    """Have two auxiliary heads."""
    dropout: float = 0.2
    """Fraction of the averaged features dropped while training."""
    auxiliary_dropout: float = 0.7
    """Fraction of the units of the auxiliary heads that are dropped while training."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = tensorflow_norm
    modules: Mapping[str, tuple[int, int, int, int, int, int]] = FrozenDict(MODULES)
    """Channels of every module by its name, as in `MODULES`; the auxiliary heads are behind 4a and 4d."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b k"], Float[Array, "b k"], Float[Array, "b k"]]:
        """Logits of normalised images, in float32 (float64 if `dtype` is); training with `auxiliary`: also of both heads.

        The later head is the first of them.

        Raises:
            ValueError: if the images are too small.
        """
        if min(images.shape[1:3]) < 15:
            raise ValueError(f"GoogLeNet needs images of at least 15x15 pixels, not {images.shape[1:3]}")
        wide = at_least_float32(self.dtype)
        x, others = self._stem(images, train), []
        for number, channels in self.modules.items():
            if number in ("4a", "5a"):
                x = max_pool_rounding_up(x, 3 if number == "4a" else 2)
            x = Inception(channels, self.dtype, self.norm, name=f"inception{number}")(x, train=train)
            if self.auxiliary and number in ("4a", "4d") and (train or self.is_initializing()):
                name = "aux1" if number == "4a" else "aux2"
                head = AuxiliaryHead(self.classes, self.auxiliary_dropout, self.dtype, self.norm, name=name)
                others.append(head(x, train=train))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.astype(wide).mean((1, 2)))
        logits = nn.Dense(self.classes, dtype=wide, param_dtype=wide, kernel_init=small_normal, name="head")(x)
        return (logits, others[1], others[0]) if train and self.auxiliary else logits

    def _stem(self, images: Array, train: bool) -> Array:
        """28x28 features of 224x224 pixels."""
        x = max_pool_rounding_up(_conv(self, "conv1", images, 64, 7, train, stride=2), 3)
        x = _conv(self, "conv3", _conv(self, "conv2", x, 64, 1, train), 192, 3, train)
        return max_pool_rounding_up(x, 3)


def googlenet(classes: int = 1000, *, auxiliary: bool = False, dtype: DTypeLike = jnp.float32) -> GoogLeNet:
    """GoogLeNet; 13,004,888 parameters with auxiliary heads, whose loss `classification(auxiliary=0.3)` adds."""
    return GoogLeNet(classes, auxiliary, dtype=dtype)


def _conv(
    module: Inception | AuxiliaryHead | GoogLeNet,
    name: str,
    x: Array,
    features: int,
    size: int,
    train: bool,
    *,
    stride: int = 1,
) -> Array:
    part = {"norm": module.norm, "dtype": module.dtype, "kernel_init": small_normal}
    return ConvNormAct(features, size, stride, **part, name=name)(x, train=train)

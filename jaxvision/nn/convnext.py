"""ConvNeXt (arXiv 2201.03545), in the form of torchvision.

A `ConvNeXt` is a `Backbone` and a head. Names: `backbone/stem_conv`, `backbone/stem_norm`, `backbone/stage1_block1/conv`,
`.../norm`, `.../dense1`, `.../dense2`, `.../layer_scale`, `backbone/stage2_norm`, `backbone/stage2_conv`, `norm`, `head`.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import layer_norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.nn.stochastic_depth import StochasticDepth, linear_rates
from jaxvision.nn.vit import transformer_normal

LAYER_SCALE = 1e-6
"""What the scales of a block's channels start from."""


class Block(nn.Module):
    """7x7 depthwise convolution, LayerNorm, a dense layer of four times the channels, a scale; beside a shortcut."""

    dtype: DTypeLike
    drop: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        """Run the block."""
        channels, wide = x.shape[-1], at_least_float32(self.dtype)
        y = Conv(
            channels, 7, padding=3, groups=channels, dtype=self.dtype, kernel_init=transformer_normal, name="conv"
        )(x)
        y = layer_norm("norm", y).astype(self.dtype)
        y = nn.gelu(self._dense("dense1", 4 * channels)(y), approximate=False)
        y = self._dense("dense2", channels)(y)
        scale = self.param("layer_scale", nn.initializers.constant(LAYER_SCALE), (channels,), wide)
        y = y * scale.astype(self.dtype).reshape(1, 1, 1, -1)
        return settled(x + StochasticDepth(self.drop, name="drop")(y, train=train))

    def _dense(self, name: str, features: int) -> nn.Dense:
        wide = at_least_float32(self.dtype)
        return nn.Dense(features, dtype=self.dtype, param_dtype=wide, kernel_init=transformer_normal, name=name)


class Backbone(nn.Module):
    """A ConvNeXt without a head: one map of features for each stage."""

    depths: Sequence[int]
    """Blocks of every stage."""
    width: int = 96
    """Channels of the first stage; every further stage has twice as many."""
    stochastic_depth: float = 0.0
    """Fraction of the examples whose last block is left out while training; of the first block none (arXiv:1603.09382).

    Needs an rng named "dropout" then.
    """
    dtype: DTypeLike = jnp.float32

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map: 4, 8, 16, 32."""
        return tuple(4 * 2**stage for stage in range(len(self.depths)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """Features of all stages, finest first, of type `dtype`; strides 4, 8, 16, 32.

        Raises:
            ValueError: for a rate of stochastic depth outside 0 to below 1.
        """
        rates = iter(linear_rates(self.stochastic_depth, sum(self.depths)))
        x = self._halved("stem_conv", images, self.width, 4)
        x, features = layer_norm("stem_norm", x).astype(self.dtype), []
        for stage, blocks in enumerate(self.depths, 1):
            if stage > 1:
                x = layer_norm(f"stage{stage}_norm", x).astype(self.dtype)
                x = self._halved(f"stage{stage}_conv", x, self.width * 2 ** (stage - 1), 2)
            for block in range(1, blocks + 1):
                x = Block(self.dtype, next(rates), name=f"stage{stage}_block{block}")(x, train=train)
            features.append(x)
        return features

    def _halved(self, name: str, x: Array, channels: int, side: int) -> Array:
        """A convolution of squares that do not overlap."""
        return Conv(channels, side, side, dtype=self.dtype, kernel_init=transformer_normal, name=name)(x)


class ConvNeXt(nn.Module):
    """A ConvNeXt that classifies images. It has no dropout: training differs by stochastic depth alone."""

    backbone: Backbone
    classes: int

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if the network computes in that)."""
        wide = at_least_float32(self.backbone.dtype)
        x = self.backbone(images, train=train)[-1].astype(wide).mean((1, 2))
        x = layer_norm("norm", x)
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, kernel_init=transformer_normal, name="head")(x)


def convnext_tiny(classes: int = 1000, **options: Any) -> ConvNeXt:
    """ConvNeXt-T; `options` are those of `Backbone`: stochastic_depth (0.1 in the paper), dtype."""
    return ConvNeXt(Backbone(**{"depths": (3, 3, 9, 3), **options}), classes)


def convnext_small(classes: int = 1000, **options: Any) -> ConvNeXt:
    """ConvNeXt-S; `options` as for `convnext_tiny`; stochastic_depth is 0.4 in the paper."""
    return ConvNeXt(Backbone(**{"depths": (3, 3, 27, 3), **options}), classes)


def convnext_base(classes: int = 1000, **options: Any) -> ConvNeXt:
    """ConvNeXt-B; `options` as for `convnext_tiny`; stochastic_depth is 0.5 in the paper."""
    return ConvNeXt(Backbone(**{"depths": (3, 3, 27, 3), "width": 128, **options}), classes)

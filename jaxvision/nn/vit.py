"""Vision transformers (arXiv 2010.11929), in the form of timm's `vit_*_patch*_224`.

Names: `patches`, `class_token`, `positions`, `block1/norm1`, `block1/qkv`, `block1/projection`, `block1/norm2`,
`block1/dense1`, `block1/dense2`, `norm`, `head`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import layer_norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.stochastic_depth import StochasticDepth, linear_rates

transformer_normal = nn.initializers.normal(0.02)


def attention(
    query: Float[Array, "b n h d"], key: Float[Array, "b n h d"], value: Float[Array, "b n h d"]
) -> Float[Array, "b n h d"]:
    """`softmax(query key^T / sqrt(d)) value` for every head, by `jax.nn.dot_product_attention`; softmax in float32.

    In float64, all of it is in float64. That and float16, which the library multiplies on GPUs alone, are written out here.
    """
    if query.dtype in (jnp.float32, jnp.bfloat16):
        with jax.numpy_dtype_promotion("standard"):  # it multiplies bfloat16 into float32
            return jax.nn.dot_product_attention(query, key, value)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    weights = nn.softmax(logits.astype(at_least_float32(logits.dtype))).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


class Block(nn.Module):
    """Self-attention and a dense layer of four times the width, both behind a LayerNorm and beside a shortcut."""

    heads: int
    dtype: DTypeLike
    drop: float
    """The rate of stochastic depth of either branch; 0 unless training."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Run the block.

        Raises:
            ValueError: if `heads` does not divide the width of the tokens.
        """
        width = tokens.shape[-1]
        if width % self.heads:
            raise ValueError(f"{width} channels do not form {self.heads} heads of equal size")
        x = layer_norm("norm1", tokens).astype(self.dtype)
        qkv = _dense("qkv", 3 * width, self.dtype)(x).reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        attended = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape)
        tokens = tokens + self._kept("drop1", _dense("projection", width, self.dtype)(attended))
        x = layer_norm("norm2", tokens).astype(self.dtype)
        x = nn.gelu(_dense("dense1", 4 * width, self.dtype)(x), approximate=False)
        return tokens + self._kept("drop2", _dense("dense2", width, self.dtype)(x))

    def _kept(self, name: str, branch: Array) -> Array:
        return StochasticDepth(self.drop, name=name)(branch, train=True)


class ViT(nn.Module):
    """A vision transformer that classifies images by its class token.

    It has no dropout: training differs by stochastic depth alone, which needs an rng named "dropout". The number of
    learned positions is that of the patches of the images which `init` saw, and one.
    """

    patch: int
    """Side of a patch in pixels."""
    width: int
    depth: int
    heads: int
    classes: int
    remat: bool = False
    """Compute the inside of a block again for its gradient: less memory, more time, the same result."""
    stochastic_depth: float = 0.0
    """Share of the examples whose branches of the last block are left out while training; of the first block none."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is).

        Raises:
            ValueError: if the images are not whole patches, or `heads` does not divide `width`.
        """
        if images.shape[1] % self.patch or images.shape[2] % self.patch:
            raise ValueError(f"images of {images.shape[1:3]} pixels are not whole patches of {self.patch}")
        wide = at_least_float32(self.dtype)
        tokens = self._embed(images, wide)
        block = nn.remat(Block) if self.remat else Block
        for number, rate in enumerate(linear_rates(self.stochastic_depth, self.depth), 1):
            tokens = block(self.heads, self.dtype, rate if train else 0.0, name=f"block{number}")(tokens)
        first = layer_norm("norm", tokens[:, 0])
        return _dense("head", self.classes, wide)(first)

    def _embed(self, images: Array, wide: DTypeLike) -> Array:
        """Tokens `b n+1 d`: the class token, then the patches in reading order, with their positions added."""
        patches = Conv(self.width, self.patch, self.patch, dtype=self.dtype, name="patches")(images)
        patches = patches.reshape(patches.shape[0], -1, self.width)
        class_token = self.param("class_token", nn.initializers.normal(1e-6), (1, 1, self.width), wide)
        positions = self.param("positions", transformer_normal, (1, patches.shape[1] + 1, self.width), wide)
        first = jnp.broadcast_to(class_token.astype(self.dtype), (patches.shape[0], 1, self.width))
        tokens = jnp.concatenate([first, patches], axis=1)
        return tokens + positions.astype(self.dtype)


def vit_tiny(classes: int = 1000, *, patch: int = 16, **options: Any) -> ViT:
    """ViT-Ti (arXiv 2012.12877); `options` are those of `ViT`: depth, remat, stochastic_depth, dtype."""
    return ViT(**{"patch": patch, "width": 192, "depth": 12, "heads": 3, "classes": classes, **options})


def vit_small(classes: int = 1000, *, patch: int = 16, **options: Any) -> ViT:
    """ViT-S (arXiv 2012.12877); `options` as for `vit_tiny`."""
    return ViT(**{"patch": patch, "width": 384, "depth": 12, "heads": 6, "classes": classes, **options})


def vit_base(classes: int = 1000, *, patch: int = 16, **options: Any) -> ViT:
    """ViT-B; `options` as for `vit_tiny`."""
    return ViT(**{"patch": patch, "width": 768, "depth": 12, "heads": 12, "classes": classes, **options})


def vit_large(classes: int = 1000, *, patch: int = 16, **options: Any) -> ViT:
    """ViT-L; `options` as for `vit_tiny`."""
    return ViT(**{"patch": patch, "width": 1024, "depth": 24, "heads": 16, "classes": classes, **options})


def _dense(name: str, features: int, dtype: DTypeLike) -> nn.Dense:
    wide = at_least_float32(dtype)
    return nn.Dense(features, dtype=dtype, param_dtype=wide, kernel_init=transformer_normal, name=name)

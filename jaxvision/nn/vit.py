"""Vision transformers (arXiv 2010.11929), in the form of timm's `vit_*_patch*_224`, and as a backbone of detectors.

Names: `patches`, `class_token`, `positions`, `block1/norm1`, `block1/qkv`, `block1/projection`, `block1/norm2`,
`block1/dense1`, `block1/dense2`, `norm`, `head`. `vit_tiny(...).backbone` is the backbone alone (arXiv:2203.16527), which has
the same names but `norm` and `head`, and those of its maps: `up4_1`, `up4_norm`, `up4_2`, `up2`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv, max_pool
from jaxvision.nn.norm import layer_norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.nn.stochastic_depth import StochasticDepth, linear_rates

transformer_normal = nn.initializers.normal(0.02)


def attention(
    query: Float[Array, "b n h d"], key: Float[Array, "b n h d"], value: Float[Array, "b n h d"]
) -> Float[Array, "b n h d"]:
    """`softmax(query key^T / sqrt(d)) value` for every head, by `jax.nn.dot_product_attention`; softmax in float32.

    In float64, all of it is in float64. That and float16, which the library multiplies on GPUs alone, are written out here,
    and so is float32 on CPU: a step of ViT-S takes 10 % less time.
    """
    by_jax = (jnp.bfloat16,) if jax.default_backend() == "cpu" else (jnp.bfloat16, jnp.float32)
    if query.dtype in by_jax:
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
        tokens = settled(tokens + self._kept("drop1", _dense("projection", width, self.dtype)(attended)))
        x = layer_norm("norm2", tokens).astype(self.dtype)
        x = nn.gelu(_dense("dense1", 4 * width, self.dtype)(x), approximate=False)
        return settled(tokens + self._kept("drop2", _dense("dense2", width, self.dtype)(x)))

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
    """Fraction of the examples whose branches of the last block are left out while training; of the first block none."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is).

        Raises:
            ValueError: if the images are not whole patches, or `heads` does not divide `width`.
        """
        patches = _patches(self, images)
        positions = _positions(self, patches.shape[1] * patches.shape[2])
        tokens = _encoded(self, patches, positions, train)
        first = layer_norm("norm", tokens[:, 0])
        return _dense("head", self.classes, at_least_float32(self.dtype))(first)

    @property
    def backbone(self) -> "Backbone":
        """The transformer alone, with four maps, for detection."""
        return Backbone(
            self.patch,
            self.width,
            self.depth,
            self.heads,
            remat=self.remat,
            stochastic_depth=self.stochastic_depth,
            dtype=self.dtype,
            parent=None,
        )


class Backbone(nn.Module):
    """A plain vision transformer with four maps, made from its last alone (ViTDet, arXiv:2203.16527, section 3).

    Every patch attends to all of them, in every block: without the windows that the paper has for large images. Its class
    token attends too, and is left out of the maps. `stochastic_depth` needs an rng named "dropout" while training.
    """

    patch: int
    """Side of a patch in pixels, a multiple of 4."""
    width: int
    depth: int
    heads: int
    grid: int = 14
    """Rows, and columns, of patches for which positions are learned; for other images they are interpolated (bicubic)."""
    remat: bool = False
    """Compute the inside of a block again for its gradient: less memory, more time, the same result."""
    stochastic_depth: float = 0.0
    """Fraction of the examples whose branches of the last block are left out while training; of the first block none."""
    dtype: DTypeLike = jnp.float32

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map: 4, 8, 16, 32 with patches of 16.

        Raises:
            ValueError: if the patch is no multiple of 4.
        """
        if self.patch % 4:
            raise ValueError(f"a pyramid on patches of {self.patch} pixels: allowed are multiples of 4")
        return self.patch // 4, self.patch // 2, self.patch, 2 * self.patch

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return self.width // 4, self.width // 2, self.width, self.width

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """Four maps, finest first, of type `dtype`: two transposed convolutions, one, none, and 2x2 max pooling.

        Raises:
            ValueError: if the images are not whole patches, or `heads` does not divide `width`.
        """
        patches = _patches(self, images)
        positions = interpolated(_positions(self, self.grid**2), self.grid, (patches.shape[1], patches.shape[2]))
        last = _encoded(self, patches, positions, train)[:, 1:].reshape(patches.shape)
        fine = Doubled(self.width // 2, self.dtype, name="up4_1")(last)
        fine = nn.gelu(layer_norm("up4_norm", fine).astype(self.dtype), approximate=False)
        fine = Doubled(self.width // 4, self.dtype, name="up4_2")(fine)
        return [fine, Doubled(self.width // 2, self.dtype, name="up2")(last), last, max_pool(last, 2)]


class Doubled(nn.Module):
    """A 2x2 transposed convolution with stride 2: parameters `kernel` (`2 2 i o`) and `bias` (`o`)."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b y x o"]:
        """A map of twice the height and width."""
        (b, h, w, inputs), wide = x.shape, at_least_float32(self.dtype)
        start = nn.initializers.lecun_normal(batch_axis=(0, 1))
        kernel = self.param("kernel", start, (2, 2, inputs, self.channels), wide).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), wide).astype(self.dtype)
        spread = jnp.einsum("bhwi,yxio->bhywxo", x.astype(self.dtype), kernel)
        return spread.reshape(b, 2 * h, 2 * w, self.channels) + bias.reshape(1, 1, 1, -1)


def interpolated(positions: Float[Array, "1 n d"], side: int, grid: tuple[int, int]) -> Float[Array, "1 m d"]:
    """Positions of a class token and `side` x `side` patches, for `grid` (rows, columns) of patches.

    Bicubic with antialiasing, as timm's `resample_abs_pos_embed`; the position of the class token stays.
    """
    if grid == (side, side):
        return positions
    width = positions.shape[-1]
    square = positions[:, 1:].reshape(1, side, side, width)
    resized = jax.image.resize(square, (1, *grid, width), "bicubic", antialias=True)
    return jnp.concatenate([positions[:, :1], resized.reshape(1, -1, width)], axis=1)


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


def _patches(network: ViT | Backbone, images: Array) -> Float[Array, "b h w d"]:
    """The embedding of every patch.

    Raises:
        ValueError: if the images are not whole patches.
    """
    if images.shape[1] % network.patch or images.shape[2] % network.patch:
        raise ValueError(f"images of {images.shape[1:3]} pixels are not whole patches of {network.patch}")
    return Conv(network.width, network.patch, network.patch, dtype=network.dtype, name="patches")(images)


def _positions(network: ViT | Backbone, patches: int) -> Float[Array, "1 n d"]:
    """The learned positions of the class token and this number of patches."""
    shape = (1, patches + 1, network.width)
    return network.param("positions", transformer_normal, shape, at_least_float32(network.dtype))


def _encoded(network: ViT | Backbone, patches: Array, positions: Array, train: bool) -> Float[Array, "b n d"]:
    """Tokens behind the last block: the class token, then the patches in reading order."""
    start, wide = nn.initializers.normal(1e-6), at_least_float32(network.dtype)
    class_token = network.param("class_token", start, (1, 1, network.width), wide)
    first = jnp.broadcast_to(class_token.astype(network.dtype), (patches.shape[0], 1, network.width))
    tokens = jnp.concatenate([first, patches.reshape(patches.shape[0], -1, network.width)], axis=1)
    tokens = tokens + positions.astype(network.dtype)
    block = nn.remat(Block) if network.remat else Block
    for number, rate in enumerate(linear_rates(network.stochastic_depth, network.depth), 1):
        tokens = block(network.heads, network.dtype, rate if train else 0.0, name=f"block{number}")(tokens)
    return tokens


def _dense(name: str, features: int, dtype: DTypeLike) -> nn.Dense:
    wide = at_least_float32(dtype)
    return nn.Dense(features, dtype=dtype, param_dtype=wide, kernel_init=transformer_normal, name=name)

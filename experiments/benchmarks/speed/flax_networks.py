"""ResNet and ViT in plain Flax, as its examples have them; modules are named as PyTorch's, with `_` for the dots."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

Float32 = jnp.float32


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1."""

    channels: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x):
        """Run the block."""
        y = nn.relu(self.norm(name="bn1")(self.conv(self.channels, (1, 1), name="conv1")(x)))
        y = self.conv(self.channels, (3, 3), (self.stride, self.stride), padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(self.conv(4 * self.channels, (1, 1), name="conv3")(y))
        if x.shape != y.shape:
            strides = (self.stride, self.stride)
            x = self.conv(4 * self.channels, (1, 1), strides, name="downsample_0")(x)
            x = self.norm(name="downsample_1")(x)
        return nn.relu(x + y)


class Basic(nn.Module):
    """3x3 with the stride, 3x3."""

    channels: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x):
        """Run the block."""
        strides = (self.stride, self.stride)
        y = nn.relu(self.norm(name="bn1")(self.conv(self.channels, (3, 3), strides, padding=1, name="conv1")(x)))
        y = self.norm(name="bn2")(self.conv(self.channels, (3, 3), padding=1, name="conv2")(y))
        if x.shape != y.shape:
            x = self.norm(name="downsample_1")(self.conv(self.channels, (1, 1), strides, name="downsample_0")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet; in CIFAR form its first convolution is 3x3, and nothing is pooled behind it."""

    block: Any
    blocks: Sequence[int]
    classes: int
    stem: str
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        """Logits."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        if self.stem == "cifar":
            x = nn.relu(norm(name="bn1")(conv(64, (3, 3), padding=1, name="conv1")(x)))
        else:
            x = nn.relu(norm(name="bn1")(conv(64, (7, 7), (2, 2), padding=3, name="conv1")(x)))
            around: Any = ((1, 1), (1, 1))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=around)
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                x = self.block(64 * 2**stage, stride, conv, norm, name=f"layer{stage + 1}_{number}")(x)
        return nn.Dense(self.classes, dtype=Float32, name="fc")(x.astype(Float32).mean((1, 2)))


def resnet(depth: int, classes: int, stem: str, dtype: Any) -> ResNet:
    """ResNet-18 or ResNet-50."""
    block, blocks = {18: (Basic, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}[depth]
    return ResNet(block, blocks, classes, stem, dtype)


class Encoder(nn.Module):
    """A block of a vision transformer."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        """Run the block."""
        width, norm = x.shape[-1], partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, deterministic=True, name="attn")
        x = x + attention(norm(name="norm1")(x))
        y = nn.Dense(4 * width, dtype=self.dtype, name="mlp_fc1")(norm(name="norm2")(x))
        return x + nn.Dense(width, dtype=self.dtype, name="mlp_fc2")(nn.gelu(y, approximate=False))


class ViT(nn.Module):
    """A vision transformer with a class token."""

    width: int
    heads: int
    depth: int
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        """Logits."""
        x = nn.Conv(self.width, (16, 16), (16, 16), dtype=self.dtype, name="patch_embed_proj")(x)
        x = x.reshape(len(x), -1, self.width)
        token = self.param("cls_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)).astype(x.dtype), x], 1)
        places = self.param("pos_embed", nn.initializers.normal(0.02), (1, x.shape[1], self.width))
        x = x + places.astype(x.dtype)
        for number in range(self.depth):
            x = Encoder(self.heads, self.dtype, name=f"blocks_{number}")(x)
        x = nn.LayerNorm(epsilon=1e-6, dtype=Float32, name="norm")(x[:, 0])
        return nn.Dense(self.classes, dtype=Float32, name="head")(x)


def vit(form: str, classes: int, dtype: Any, depth: int = 12) -> ViT:
    """ViT-Ti, ViT-S or ViT-B."""
    width, heads = {"vit_tiny": (192, 3), "vit_small": (384, 6), "vit_base": (768, 12)}[form]
    return ViT(width, heads, depth, classes, dtype)

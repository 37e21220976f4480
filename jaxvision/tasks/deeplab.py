"""DeepLabV3 (arXiv:1706.05587): convolutions of several dilations, side by side, on the last map of a dilated backbone."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import resnet
from jaxvision.nn.conv import ConvNormAct
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.resnet import uniform_fan_in
from jaxvision.ops import pixels
from jaxvision.ops.pixel_losses import PixelLoss
from jaxvision.tasks.fcn import FCN, FCNHead, logits
from jaxvision.tasks.segmentation import CROSS_ENTROPY, decode, loss_terms, segmenter
from jaxvision.types import Task

__all__ = ["decode", "deeplab", "loss_terms"]

RATES = (12, 24, 36)
"""Dilations at stride 8."""


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling with the features of the whole image, a 3x3 convolution, and logits.

    Names: `branch1_conv` (1x1), `branch2_conv` and so on (3x3, one a rate), `image_conv`, `project_conv`, `last_conv`, each
    with its `..._norm`, and `logits`. The branch of the whole image has one value a channel and image: in a batch of one its
    BatchNorm gives the bias alone, and leaves the running variance as it was.
    """

    classes: int
    rates: Sequence[int] = RATES
    channels: int = 256
    dropout: float = 0.5
    """Fraction of the values behind the projection that are dropped while training."""
    norm: Norm = BatchNorm
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w k"]:
        """Logits on the map, in float32 (float64 if `dtype` is)."""

        def layer(x: Array, name: str, size: int = 1, rate: int = 1) -> Array:
            options = {"dilation": rate, "norm": self.norm, "dtype": self.dtype, "kernel_init": uniform_fan_in}
            part = ConvNormAct(self.channels, size, **options)
            return part.flat(x, f"{name}_conv", f"{name}_norm", train=train)

        whole = layer(features.mean((1, 2), keepdims=True), "image")
        branches = [layer(features, "branch1")]
        branches += [layer(features, f"branch{n}", 3, rate) for n, rate in enumerate(self.rates, 2)]
        branches.append(jnp.broadcast_to(whole, (*features.shape[:3], self.channels)))
        x = layer(jnp.concatenate(branches, -1), "project")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return logits(layer(x, "last", 3), self.classes, self.dtype)


def deeplabv3_resnet50(
    classes: int, *, auxiliary: bool = True, norm: Norm = BatchNorm, dtype: DTypeLike = jnp.float32
) -> FCN:
    """DeepLabV3 on ResNet-50, dilated to stride 8, as torchvision has it; 42,004,074 parameters for 21 classes."""
    backbone = resnet.resnet50(None, output_stride=8, norm=norm, dtype=dtype).backbone
    head = DeepLabHead(classes, norm=norm, dtype=dtype)
    return FCN(backbone, head, FCNHead(classes, norm=norm, dtype=dtype) if auxiliary else None)


def deeplab(
    network: FCN,
    *,
    loss: PixelLoss = CROSS_ENTROPY,
    auxiliary: Sequence[float | int] = (0.5,),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    dtype=jnp.float32,
) -> Task:
    """The task of DeepLabV3; `auxiliary` is () for a network without an auxiliary head. See `segmenter`."""
    return segmenter(network, loss=loss, auxiliary=auxiliary, mean=mean, std=std, dtype=dtype)

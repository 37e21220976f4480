"""U-Net (arXiv:1505.04597): a contracting path, an expanding one, and at every scale a copy from the one to the other.

`UNet` is the paper's, with `unet` its task; `BackboneUNet` has any backbone of `nn` as its contracting path, and is given to
`segmentation.segmenter` as it is.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv, ConvNormAct, max_pool
from jaxvision.nn.fpn import Backbone, doubled
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import pixels
from jaxvision.ops.mirror import mirrored
from jaxvision.ops.pixel_losses import PixelLoss
from jaxvision.tasks import detection
from jaxvision.tasks.segmentation import CROSS_ENTROPY, decode, loss_terms, segmenter_on
from jaxvision.types import Batch, Task

__all__ = ["BackboneUNet", "UNet", "decode", "loss_terms", "unet"]

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Normal with variance 2 / inputs of a neuron, the paper's."""


class UpConv(nn.Module):
    """The paper's "up-convolution": twice the height and width, of each pixel four; a transposed convolution.

    Parameters `kernel` (`2 2 i o`) and `bias` (`o`).
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b y x o"]:
        """Double the size."""
        (b, h, w, channels), wide = x.shape, at_least_float32(self.dtype)
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", batch_axis=(0, 1))
        kernel = self.param("kernel", init, (2, 2, channels, self.features), wide)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide)
        flat = kernel.transpose(2, 0, 1, 3).reshape(channels, -1).astype(self.dtype)
        four = lax.dot_general(x.astype(self.dtype), flat, (((3,), (0,)), ((), ())))
        four = four.reshape(b, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)
        return four + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class UNet(nn.Module):
    """The paper's network: names `down1_conv1`, ..., `down5_conv2`, `up4_upconv`, `up4_conv1`, ..., `up1_conv2`, `head`.

    31,030,658 parameters for one channel and two classes. The authors' Caffe model, which has 128 channels behind its last
    up-convolution and a ReLU behind each, is not the paper's; the places of dropout are those of both.
    """

    classes: int
    width: int = 64
    """Channels of the finest scale; every coarser one has twice as many."""
    depth: int = 4
    """How many times the maps are halved."""
    padding: Literal[0, 1] = 0
    """Zeros around each map. 0: as in the paper, which loses two pixels a convolution, 572 to 388 in all. 1: none is lost."""
    dropout: float = 0.5
    """Fraction of the values that are dropped while training at the end of the contracting path: its two coarsest scales."""
    norm: Norm | None = None
    """None: no normalisation, as in the paper."""
    dtype: DTypeLike = jnp.float32

    @property
    def margin(self) -> int:
        """Pixels of the image that are lost on every side."""
        return 0 if self.padding else 6 * 2**self.depth - 4

    def extent(self, pixels: int) -> int:
        """The least side of an image whose logits, without the margins, are this many pixels or more.

        Not every side has logits: maps that are halved must have even sides.
        """
        step = 2**self.depth
        lost = 0 if self.padding else 4 * (step - 1)  # of the output, by the expanding path
        return -(-(pixels + lost) // step) * step - lost + 2 * self.margin

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b y x k"]:
        """Logits of normalised images, in float32 (float64 if the network computes in that); without the margins.

        Raises:
            ValueError: for a side that the maps of are not even, or vanish.
        """
        self._check(images.shape[1:3])
        x, copies = images.astype(self.dtype), []
        for scale in range(1, self.depth + 2):
            x = self._convolved(x, f"down{scale}", scale, train)
            if scale >= self.depth:
                x = nn.Dropout(self.dropout, deterministic=not train, name=f"down{scale}_dropout")(x)
            if scale <= self.depth:
                copies.append(x)
                x = max_pool(x, 2)
        for scale in range(self.depth, 0, -1):
            x = UpConv(self._channels(scale), self.dtype, name=f"up{scale}_upconv")(x)
            x = jnp.concatenate([centre(copies[scale - 1], x.shape[1], x.shape[2]), x], -1)
            x = self._convolved(x, f"up{scale}", scale, train)
        wide = at_least_float32(self.dtype)
        return Conv(self.classes, 1, dtype=wide, kernel_init=he_normal, name="head")(x)

    def _channels(self, scale: int) -> int:
        return self.width * 2 ** (scale - 1)

    def _convolved(self, x: Array, name: str, scale: int, train: bool) -> Array:
        """Two 3x3 convolutions, each with its ReLU."""
        for number in (1, 2):
            conv = ConvNormAct(
                *(self._channels(scale), 3),
                padding=self.padding,
                use_bias=self.norm is None,
                norm=self.norm,
                dtype=self.dtype,
                kernel_init=he_normal,
            )
            x = conv.flat(x, f"{name}_conv{number}", f"{name}_norm{number}", train=train)
        return x

    def _check(self, sides: tuple[int, ...]) -> None:
        for side in sides:
            pixels = side - 2 * self.margin
            if pixels < 1 or side != self.extent(pixels):
                allowed = self.extent(max(pixels, 1))
                raise ValueError(f"a U-Net of this depth takes no side of {side} pixels; the next is {allowed}")


def centre(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b {height} {width} c"]:
    """The middle of a map: the paper's "copy and crop"."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def unet(
    network: UNet,
    *,
    loss: PixelLoss = CROSS_ENTROPY,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    dtype=jnp.float32,
) -> Task:
    """The task of the paper: around its border the content is continued by its reflection, as far as the network needs.

    So every pixel has logits, and what a pixel near the border of the content gets does not depend on the canvas.

    Args:
      network: what gives each pixel one of `k` classes.
      loss: of one image; the paper's is `pixel_losses.cross_entropy()` of a target with `ops.borders.border_weights`.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      dtype: of the normalised images.

    Returns:
      A task whose target is `SegmentationMap` and whose prediction is `PixelScores`, both on the canvas.
    """

    def images(batch: Batch) -> Float[Array, "b y x c"]:
        normalised, (height, width) = detection.images(batch, mean, std, dtype), batch.image.shape[1:3]
        extent = network.extent(height), network.extent(width)
        one = lambda image, size: mirrored(image, size, network.margin, extent)
        return jax.vmap(one)(normalised, jnp.asarray(batch.size))

    def covers(height: int, width: int) -> tuple[int, int]:
        return height - 2 * network.margin, width - 2 * network.margin

    return segmenter_on(network, images, covers=covers, loss=loss)


class BackboneUNet(nn.Module):
    """A U-Net whose contracting path is a backbone: names `backbone`, `stride16_conv1`, ..., `stride1_conv2`, `head`.

    From stride to stride the map is doubled (nearest neighbour), joined with the map of the backbone that has this stride, if
    any, and convolved twice.
    """

    backbone: Backbone
    """Returns a list of maps, finest first, each half as large as the one before, odd sides rounded up or down."""
    classes: int
    channels: Sequence[int] = (256, 128, 64, 32, 16)
    """Channels behind each doubling, from the coarsest map of the backbone to the size of the image."""
    norm: Norm = BatchNorm
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w k"]:
        """Logits of normalised images, in float32 (float64 if the network computes in that).

        Raises:
            ValueError: if `channels` are not one number for each doubling.
        """
        maps = dict(zip(self.backbone.strides, self.backbone(images, train=train), strict=True))
        coarsest = max(maps)
        if 2 ** len(self.channels) != coarsest:
            doublings = coarsest.bit_length() - 1
            raise ValueError(
                f"channels={tuple(self.channels)}: from stride {coarsest} to the image there are {doublings} doublings"
            )
        x = maps[coarsest]
        for number, channels in enumerate(self.channels, 1):
            stride = coarsest >> number
            beside = [maps[stride]] if stride in maps else []
            height, width = beside[0].shape[1:3] if beside else (-(-side // stride) for side in images.shape[1:3])
            x = jnp.concatenate([doubled(x, height, width), *beside], -1)
            for place in (1, 2):
                conv = ConvNormAct(channels, 3, norm=self.norm, dtype=self.dtype)
                x = conv.flat(x, f"stride{stride}_conv{place}", f"stride{stride}_norm{place}", train=train)
        return Conv(self.classes, 1, dtype=at_least_float32(self.dtype), kernel_init=he_normal, name="head")(x)

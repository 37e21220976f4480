"""U^2-Net (arXiv:2005.09007): salient objects by a U-Net whose every block is a U-Net, each of its scales supervised."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv, ConvNormAct, max_pool_rounding_up
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.ops import pixels, resize
from jaxvision.tasks import detection
from jaxvision.tasks.segmentation import decode, loss_terms, segmenter_on
from jaxvision.types import Batch, Task

__all__ = ["RSU", "Stage", "U2Net", "decode", "loss_terms", "salient_objects", "u2net", "u2netp"]


class Stage(NamedTuple):
    """A block of the network."""

    scales: int
    """Convolutions of its contracting path."""
    inside: int
    """Channels inside."""
    channels: int
    """Channels that come out."""
    dilated: bool = False
    """Dilated in place of pooled: the paper's RSU-4F."""


class RSU(nn.Module):
    """Residual U-block: names `input_conv`, `encode1_conv`, ..., `decode1_conv`, each with its norm if there is one."""

    stage: Stage
    norm: Norm | None = BatchNorm
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b h w o"]:
        """Run the block."""
        scales, inside, channels, dilated = self.stage
        x = entry = self._layer(x, channels, "input", 1, train)
        maps = []
        for scale in range(1, scales):
            x = self._layer(x, inside, f"encode{scale}", 2 ** (scale - 1) if dilated else 1, train)
            maps.append(x)
            if not dilated and scale < scales - 1:
                x = max_pool_rounding_up(x, 2)
        x = self._layer(x, inside, f"encode{scales}", 2 ** (scales - 1) if dilated else 2, train)
        for scale in range(scales - 1, 0, -1):
            beside = maps[scale - 1]
            x = jnp.concatenate([enlarged(x, beside.shape[1], beside.shape[2]), beside], -1)
            dilation = 2 ** (scale - 1) if dilated else 1
            x = self._layer(x, inside if scale > 1 else channels, f"decode{scale}", dilation, train)
        return settled(x + entry)

    def _layer(self, x: Array, channels: int, name: str, dilation: int, train: bool) -> Array:
        conv = ConvNormAct(channels, 3, dilation=dilation, use_bias=True, norm=self.norm, dtype=self.dtype)
        return conv.flat(x, f"{name}_conv", f"{name}_norm", train=train)


class U2Net(nn.Module):
    """U^2-Net: names `stage1`, ..., `stage6`, `decoder5`, ..., `decoder1`, `side1`, ..., `side6`, `fuse`."""

    contracting: Sequence[Stage]
    """Blocks of the contracting path, finest first."""
    expanding: Sequence[Stage]
    """Blocks of the expanding path, coarsest first; one fewer."""
    norm: Norm | None = BatchNorm
    """None: no normalisation, for weights that it was folded into."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b h w 2"] | tuple[Float[Array, "b h w 2"], ...]:
        """Logits of background, which are 0, and of the object; in training also those of every scale, finest first.

        In float32, or float64 if the network computes in that. Images are normalised.
        """
        wide, (height, width) = at_least_float32(self.dtype), images.shape[1:3]
        x, maps = images, []
        for number, stage in enumerate(self.contracting, 1):
            x = RSU(stage, self.norm, self.dtype, name=f"stage{number}")(x, train=train)
            maps.append(x)
            if number < len(self.contracting):
                x = max_pool_rounding_up(x, 2)
        for number, stage in zip(range(len(self.expanding), 0, -1), self.expanding, strict=True):
            x = jnp.concatenate([enlarged(x, *maps[number - 1].shape[1:3]), maps[number - 1]], -1)
            maps[number - 1] = x = RSU(stage, self.norm, self.dtype, name=f"decoder{number}")(x, train=train)
        sides = [
            enlarged(Conv(1, 3, padding=1, dtype=wide, name=f"side{number}")(x), height, width)
            for number, x in enumerate(maps, 1)
        ]
        fused = Conv(1, 1, dtype=wide, name="fuse")(jnp.concatenate(sides, -1))
        logits = tuple(jnp.concatenate([jnp.zeros_like(x), x], -1) for x in (fused, *sides))
        return logits if train else logits[0]


def u2net(norm: Norm | None = BatchNorm, dtype: DTypeLike = jnp.float32) -> U2Net:
    """U^2-Net of 44 million parameters, the paper's."""
    contracting = (
        *(Stage(7, 32, 64), Stage(6, 32, 128), Stage(5, 64, 256), Stage(4, 128, 512)),
        *(Stage(4, 256, 512, True), Stage(4, 256, 512, True)),
    )
    expanding = (
        *(Stage(4, 256, 512, True), Stage(4, 128, 256), Stage(5, 64, 128)),
        *(Stage(6, 32, 64), Stage(7, 16, 64)),
    )
    return U2Net(contracting, expanding, norm, dtype)


def u2netp(norm: Norm | None = BatchNorm, dtype: DTypeLike = jnp.float32) -> U2Net:
    """U^2-NetP of 1.1 million parameters, the paper's small one: 16 channels inside each block, 64 between them."""
    scales = (7, 6, 5, 4, 4, 4)
    stages = [Stage(each, 16, 64, dilated=number > 4) for number, each in enumerate(scales, 1)]
    return U2Net(stages, stages[-2::-1], norm, dtype)


def salient_objects(
    network: U2Net,
    *,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    dtype=jnp.float32,
) -> Task:
    """The task of the paper: which pixels belong to the objects that stand out.

    Args:
      network: U^2-Net or a smaller one.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255, of images whose largest value is 255.
      std: standard deviation of the pixels of each channel (or of all), on that scale.
      dtype: of the normalised images.

    Returns:
      A task whose target is `SegmentationMap`, 1 for the objects and 0 for the background, and whose prediction is
      `PixelScores` of these two classes. An image is divided by its largest value first. Its loss is the sum of the
      cross-entropies of seven outputs, `pixel_loss` that of the fused one, `auxiliary1_loss` that of the finest scale.
    """

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        bright = jax.vmap(pixels.brightened)(batch.image, jnp.asarray(batch.size))
        return detection.images(batch.replace(image=bright), mean, std, dtype)

    return segmenter_on(network, images, auxiliary=(1,) * len(network.contracting))


def enlarged(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b {height} {width} c"]:
    """Maps resized bilinearly, the corners not aligned."""
    return jax.vmap(lambda each: resize.bilinear(each, height, width))(x)

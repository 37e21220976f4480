"""Feature pyramids (arXiv:1612.03144): maps of one width, each with the meaning of the coarser ones beside its detail."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import layer_norm

Maps = list[Float[Array, "b _ _ _"]]

lecun_uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Uniform with variance 1 / inputs: torchvision's `kaiming_uniform_(a=1)`."""


@runtime_checkable
class Backbone(Protocol):
    """What fits under any pyramid: a module that returns a list of maps, finest first, and knows their strides and widths."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map, each twice the one before."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        ...

    @property
    def dtype(self) -> DTypeLike:
        """What it computes in, and the type of its maps."""
        ...

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps of normalised images."""
        ...


def first_map(backbone: Backbone, stride: int) -> int:
    """The number, from 0, of the finest map of a backbone that has at least this stride.

    Raises:
        ValueError: if all maps are finer.
    """
    for number, map_stride in enumerate(backbone.strides):
        if map_stride >= stride:
            return number
    raise ValueError(f"a pyramid from stride {stride} on needs a coarser backbone: its strides are {backbone.strides}")


class Predictions(NamedTuple):
    """What a head predicts on one map of a pyramid, for `k` anchors a cell."""

    logits: Float[Array, "b h w k n"]
    offsets: Float[Array, "b h w k 4"]
    """Offsets as `ops.box_codec` encodes them."""


def subsampled(maps: Maps) -> Maps:
    """One map more, every second pixel of the last: P6 of Faster R-CNN, for its largest anchors alone."""
    return [*maps, maps[-1][:, ::2, ::2]]


class Convolved(nn.Module):
    """Two maps more, P6 and P7 of RetinaNet (arXiv:1708.02002): 3x3 convolutions with stride 2 behind the last."""

    channels: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Maps) -> Maps:
        """The maps and the two. The paper takes C5 for P6, torchvision (its "v1") and this P5."""
        p6, p7 = (
            Conv(self.channels, 3, 2, padding=1, dtype=self.dtype, kernel_init=lecun_uniform, name=name)
            for name in ("p6", "p7")
        )
        coarse = p6(maps[-1])
        return [*maps, coarse, p7(nn.relu(coarse))]


class FPN(nn.Module):
    """A feature pyramid on a backbone: names `lateral1`, `output1` (of the finest map), ..., `top`."""

    backbone: Backbone
    """Returns a list of maps, finest first, each half as large as the one before, odd sides rounded up or down."""
    first: int = 0
    """Number of the first map that is used, from 0."""
    channels: int = 256
    top: Callable[[Maps], Maps] = subsampled
    """Puts further maps behind the last: `subsampled`, or a `Convolved()`."""
    dtype: DTypeLike = jnp.float32

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map but those on top, each of which has twice the stride of the one before."""
        return tuple(self.backbone.strides[self.first :])

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps of the pyramid, finest first: P2 to P6 of the literature, or P3 to P7 with `first=1` and `Convolved()`.

        Raises:
            ValueError: if a map is not half as large as the one before.
        """
        maps = self.backbone(images, train=train)[self.first :]
        laterals = [self._conv(x, f"lateral{n}", 1) for n, x in enumerate(maps, 1)]
        merged = laterals[-1:]
        for fine in reversed(laterals[:-1]):
            merged.insert(0, fine + doubled(merged[0], fine.shape[1], fine.shape[2]))
        return self.top([self._conv(x, f"output{n}", 3) for n, x in enumerate(merged, 1)])

    def _conv(self, x: Array, name: str, size: int) -> Array:
        conv = Conv(self.channels, size, padding=size // 2, dtype=self.dtype, kernel_init=lecun_uniform, name=name)
        return conv(x)


class SimplePyramid(nn.Module):
    """ViTDet's pyramid (arXiv:2203.16527, section 3): every map by itself, nothing is added from coarser ones.

    Names: `lateral1` and `output1` (of the finest map), each with its LayerNorm, `lateral1_norm` and `output1_norm`, ....
    """

    backbone: Backbone
    """Returns a list of maps, finest first, as `vit.Backbone` does."""
    channels: int = 256
    top: Callable[[Maps], Maps] = subsampled
    """Puts further maps behind the last."""
    dtype: DTypeLike = jnp.float32

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image a cell of each map but those on top, each of which has twice the stride of the one before."""
        return tuple(self.backbone.strides)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps of the pyramid, finest first: as many as the backbone's, and those on top."""
        maps = self.backbone(images, train=train)
        return self.top([self._conv(self._conv(x, f"lateral{n}", 1), f"output{n}", 3) for n, x in enumerate(maps, 1)])

    def _conv(self, x: Array, name: str, size: int) -> Array:
        conv = Conv(self.channels, size, padding=size // 2, use_bias=False, dtype=self.dtype, name=name)
        return layer_norm(f"{name}_norm", conv(x)).astype(self.dtype)


def doubled(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b {height} {width} c"]:
    """`x` with twice its height and width by PyTorch's nearest neighbour, where half of this size was rounded up or down.

    Rounded up, every pixel stands four times, cut to this size.

    Raises:
        ValueError: if `x` has not half of this size.
    """
    b, h, w, c = x.shape
    if abs(2 * h - height) > 1 or abs(2 * w - width) > 1:
        raise ValueError(f"a map of {h} x {w} is not half of one of {height} x {width}")
    if (h, w) != (-(-height // 2), -(-width // 2)):
        return x[:, jnp.arange(height) * h // height][:, :, jnp.arange(width) * w // width]
    repeated = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
    return repeated[:, :height, :width]

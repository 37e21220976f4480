"""SSD (arXiv:1512.02325): a 3x3 convolution on each of several maps says what is in its default boxes, and where.

`features` is any module that returns maps, finest first: `VGGFeatures` is the paper's, `Features` puts further maps behind
chosen ones of any backbone, `MobileNetFeatures` is TensorFlow's SSD-MobileNetV2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import mobilenet, vgg
from jaxvision.nn.conv import Conv, max_pool
from jaxvision.nn.mobilenet import relu6, same_padding
from jaxvision.nn.norm import Norm
from jaxvision.nn.precision import at_least_float32

xavier = nn.initializers.xavier_uniform()


class Extra(NamedTuple):
    """A further map: 1x1 to `squeeze` channels, then `kernel` x `kernel` to `channels`."""

    squeeze: int
    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1


SSD300_EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256, 3, 1, 0), Extra(128, 256, 3, 1, 0))
SSD512_EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(128, 256), Extra(128, 256, 4, 1, 1))

Maps = list[Float[Array, "b _ _ _"]]


class L2Norm(nn.Module):
    """Every pixel's channels to length 1, then scaled, each channel by its own factor (arXiv:1506.04579)."""

    start: float | int = 20.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The rescaled map, in the type of `x`."""
        wide = at_least_float32(x.dtype)
        scale = self.param("scale", nn.initializers.constant(self.start), x.shape[-1:], wide)
        square = jnp.square(x.astype(wide)).sum(-1, keepdims=True)
        # The length itself is compared with 1e-12, its square with the square of that: no gradient of a root of 0.
        return (x * lax.rsqrt(jnp.maximum(square, 1e-24)) * scale.reshape(1, 1, 1, -1)).astype(x.dtype)


class VGGFeatures(nn.Module):
    """conv4_3 of VGG16, its length fixed; conv7, once a dense layer, its kernel dilated 6 times; the extras."""

    backbone: vgg.Backbone
    extras: Sequence[Extra]

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps; those of `vgg.Backbone(..., ceil_pooling=True)` at 300 px have sides 38, 19, 10, 5, 3, 1."""
        stages = self.backbone(images, train=train)
        dtype = self.backbone.dtype
        x = max_pool(stages[4], 3, stride=1, padding=1)
        x = nn.relu(Conv(1024, 3, padding=6, dilation=6, dtype=dtype, kernel_init=xavier, name="conv6")(x))
        x = nn.relu(Conv(1024, 1, dtype=dtype, kernel_init=xavier, name="conv7")(x))
        return [L2Norm(name="norm4")(stages[3]), x, *_extras(x, self.extras, dtype, None, train)]


class Features(nn.Module):
    """Chosen maps of a backbone, and extras behind its last."""

    backbone: nn.Module
    """Returns a list of maps, finest first."""
    first: int
    """Number of the first map that is used, from 0."""
    extras: Sequence[Extra]
    dtype: DTypeLike = jnp.float32
    norm: Norm | None = None
    """Behind every convolution of the extras; None: they have biases."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps."""
        maps = self.backbone(images, train=train)
        return [*maps[self.first :], *_extras(maps[-1], self.extras, self.dtype, self.norm, train)]


def _extras(x: Array, extras: Sequence[Extra], dtype: DTypeLike, norm: Norm | None, train: bool) -> Maps:
    """Called within a compact module, which gets the submodules `extra1_squeeze`, `extra1_conv`, ..."""

    def layer(x: Array, name: str, *shape: int) -> Array:
        channels, kernel, stride, padding = shape
        conv = Conv(
            channels, kernel, stride, padding, use_bias=norm is None, dtype=dtype, kernel_init=xavier, name=name
        )
        x = conv(x)
        if norm is not None:
            normalise = norm(dtype=dtype, scale_init=nn.initializers.ones, name=f"{name}_norm")
            x = normalise(x, use_running_average=not train)
        return nn.relu(x)

    maps = []
    for number, extra in enumerate(extras, 1):
        x = layer(x, f"extra{number}_squeeze", extra.squeeze, 1, 1, 0)
        x = layer(x, f"extra{number}_conv", extra.channels, extra.kernel, extra.stride, extra.padding)
        maps.append(x)
    return maps


class MobileNetFeatures(nn.Module):
    """The maps of TensorFlow's SSD-MobileNetV2, strides 16, 32, ...; at 300 px their sides are 19, 10, 5, 3, 2, 1."""

    backbone: mobilenet.Backbone
    """With `expanded=True` and padding "same"."""
    extras: Sequence[tuple[int, int]] = ((256, 512), (128, 256), (128, 256), (64, 128))
    """Channels inside and of each further map, whose 3x3 convolution is depthwise."""
    last: int = 1280

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """The maps."""
        *_, inside, x = self.backbone(images, train=train)
        x = self._layer(x, "last", self.last, train)
        maps = [inside, x]
        for number, (squeeze, channels) in enumerate(self.extras, 1):
            x = self._layer(x, f"extra{number}_squeeze", squeeze, train)
            x = self._layer(x, f"extra{number}_depthwise", squeeze, train, kernel=3, stride=2, groups=squeeze)
            x = self._layer(x, f"extra{number}", channels, train)
            maps.append(x)
        return maps

    def _layer(
        self, x: Array, name: str, channels: int, train: bool, *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> Array:
        dtype = self.backbone.dtype
        pads = same_padding(x.shape[1], kernel, stride), same_padding(x.shape[2], kernel, stride)
        conv = Conv(channels, kernel, stride, pads, groups=groups, use_bias=False, dtype=dtype, name=f"{name}_conv")
        norm = self.backbone.norm(dtype=dtype, scale_init=nn.initializers.ones, name=f"{name}_norm")
        return relu6(norm(conv(x), use_running_average=not train))


class Outputs(NamedTuple):
    """What SSD predicts on one map, for `k` default boxes a cell."""

    logits: Float[Array, "b h w k n"]
    """Background first, then the classes."""
    offsets: Float[Array, "b h w k 4"]
    """As `ops.box_codec` encodes them."""


class SSD(nn.Module):
    """Predictions on every map of `features`."""

    features: nn.Module
    classes: int
    kinds: Sequence[int]
    """Default boxes a cell of each map."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Outputs]:
        """Outputs of each map, finest first, in float32 at least.

        Raises:
            ValueError: if the features are more or fewer maps than `kinds` says.
        """
        maps = self.features(images, train=train)
        if len(maps) != len(self.kinds):
            raise ValueError(
                f"SSD: the features are {len(maps)} maps, and kinds={tuple(self.kinds)} is for {len(self.kinds)}"
            )
        return [
            Outputs(self._head(x, f"classes{n}", kinds, self.classes + 1), self._head(x, f"boxes{n}", kinds, 4))
            for n, (x, kinds) in enumerate(zip(maps, self.kinds, strict=True), 1)
        ]

    def _head(self, x: Array, name: str, kinds: int, each: int) -> Array:
        conv = Conv(kinds * each, 3, padding=1, dtype=self.dtype, kernel_init=xavier, name=name)
        y = conv(x).astype(at_least_float32(self.dtype))
        return y.reshape(*y.shape[:3], kinds, each)


def ssd300_vgg16(classes: int, *, dtype: DTypeLike = jnp.float32) -> SSD:
    """SSD300 on VGG16, for images of 300x300 pixels."""
    return SSD(VGGFeatures(_vgg16(dtype), SSD300_EXTRAS), classes, (4, 6, 6, 6, 4, 4), dtype=dtype)


def ssd512_vgg16(classes: int, *, dtype: DTypeLike = jnp.float32) -> SSD:
    """SSD512 on VGG16, for images of 512x512 pixels."""
    return SSD(VGGFeatures(_vgg16(dtype), SSD512_EXTRAS), classes, (4, 6, 6, 6, 6, 4, 4), dtype=dtype)


def ssd300_mobilenet_v2(classes: int, *, norm: Norm = mobilenet.tensorflow_norm, dtype: DTypeLike = jnp.float32) -> SSD:
    """TensorFlow's SSD-MobileNetV2, for images of 300x300 pixels."""
    backbone = mobilenet.mobilenet_v2(padding="same", norm=norm, dtype=dtype, expanded=True).backbone
    return SSD(MobileNetFeatures(backbone), classes, (3, 6, 6, 6, 6, 6), dtype=dtype)


def _vgg16(dtype: DTypeLike) -> vgg.Backbone:
    return vgg.Backbone((2, 2, 3, 3, 3), dtype=dtype, ceil_pooling=True)

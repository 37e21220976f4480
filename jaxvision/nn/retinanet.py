"""RetinaNet (arXiv:1708.02002): the same two small networks on every map of a feature pyramid, for classes and for boxes."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn import resnet
from jaxvision.nn.conv import Conv
from jaxvision.nn.fpn import FPN, Convolved, Predictions
from jaxvision.nn.norm import FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32

small_normal = nn.initializers.normal(0.01)


class Tower(nn.Module):
    """3x3 convolutions with ReLU, and one that predicts: names `conv1`, ..., `predict`. All maps share it."""

    each: int
    """Numbers for each anchor."""
    kinds: int
    """Anchors a cell."""
    channels: int
    depth: int
    bias: float
    """Where the predictions start."""
    dtype: DTypeLike

    @nn.compact
    def __call__(self, maps: list[Float[Array, "b _ _ c"]]) -> list[Float[Array, "b _ _ k n"]]:
        """The predictions on every map; computed as `dtype`, given as float32 at least."""
        wide = at_least_float32(self.dtype)
        convs = [
            Conv(self.channels, 3, padding=1, dtype=self.dtype, kernel_init=small_normal, name=f"conv{n}")
            for n in range(1, self.depth + 1)
        ]
        predict = nn.Conv(
            self.kinds * self.each,
            (3, 3),
            padding=1,
            dtype=self.dtype,
            param_dtype=wide,
            kernel_init=small_normal,
            bias_init=nn.initializers.constant(self.bias),
            name="predict",
        )
        return [self._shaped(predict(_through(convs, x))) for x in maps]

    def _shaped(self, y: Array) -> Array:
        return y.astype(at_least_float32(self.dtype)).reshape(*y.shape[:3], self.kinds, self.each)


def _through(convs: list[Callable[[Array], Array]], x: Array) -> Array:
    for conv in convs:
        x = nn.relu(conv(x))
    return x


class RetinaNet(nn.Module):
    """Predictions on every map of `features`: names `features`, `class_tower`, `box_tower`."""

    features: nn.Module
    """Returns a list of maps of one width, finest first."""
    classes: int
    kinds: int = 9
    """Anchors a cell."""
    channels: int = 256
    depth: int = 4
    """Convolutions of each tower before the one that predicts."""
    prior: float = 0.01
    """Probability of every class at first."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> list[Predictions]:
        """Predictions on each map, finest first, as `Tower` gives them; logits are of every class by itself."""
        maps = self.features(images, train=train)
        shape = {"kinds": self.kinds, "channels": self.channels, "depth": self.depth, "dtype": self.dtype}
        bias = -math.log((1 - self.prior) / self.prior)
        logits = Tower(self.classes, bias=bias, name="class_tower", **shape)(maps)
        offsets = Tower(4, bias=0.0, name="box_tower", **shape)(maps)
        return [Predictions(*each) for each in zip(logits, offsets, strict=True)]


def retinanet_fpn(backbone: resnet.Backbone, classes: int, *, channels: int = 256, **options: Any) -> RetinaNet:
    """RetinaNet on P3 to P7 above any residual network of four stages; `options` are those of `RetinaNet`."""
    dtype = backbone.dtype
    features = FPN(backbone, 1, channels, Convolved(channels, dtype=dtype), dtype=dtype)
    return RetinaNet(features, classes, channels=channels, dtype=dtype, **options)


def retinanet_resnet50_fpn(classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32) -> RetinaNet:
    """RetinaNet on ResNet-50, as torchvision's `retinanet_resnet50_fpn`."""
    return retinanet_fpn(resnet.resnet50(None, norm=norm, dtype=dtype).backbone, classes)

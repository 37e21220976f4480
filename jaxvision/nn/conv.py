"""Convolution and max pooling with explicit padding, as PyTorch counts it; images `b h w c`, kernels `h w i o`.

"SAME" padding is not offered: with a stride it pads unevenly, and differently from every PyTorch network.
"""

from functools import reduce

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.precision import at_least_float32

Padding = int | tuple[tuple[int, int], tuple[int, int]]
"""Pixels on every side, or ((top, bottom), (left, right))."""

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal with variance 2 / (output channels * kernel area), for a ReLU behind it (arXiv 1502.01852)."""


def convolve(
    images: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw j o"],
    *,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b y x o"]:
    """Cross-correlate `images` with `kernel`, whose input channels are those of one group: `j = i / groups`.

    A 1x1 kernel becomes a matrix product over the pixels that the stride keeps: the same numbers, computed about twice
    as fast by XLA on CPU, forward and backward.
    """
    pads = _both_axes(padding)
    if kernel.shape[:2] == (1, 1) and groups == 1 and pads == ((0, 0), (0, 0)):
        kept = images[:, ::stride, ::stride, :]
        return lax.dot_general(kept, kernel[0, 0], (((3,), (0,)), ((), ())))
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


class Conv(nn.Module):
    """A learned convolution: parameter `kernel` (`kh kw i/groups o`), and `bias` (`o`) if `use_bias`.

    Parameters are float32 (float64 if `dtype` is); the computation and its result have type `dtype`.
    """

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    padding: Padding = 0
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = kaiming_normal

    @nn.compact
    def __call__(self, images: Float[Array, "b h w i"]) -> Float[Array, "b y x o"]:
        """Convolve.

        Raises:
            ValueError: if `groups` divides not both the input channels and `features`.
        """
        channels, wide = images.shape[-1], at_least_float32(self.dtype)
        if channels % self.groups or self.features % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {channels} channels in and {self.features} out")
        size = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (*size, channels // self.groups, self.features), wide)
        convolved = convolve(
            images.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        if not self.use_bias:
            return convolved
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide)
        return convolved + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def max_pool(
    images: Float[Array, "b h w c"], window: int, *, stride: int | None = None, padding: Padding = 0
) -> Float[Array, "b y x c"]:
    """The largest value of every `window` x `window` square; `stride` is the window's size unless given.

    The border counts as minus infinity. Of equal values the first in reading order has the gradient, and NaN wins, as
    in PyTorch. Computed as elementwise maxima of shifted images, first along x, then along y: on CPU the gradient of
    `lax.reduce_window` takes over ten times as long.

    Raises:
        ValueError: if the padded image is smaller than the window.
    """
    stride = window if stride is None else stride
    vertical, horizontal = _both_axes(padding)
    along_x = _running_maximum(images, 2, window, stride, horizontal)
    return _running_maximum(along_x, 1, window, stride, vertical)


def _running_maximum(x: Array, axis: int, window: int, stride: int, padding: tuple[int, int]) -> Array:
    """The largest of `window` neighbours along `axis`, at every `stride`-th position."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (*padding, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
    if x.shape[axis] < window:
        raise ValueError(f"max_pool: a window of {window} does not fit into {x.shape[axis]} pixels")
    last = (x.shape[axis] - window) // stride * stride
    shifted = [lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(window)]
    return reduce(_first_maximum, shifted)


def _first_maximum(first: Array, second: Array) -> Array:
    """Elementwise maximum; of equal values the first, so that only one of them has a gradient."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def _both_axes(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding

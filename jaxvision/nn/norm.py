"""Normalisation layers, channels last.

A network takes one as its `norm=` argument and calls all of them alike: `norm(dtype=..., scale_init=..., name=...)`
makes the layer, `layer(x, use_running_average=...)` runs it. Parameters and statistics are float32, or float64 when
`dtype` is; the result has type `dtype`.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.precision import at_least_float32

Norm = Callable[..., nn.Module]
"""`(*, dtype, scale_init, name) -> module`: BatchNorm, FrozenBatchNorm, `group_norm(groups)`, or a partial of one."""


def normalize(
    x: Float[Array, "*b c"],
    mean: Float[Array, "c"],
    variance: Float[Array, "c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
) -> Float[Array, "*b c"]:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, channel by channel."""
    return (x - _row(mean, x)) * _row(scale * lax.rsqrt(variance + epsilon), x) + _row(bias, x)


def moments(x: Float[Array, "*b c"], near: Float[Array, "c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Mean and biased variance of every channel, in one pass over `x`.

    Both are sums of `x - near`, so that the variance, a difference of squares, stays exact for channels whose mean is
    large, provided that `near` is about that mean. The result does not depend on `near` but for rounding.
    """
    near = lax.stop_gradient(near)
    deviation = x - _row(near, x)
    axes = tuple(range(x.ndim - 1))
    mean = deviation.mean(axes)
    variance = jnp.square(deviation).mean(axes) - jnp.square(mean)
    return near + mean, jnp.maximum(variance, 0)


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's running statistics (arXiv 1502.03167).

    Training normalises with the biased variance of the batch and lets the running variance follow the unbiased one, as
    PyTorch does and Flax's own layer doesn't. A channel of which a batch holds one value leaves the running variance
    as it was. Under `jax.jit` over a mesh the statistics are those of the whole batch.

    Parameters `scale` (unless `use_scale` is False) and `bias`; `mean` and `var` in the collection `batch_stats`, which
    changes when `use_running_average` is False (except while initialising).
    """

    momentum: float = 0.9
    """How much of the running statistics stays: new = momentum * old + (1 - momentum) * batch."""
    epsilon: float = 1e-5
    use_scale: bool = True
    dtype: DTypeLike = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], *, use_running_average: bool) -> Float[Array, "*b c"]:
        """Normalise `x` with its own statistics, or with the running ones."""
        channels, wide = x.shape[-1:], at_least_float32(self.dtype)
        scale = self.param("scale", self.scale_init, channels, wide) if self.use_scale else jnp.ones(channels, wide)
        bias = self.param("bias", nn.initializers.zeros, channels, wide)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, wide)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, wide)
        x = x.astype(wide)
        if use_running_average:
            mean, variance = running_mean.value, running_var.value
        else:
            mean, variance = moments(x, near=running_mean.value)
            if not self.is_initializing():
                running_mean.value = self._follow(running_mean.value, mean)
                count = x.size // x.shape[-1]
                if count > 1:
                    running_var.value = self._follow(running_var.value, variance * (count / (count - 1)))
        return normalize(x, mean, variance, scale, bias, self.epsilon).astype(self.dtype)

    def _follow(self, running: Array, batch: Array) -> Array:
        return self.momentum * running + (1 - self.momentum) * batch


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics and a fixed affine map, for fine-tuning detectors.

    `scale`, `bias`, `mean` and `var` are all in the collection `batch_stats`: none has a gradient, none ever changes.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], *, use_running_average: bool = True) -> Float[Array, "*b c"]:
        """Normalise `x` with the stored statistics; `use_running_average` changes nothing."""
        del use_running_average
        channels, wide = x.shape[-1:], at_least_float32(self.dtype)

        def fixed(name: str, init: Initializer) -> Array:
            return self.variable("batch_stats", name, lambda: init(self.make_rng("params"), channels, wide)).value

        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        scale, bias = fixed("scale", self.scale_init), fixed("bias", zeros)
        mean, variance = fixed("mean", zeros), fixed("var", ones)
        return normalize(x.astype(wide), mean, variance, scale, bias, self.epsilon).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (arXiv 1803.08494): statistics of one example and one group of channels.

    Independent of the batch, so there are no running statistics. Parameters `scale` and `bias`.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], *, use_running_average: bool = True) -> Float[Array, "b *s c"]:
        """Normalise `x`; `use_running_average` changes nothing.

        Raises:
            ValueError: if `groups` does not divide the number of channels.
        """
        del use_running_average
        channels, wide = x.shape[-1], at_least_float32(self.dtype)
        if channels % self.groups:
            raise ValueError(f"{channels} channels do not form {self.groups} groups of equal size")
        scale = self.param("scale", self.scale_init, (channels,), wide)
        bias = self.param("bias", nn.initializers.zeros, (channels,), wide)
        grouped = x.astype(wide).reshape(x.shape[0], -1, self.groups, channels // self.groups)
        mean = grouped.mean((1, 3), keepdims=True)
        variance = jnp.square(grouped - mean).mean((1, 3), keepdims=True)
        whitened = ((grouped - mean) * lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return (whitened * _row(scale, x) + _row(bias, x)).astype(self.dtype)


def layer_norm(name: str, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """LayerNorm over the channels (arXiv 1607.06450) as transformers and ConvNeXt have it: epsilon 1e-6, no `norm=`.

    A submodule `name` with parameters `scale` and `bias`. Computed in float32 or better; so is the result.
    """
    wide = at_least_float32(x.dtype)
    norm = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=wide, param_dtype=wide, name=name)
    return norm(x.astype(wide))


def group_norm(groups: int = 32) -> Norm:
    """Group normalisation as the `norm=` argument of a network."""
    return partial(GroupNorm, groups=groups)


def _row(channels: Array, x: Array) -> Array:
    """Values per channel, in a shape that broadcasts against `x`."""
    return channels.reshape((1,) * (x.ndim - 1) + (-1,))

"""PyTorch's axes turned into ours: what a layer's `weight` is called and how it lies in memory there."""

from collections.abc import Callable

import numpy as np

NORM_NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""Our names of a normalisation layer's arrays, and PyTorch's."""


def unchanged(array: np.ndarray) -> np.ndarray:
    """Biases, scales and statistics: one axis on both sides."""
    return array


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """`o i h w` to `h w i o`."""
    return _axes(weight, 4, "a convolution's weight").transpose(2, 3, 1, 0)


def dense_kernel(weight: np.ndarray) -> np.ndarray:
    """`o i` to `i o`."""
    return _axes(weight, 2, "a dense layer's weight").T


def dense_kernel_after_flatten(channels: int, height: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
    """`o (c h w)` to `(h w c) o`: a dense layer behind flattened features, which PyTorch orders by channel first."""

    def convert(weight: np.ndarray) -> np.ndarray:
        by_channel = dense_kernel(weight).reshape(channels, height, width, -1)
        return by_channel.transpose(1, 2, 0, 3).reshape(channels * height * width, -1)

    return convert


def _axes(weight: np.ndarray, count: int, what: str) -> np.ndarray:
    if weight.ndim != count:
        raise ValueError(f"{what} has {count} axes, not the shape {weight.shape}")
    return weight

"""PyTorch's axes turned into ours: what a layer's `weight` is called and how it lies in memory there."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from jaxvision.pretrained.strict import Path, Source, Turn, fill, unprefixed
from jaxvision.types import Variables

NORM_NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""Our names of a normalisation layer's arrays, and PyTorch's."""


unchanged = Turn(lambda array: array, lambda array: array)
"""Biases, scales and statistics: one axis on both sides."""
conv_kernel = Turn(
    lambda weight: _axes(weight, 4, "a convolution's weight").transpose(2, 3, 1, 0),
    lambda kernel: kernel.transpose(3, 2, 0, 1),
)
"""Kernel of a convolution, `o i h w` to `h w i o`."""
transposed_kernel = Turn(
    lambda weight: _axes(weight, 4, "a transposed convolution's weight").transpose(2, 3, 0, 1),
    lambda kernel: kernel.transpose(2, 3, 0, 1),
)
"""Kernel of a transposed convolution whose stride is its size, `i o h w` to `h w i o`."""
dense_kernel = Turn(lambda weight: _axes(weight, 2, "a dense layer's weight").T, lambda kernel: kernel.T)
"""Kernel of a dense layer, `o i` to `i o`."""
channel_scale = Turn(
    lambda weight: _axes(weight, 3, "a channel scale").reshape(-1), lambda scale: scale.reshape(-1, 1, 1)
)
"""Scale of a layer, `c 1 1` to `c`: one factor for every channel of an image."""


def dense_kernel_after_flatten(channels: int, height: int, width: int) -> Turn:
    """Kernel `o (c h w)` to `(h w c) o` of a dense layer behind flattened features, which PyTorch orders by channel first."""

    def forth(weight: np.ndarray) -> np.ndarray:
        by_channel = dense_kernel(weight).reshape(channels, height, width, -1)
        return by_channel.transpose(1, 2, 0, 3).reshape(channels * height * width, -1)

    def back(kernel: np.ndarray) -> np.ndarray:
        by_place = kernel.reshape(height, width, channels, -1)
        return by_place.transpose(2, 0, 1, 3).reshape(channels * height * width, -1).T

    return Turn(forth, back)


def _axes(weight: np.ndarray, count: int, what: str) -> np.ndarray:
    if weight.ndim != count:
        raise ValueError(f"{what} has {count} axes, not the shape {weight.shape}")
    return weight


def module_sources(
    variables: Variables, module: Callable[[str], str], kernels: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {}
) -> dict[Path, Source]:
    """The name map of a network: for every array its name in PyTorch and how its axes turn into ours.

    Args:
        variables: the network's own; shapes are enough.
        module: from the name of one of our modules, joined by slashes, to PyTorch's.
        kernels: for our modules whose kernel turns otherwise than its number of axes implies.
    """
    sources = {}
    flat: dict[Path, Any] = {**traverse_util.flatten_dict(variables)}
    for path, array in flat.items():
        ours, leaf = "/".join(path[1:-1]), path[-1]
        if leaf == "kernel":
            turn = kernels.get(ours, conv_kernel if len(array.shape) == 4 else dense_kernel)
            sources[path] = Source(f"{module(ours)}.weight", turn)
        else:
            sources[path] = Source(f"{module(ours)}.{NORM_NAMES[leaf]}", unchanged)
    return sources


def block_indices(variables: Variables, first: int, step: int = 1, between_stages: int = 0) -> dict[str, int]:
    """Places in PyTorch's one sequence of all modules that we call `stage{s}_...{n}`; equal (s, n) have the same place."""
    ours = {name for path in traverse_util.flatten_dict(variables) for name in path if name.startswith("stage")}
    places = {name: tuple(int(number) for number in re.findall(r"^stage(\d+)_\D+(\d+)$", name)[0]) for name in ours}
    order = {place: index for index, place in enumerate(sorted(set(places.values())))}
    return {name: first + order[place] * step + (place[0] - 1) * between_stages for name, place in places.items()}


def fill_network(
    sources: Mapping[Path, Source],
    state_dict: Mapping[str, np.ndarray],
    variables: Variables,
    heads: Sequence[str] = (),
) -> dict[str, Any]:
    """`strict.fill` without BatchNorm's counters of batches and without `heads`: PyTorch's names of modules to leave out."""
    dropped = tuple(f"{module}." for module in heads)
    state_dict, _ = unprefixed(state_dict, {source.name for source in sources.values()})
    kept = {name: array for name, array in state_dict.items() if not name.endswith("num_batches_tracked")}
    return fill(
        {path: source for path, source in sources.items() if not source.name.startswith(dropped)},
        {name: array for name, array in kept.items() if not name.startswith(dropped)},
        variables,
    )

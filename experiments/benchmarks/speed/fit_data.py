"""Batches and weights of the benchmark `fit`, for all its sides: random grey images of 28 px, a small CNN with BatchNorm."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

SIDE, CLASSES, BATCHES = 28, 10, 8
MEAN, STD = 73.0, 90.0
CHANNELS = (8, 16)
COMPARED = 3
"""Steps whose losses are compared."""


def optimizer() -> optax.GradientTransformation:
    """AdamW, of all parameters."""
    return optax.adamw(1e-3)


def batches(count: int) -> list[tuple[jax.Array, jax.Array]]:
    """Images, uint8 `b h w 1`, and labels, on the device."""
    found = []
    for seed in range(BATCHES):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (count, SIDE, SIDE, 1), dtype=np.uint8)
        found.append((jnp.asarray(image), jnp.asarray(rng.integers(0, CLASSES, count).astype(np.int32))))
    return found


def filled(params: Mapping[str, Any]) -> Any:
    """The parameters with numbers of one source, in the order of their names."""
    rng = np.random.RandomState(0)
    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten([jnp.asarray(0.1 * rng.standard_normal(each.shape), each.dtype) for each in leaves])

"""Weights of few bits: rounded where a task is run, and trained for it with straight-through gradients (arXiv:1308.3432).

Each output channel of a kernel, its last axis, has a scale, the largest absolute value by `2 ** (bits - 1) - 1`, and whole
numbers between (arXiv:1806.08342, symmetric, per channel). 0 stays 0, so pruned weights do. Activations are as they were.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxvision.errors import ConfigError
from jaxvision.experiment import Experiment
from jaxvision.optimize.patterns import check_matches, first_match, names
from jaxvision.types import Batch, Key, LossOutput, Params, Prediction, Scalar, Task, Variables

KERNELS = r"(.*/)?kernel"
"""All kernels of a network."""
BITS = range(2, 9)


def quantised(task: Task, bits: int = 4, *chosen: str) -> Task:
    """The task with weights of this many bits: rounded in `predict`, and in `loss`, whose gradient passes the rounding.

    What is trained are the weights before rounding. A task that was trained without is rounded after training by this, too:
    its variables are the same.

    Args:
      task: of any kind; averages of its weights are rounded when they are run.
      bits: 2 to 8.
      chosen: patterns of the names of the arrays that are rounded; all kernels if none is given.

    Raises:
      ConfigError: for bits that are not allowed; in use, for a pattern that matches no array, with the nearest names.
    """
    check_bits(bits)
    patterns = chosen or (KERNELS,)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        return task.loss({**variables, "params": rounded(variables["params"], bits, patterns)}, batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        return task.predict({**variables, "params": rounded(variables["params"], bits, patterns)}, batch)

    return Task(task.init, loss, predict)


def quantised_experiment(experiment: Experiment, bits: int = 4, *chosen: str) -> Experiment:
    """The experiment with its task quantised."""
    return experiment._replace(task=quantised(experiment.task, bits, *chosen))


def check_bits(bits: Any) -> None:
    """Raises ConfigError for a number of bits that is not allowed."""
    if bits not in BITS:
        raise ConfigError(f"bits is {bits!r}; allowed is a whole number from {BITS[0]} to {BITS[-1]}")


def rounded(params: Params, bits: int, chosen: tuple[str, ...] = (KERNELS,)) -> Params:
    """The parameters with each chosen array rounded; the gradient is that of the parameters as they are.

    Raises:
      ConfigError: for a pattern that matches no array, with the nearest names.
    """
    which = _chosen(params, chosen)

    def each(name: str, weights: Array) -> Array:
        if name not in which:
            return weights
        number, scale = as_integers(weights, bits)
        near = number.astype(weights.dtype) * scale
        return weights + jax.lax.stop_gradient(near - weights)

    return jax.tree.map(each, names(params), params)


def as_integers(weights: Float[Array, "*s o"], bits: int) -> tuple[Int[Array, "*s o"], Float[Array, "*one o"]]:
    """The whole numbers that stand for the weights, and the scale of each output channel, in a shape that broadcasts."""
    most = 2 ** (bits - 1) - 1
    largest = jnp.abs(weights).max(tuple(range(weights.ndim - 1)), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1) / most
    return jnp.clip(jnp.round(weights / scale), -most, most).astype(jnp.int8), scale


def size_in_bytes(params: PyTree, bits: int, chosen: tuple[str, ...] = (KERNELS,)) -> int:
    """Bytes of the parameters when stored so: whole numbers packed, a scale for each channel, all others as they are."""
    which, sizes = _chosen(params, chosen), 0
    for name, x in zip(jax.tree.leaves(names(params)), jax.tree.leaves(params), strict=True):
        bytes_each = np.dtype(x.dtype).itemsize
        sizes += -(-x.size * bits // 8) + x.shape[-1] * bytes_each if name in which else x.size * bytes_each
    return sizes


def _chosen(params: Params, patterns: tuple[str, ...]) -> set[str]:
    every = jax.tree.leaves(names(params))
    for pattern in patterns:
        try:
            check_matches(pattern, every, "quantised")
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return set(first_match(every, patterns))

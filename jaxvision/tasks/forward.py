"""The forward pass of a network, as every task runs it."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, PyTree

from jaxvision.types import Key, Variables


def model_variables(variables: Variables) -> dict:
    """The variables without the averaged ones, as Flax wants them."""
    return {name: value for name, value in variables.items() if name != "ema"}


def forward_training(
    network: nn.Module, variables: Variables, *inputs: Array | PyTree, key: Key, method: str | None = None
) -> tuple[Any, dict]:
    """The network's output in training mode, and its collections (BatchNorm statistics) as they are after it.

    Args:
      network: called as `network(*inputs, train=True)`.
      variables: its parameters and collections; averaged ones are left aside.
      inputs: of the network.
      key: for dropout.
      method: called in place of `__call__`, for networks of several stages.
    """
    model = model_variables(variables)
    mutable = [name for name in model if name != "params"]
    out, changed = network.apply(model, *inputs, train=True, mutable=mutable, rngs={"dropout": key}, method=method)  # type: ignore[misc]
    return out, {name: changed.get(name, model[name]) for name in mutable}

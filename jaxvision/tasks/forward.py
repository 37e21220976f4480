"""The forward pass of a network, as every task runs it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from jaxvision.nn.norm import of_valid_rows
from jaxvision.types import Key, Variables


def model_variables(variables: Variables) -> dict:
    """The variables without the averaged ones, as Flax wants them."""
    return {name: value for name, value in variables.items() if name != "ema"}


def forward_training(
    network: nn.Module,
    variables: Variables,
    *inputs: Array | PyTree,
    valid: Bool[Array, "*rows"],
    key: Key,
    method: str | None = None,
) -> tuple[Any, dict]:
    """The network's output in training mode, and its collections (BatchNorm statistics) as they are after it.

    Every BatchNorm, Flax's too, sees the valid rows alone: `nn.norm.of_valid_rows`. Without any the collections stay as they
    are.

    Args:
      network: called as `network(*inputs, train=True)`.
      variables: its parameters and collections; averaged ones are left aside.
      inputs: of the network.
      valid: which rows of the inputs are real: `batch.valid`, or by image and region.
      key: for dropout.
      method: called in place of `__call__`, for networks of several stages.
    """
    model = model_variables(variables)
    before = {name: value for name, value in model.items() if name != "params"}
    any_valid = valid.any()
    with of_valid_rows(valid | ~any_valid):
        options = {"mutable": list(before), "rngs": {"dropout": key}, "method": method}
        out, changed = network.apply(model, *inputs, train=True, **options)  # type: ignore[misc]
    return out, jax.tree.map(lambda new, old: jnp.where(any_valid, new, old), {**before, **changed}, before)

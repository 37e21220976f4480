"""Remedies for groups that a model fails: sampling weights by group, and group DRO."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.errors import DataError, amount
from jaxvision.types import Batch, Key, LossOutput, Scalar, Task, Variables

WEIGHTS = "group_weights"
"""Collection that holds the weights of the groups."""


def sampling_weights(numbers: Int[np.ndarray, "n"], groups: int, power: float = 1.0) -> Float[np.ndarray, "n"]:
    """Weights of examples for `data.order.weighted`, under which all groups are drawn equally often.

    Args:
      numbers: the group of each example of the source.
      groups: how many there are.
      power: below 1, groups of n examples are drawn as often as `n ** (1 - power)`; 0 leaves them as they are.

    Raises:
      DataError: for a group with no example, and for examples of no group.
      ValueError: for a power outside 0 to 1.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"sampling_weights(power={power}): allowed is 0 to 1")
    return 1.0 / counts_of(numbers, groups)[numbers] ** power


def counts_of(numbers: Int[np.ndarray, "n"], groups: int) -> Int[np.ndarray, "groups"]:
    """The number of examples of each group. Raises DataError for a group with none, and for examples of no group."""
    outside = int(((numbers < 0) | (numbers >= groups)).sum())
    if outside:
        raise DataError(
            f"{amount(outside, 'example')} of {len(numbers):,} to train on are in none of {amount(groups, 'group')}"
        )
    counts = np.bincount(numbers, minlength=groups)
    empty = np.flatnonzero(counts == 0).tolist()
    if empty:
        raise DataError(f"group {empty[0]} of {groups} has no example to train on")
    return counts


def group_dro(
    task: Task,
    numbers: Callable[[], Int[np.ndarray, "n"]],
    groups: int,
    *,
    rate: float = 0.01,
    adjustment: float = 0.0,
) -> Task:
    """The task with the loss of its worst groups: group distributionally robust optimisation (arXiv:1911.08731).

    The loss is the sum of the mean losses of the groups in the batch, weighted by a collection `group_weights`, which begins
    equal. Each step multiplies the weight of a group by exp(rate * its loss) and divides by the sum, before they are used. A
    group that is not in the batch has loss 0 there, as in the authors' code: with `order.weighted(sampling_weights(...))` all
    groups are in most batches. The paper needs strong regularisation beside it: weight decay, early stopping. `predict` is
    the task's.

    Args:
      task: whose loss gives one number an example (`LossOutput.example_loss`); anything else in its loss is left out.
      numbers: opens the group of each example of the training source, by its index; called when a step is traced.
      groups: how many there are.
      rate: of the weights of groups.
      adjustment: C of the paper's equation 5: the loss of a group of n examples counts as C / sqrt(n) more.

    Raises:
      ValueError: for no group, a rate that is not above 0, a negative adjustment; in the loss, for a task without losses of
        examples.
      DataError: in the loss, for a group with no example, and for examples of no group.
    """
    if groups < 1 or not 0 < rate < float("inf") or not 0 <= adjustment < float("inf"):
        raise ValueError(
            f"group_dro(groups={groups}, rate={rate}, adjustment={adjustment}): allowed are 1 or more, above 0, 0 or more"
        )

    def init(key: Key, batch: Batch) -> Variables:
        return {**task.init(key, batch), WEIGHTS: jnp.full(groups, 1 / groups, jnp.float32)}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        known = np.asarray(numbers())
        counts = counts_of(known, groups)
        _, out = task.loss(_without_weights(variables), batch, key)
        if out.example_loss is None:
            raise ValueError("group_dro needs a task whose loss gives one number an example (LossOutput.example_loss)")
        number = jnp.asarray(known, jnp.int32)[jnp.clip(batch.index, 0, len(known) - 1)]
        losses = group_losses(out.example_loss, jnp.where(batch.valid, number, -1), groups)
        extra = jnp.asarray(adjustment / np.sqrt(counts), losses.dtype)
        weights = updated(variables[WEIGHTS].astype(losses.dtype), losses + extra, rate)
        metrics = {**out.metrics, "worst_group_loss": losses.max(), "largest_group_weight": weights.max()}
        collections = {**out.collections, WEIGHTS: weights.astype(variables[WEIGHTS].dtype)}
        return (weights * losses).sum(), LossOutput(metrics, collections, out.example_loss)

    return Task(init, loss, lambda variables, batch: task.predict(_without_weights(variables), batch))


def group_losses(losses: Float[Array, "b"], number: Int[Array, "b"], groups: int) -> Float[Array, "groups"]:
    """Mean loss of each group, of examples with the number of their group; 0 for a group with none."""
    members = number[:, None] == jnp.arange(groups, dtype=number.dtype)[None]
    count = members.sum(0).astype(losses.dtype)
    return jnp.where(members, losses[:, None], 0).sum(0) / jnp.maximum(count, 1)


def updated(weights: Float[Array, "groups"], losses: Float[Array, "groups"], rate: float) -> Float[Array, "groups"]:
    """The weights after one step of exponentiated gradient ascent; no gradient passes."""
    return jax.lax.stop_gradient(jax.nn.softmax(jnp.log(weights) + rate * losses))


def _without_weights(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != WEIGHTS}

"""What an optimizer does with each parameter, found by trying it: masks, groups and rates as they are, not as intended.

It is tried on a miniature of the parameters, which has their names and ranks and one number each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxvision.optimize import Grouped
from jaxvision.types import Params


class Treatment(NamedTuple):
    """What an optimizer does with one parameter."""

    group: str
    """The pattern of `optimize.by_group` that it is optimized by; empty where there are no groups."""
    rate: float | None
    """How far the first step goes for a gradient of 1, beside the parameter that goes farthest.

    Between groups of different algorithms it says little. None, as `decays`, for an optimizer that can't be tried.
    """
    decays: bool | None
    """Whether a step without a gradient makes it smaller."""


def treatments(optimizer: optax.GradientTransformation, params: Params, steps: int) -> list[Treatment]:
    """What the optimizer does with each parameter, array or shape, in the order of the leaves.

    The schedules stand at the middle of the `steps`, so that those that begin or end with 0 are reported, too. A
    transformation that looks at whole arrays (`optax.centralize`) does something else with one number.
    """
    groups = _groups(optimizer, params)
    try:
        moved, shrunk = _tried(optimizer, params, steps // 2)
    except Exception:  # whatever an optimizer that needs the whole shapes may raise
        return [Treatment(group, None, None) for group in groups]
    farthest = max(map(abs, moved)) or 1.0
    return [
        Treatment(group, abs(move) / farthest, shrink < 0)
        for group, move, shrink in zip(groups, moved, shrunk, strict=True)
    ]


def _tried(optimizer: optax.GradientTransformation, params: Params, step: int) -> tuple[list[float], list[float]]:
    """Each parameter's first update: from 0 with a gradient of 1, and from 1 with a gradient of 0."""
    update = optax.with_extra_args_support(optimizer).update

    def both() -> tuple[Params, Params]:
        ones = jax.tree.map(lambda x: jnp.ones((1,) * len(x.shape), x.dtype), params)
        zeros = jax.tree.map(jnp.zeros_like, ones)
        state = _at_step(step, optimizer.init(ones))
        moved, _ = update(ones, state, zeros, value=jnp.float32(1))
        shrunk, _ = update(zeros, state, ones, value=jnp.float32(1))
        return moved, shrunk

    moved, shrunk = ([x.item() for x in jax.tree.leaves(tree)] for tree in jax.device_get(jax.jit(both)()))
    return moved, shrunk


def _at_step(step: int, state: PyTree) -> PyTree:
    """The state with its schedules at this step."""

    def is_schedule(part: PyTree) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda x: x._replace(count=jnp.int32(step)) if is_schedule(x) else x, state, is_leaf=is_schedule
    )


def _groups(optimizer: optax.GradientTransformation, params: Params) -> list[str]:
    """The group of each parameter, by the outermost `by_group` there is."""
    state = jax.eval_shape(optimizer.init, params)
    parts = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, Grouped))
    found = [part for part in parts if isinstance(part, Grouped)]
    return jax.tree.leaves(found[0].group_of(params)) if found else [""] * len(jax.tree.leaves(params))

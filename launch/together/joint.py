"""Several members' steps as one program: `unroll` puts them side by side, `vmap` makes of their operations one for all."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from launch.together.lifting import Inputs
from launch.together.steps import Flat, FlatStep

Way = Literal["vmap", "unroll"]
JointStep = Callable[[Sequence[Inputs], Sequence[Flat], Sequence[Flat]], list[tuple[Flat, Flat]]]
"""`(values, states, batches) -> [(state, metrics), ...]`, an entry a member."""


def unroll(step: FlatStep) -> JointStep:
    """The steps of the members side by side."""
    once = jax.jit(step)  # lowered once, and not for each member

    def joint(values: Sequence[Inputs], states: Sequence[Flat], batches: Sequence[Flat]) -> list[tuple[Flat, Flat]]:
        return [once(*each) for each in zip(values, states, batches, strict=True)]

    return joint


def vmap(step: FlatStep) -> JointStep:
    """The steps of the members as one, over arrays with an axis more, along which the members lie."""

    def joint(values: Sequence[Inputs], states: Sequence[Flat], batches: Sequence[Flat]) -> list[tuple[Flat, Flat]]:
        stacked = [jax.tree.map(lambda *each: jnp.stack(each), *rows) for rows in (values, states, batches)]
        done = jax.vmap(step)(*stacked)
        return [jax.tree.map(lambda x, i=i: x[i], done) for i in range(len(states))]

    return joint


WAYS: dict[Way, Callable[[FlatStep], JointStep]] = {"vmap": vmap, "unroll": unroll}

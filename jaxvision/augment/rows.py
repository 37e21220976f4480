"""How the rows of a batch are worked on: in which order, and what of them is computed once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxvision.types import Batch


def each_row(change: Callable[..., Any], *arrays: Array) -> Any:
    """`change` of each row of these arrays, for what differs from row to row in which branch of a `switch` it takes.

    All rows are computed at once, with all branches, of which one result is kept; on CPU row after row, so that only that
    branch is computed.
    """

    def one_by_one(*arrays: Array) -> Any:
        return jax.lax.map(lambda row: change(*row), arrays)

    return jax.lax.platform_dependent(*arrays, cpu=one_by_one, default=jax.vmap(change))


def stored(batch: Batch) -> Batch:
    """The batch, its images computed once, on CPU too, before something takes each pixel several times.

    On CPU, XLA would compute a pixel anew for each time that it is taken: a warp of a warp took four times as long. It does
    not look into the branches of a condition that it can't decide.
    """

    def held(image: Array, size: Array) -> Array:
        return jax.lax.cond((size >= 0).all(), lambda image: image, lambda image: image[::-1], image)

    image, size = jnp.asarray(batch.image), jnp.asarray(batch.size)
    stay = lambda image, size: image
    return dataclasses.replace(batch, image=jax.lax.platform_dependent(image, size, cpu=held, default=stay))

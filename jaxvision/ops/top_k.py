"""The largest values of a row, computed where the row is: a batch that is split over devices stays split.

XLA gathers a split batch onto every device for `jax.lax.top_k`, and each then computes all of it.
"""

import functools
from collections.abc import Callable

import jax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from jaxvision.ops.options import WHOLE, allowed

Largest = tuple[Shaped[Array, "*b {count}"], Int[Array, "*b {count}"]]


@allowed(count=WHOLE)
def top_k(values: Shaped[Array, "*b n"], count: int) -> Largest:
    """`jax.lax.top_k` along the last axis: the largest values, falling, and their indices; of equal ones the first.

    They have no gradient.

    Args:
      values: rows; along this axis they are whole on a device, or gathered.
      count: how many, n at most.
    """
    return _batched(count)(jax.lax.stop_gradient(values))


@functools.cache
def _batched(count: int) -> Callable[[Array], tuple[Array, Array]]:
    """Partitioned `top_k` of `count` values.

    A partitioned function has no rule for `vmap`; this one needs none, since a batch is more rows.
    """

    @custom_vmap
    def function(values: Array) -> tuple[Array, Array]:
        return _rows(values, count)

    @function.def_vmap
    def _(size: int, batched: list[bool], values: Array) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
        return function(values), (True, True)

    return function


@functools.partial(custom_partitioning, static_argnums=(1,))
def _rows(values: Array, count: int) -> tuple[Array, Array]:
    best, index = jax.lax.top_k(values, count)
    return best, index


def _on_each_device(count: int, mesh, arguments, results):
    given = arguments[0]
    axes = (*given.sharding.spec, *(None,) * len(given.shape))[: len(given.shape) - 1]
    rows = NamedSharding(given.sharding.mesh, PartitionSpec(*axes, None))
    return mesh, lambda values: tuple(jax.lax.top_k(values, count)), (rows, rows), (rows,)


_rows.def_partition(
    partition=_on_each_device, sharding_rule="... n -> ... k, ... k", need_replication_factors=("n", "k")
)

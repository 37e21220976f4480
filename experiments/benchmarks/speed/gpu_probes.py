"""Probes of a GPU: what a matrix product in bfloat16 and a copy in its memory reach, by JAX."""

from functools import partial

import jax
import jax.numpy as jnp

from experiments.benchmarks.speed.contest import Work


def gemm(side: int) -> Work:
    """A product of two matrices of this side."""
    return repeated(partial(jnp.dot, jnp.ones((side, side), jnp.bfloat16)), jnp.ones((side, side), jnp.bfloat16))


def copy(numbers: int) -> Work:
    """An array of float32 read, and one written."""
    return repeated(lambda x: x + 1, jnp.ones(numbers, jnp.float32))


def repeated(function, given: jax.Array) -> Work:
    """Calls of a function, one behind another."""
    call = jax.jit(function)

    def run(units: int) -> None:
        for _ in range(units):
            out = call(given)
        out.block_until_ready()

    return Work(run)

"""Copies of a state: what is written beside training, which may give its own arrays away."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxvision.run.exclusive import in_main_thread


def apart() -> bool:
    """Whether saving copies the arrays first, and does all else beside training.

    It does on a CPU, where Orbax and the digest take several times what a copy takes. Devices with memory of their own
    compute the digest in no time, and may have no room for a copy; several processes must not be in two calls at once.
    """
    return jax.process_count() == 1 and in_main_thread() and jax.default_backend() == "cpu"


def copied(state: PyTree) -> PyTree:
    """The arrays once more, where they are."""
    return jax.block_until_ready(jax.tree.map(_copied, state))


def _copied(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # as Orbax restores it, its sharding is none for a single key
        return jnp.copy(leaf)
    return jax.device_put(leaf, leaf.sharding, may_alias=False)

"""Random keys: one for each row of a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxvision.types import Key


def row_keys(key: Key, rows: int) -> Array:
    """`rows` keys, the i-th of which depends on `key` and i alone: not on how many rows there are."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(rows, dtype=jnp.uint32))

"""Which number type a value is kept in, when computation runs in another."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The type of parameters, statistics and logits of a network that computes in `dtype`.

    float32 for half precision and for float32; float64 stays float64.
    """
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)

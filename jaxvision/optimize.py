"""Small compositions of optax."""

import jax
import jax.numpy as jnp

from jaxvision.types import Params


def kernels(params: Params):
    """A mask for weight decay: True for kernels, False for biases and for the scales of norms (anything below rank 2)."""
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, params)

"""Settled values: computed once, where XLA on CPU would compute them again for each use, and again with all before them."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def settled(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, which is in memory before anything uses it; so is its gradient.

    For what a chain of sums runs through, as through the blocks of a residual network. XLA on CPU fuses a sum into
    everything that uses it, so that each block computes the sums of all blocks before it once more, and the gradient those
    of all behind it: a third of the time of a step of ViT-S, a fifth of ResNet-50's. Nothing that it may fuse is behind a
    branch, whatever the branch does; which one is taken is no constant to it while it looks for some. On other devices `x`
    as it is.
    """
    if jax.default_backend() != "cpu":
        return x
    never = lax.optimization_barrier(jnp.bool_(False))
    return lax.cond(never, jnp.negative, lambda same: same, x)

"""Stochastic depth (arXiv:1603.09382): while training, a residual branch is left out for some examples."""

from flax import linen as nn
from jaxtyping import Array, Float


class StochasticDepth(nn.Module):
    """Zeros in place of the branch for a fraction `rate` of the examples, sampled independently; the others / (1 - rate).

    So the expected branch is the branch: torchvision's mode "row", timm's `DropPath`. Needs an rng named "dropout" while
    training, unless `rate` is 0.
    """

    rate: float

    @nn.compact
    def __call__(self, branch: Float[Array, "b *s"], *, train: bool) -> Float[Array, "b *s"]:
        """The branch, as it is unless training."""
        other_axes = tuple(range(1, branch.ndim))
        return nn.Dropout(self.rate, broadcast_dims=other_axes, deterministic=not train)(branch)


def linear_rates(rate: float | int, blocks: int) -> list[float]:
    """The rate of each of the `blocks`: from 0 for the first, in equal steps, to `rate` for the last, as timm has it.

    (The paper begins one step higher: `rate / blocks`.)

    Raises:
        ValueError: for a rate outside 0 to below 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"stochastic_depth is {rate}; it must be at least 0 and less than 1")
    return [rate * block / max(blocks - 1, 1) for block in range(blocks)]

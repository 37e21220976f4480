"""Weights that make a network learn the borders between touching objects."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.ops.options import NOT_NEGATIVE, POSITIVE, allowed

REACH = 8
"""Distance, in sigmas, beyond which the weight of a border is taken to be 0: there it is below `w0` times 1.3e-14."""

Near = tuple[Float[Array, "h w"], Int[Array, "h w"]]
"""Squared distance of each pixel to an object, infinite if there is none near, and which object that is."""


@allowed(w0=NOT_NEGATIVE, sigma=POSITIVE, balance=NOT_NEGATIVE._replace(length=2))
def border_weights(
    instances: Int[Array, "h w"],
    w0: float | int = 10.0,
    sigma: float | int = 5.0,
    balance: tuple[float | int, float | int] = (1.0, 1.0),
) -> Float[Array, "h w"]:
    """U-Net's weights of pixels (arXiv:1505.04597, equation 2): `balance + w0 exp(-(d1 + d2)^2 / (2 sigma^2))`.

    d1 and d2 are the distances to the nearest object and to the second nearest, from the centre of a pixel to that of the
    nearest one of the object. Inside objects there is no border, as in the paper's figure 3d. From masks `n h w`, the
    objects are `(masks * (1 + arange(n))).max(0)`. Computed on the device, behind all augmentation, in a time that does not
    depend on the number of objects.

    Args:
      instances: object of each pixel, from 1 on; 0 is background.
      w0: weight where two objects touch.
      sigma: width of the borders, in pixels.
      balance: weights of background and of objects, against their frequencies.

    Returns:
      Weights for `SegmentationMap.weight`.

    Raises:
      ValueError: a negative weight, a sigma of 0 or less.
    """
    dtype = jnp.result_type(float)
    inside = instances > 0
    near = (jnp.where(inside, 0.0, jnp.inf).astype(dtype), instances)
    reach = int(REACH * sigma) + 1
    nearest, second = _two_nearest(_two_nearest((near,), 0, reach), 1, reach)
    distance = jnp.sqrt(nearest[0]) + jnp.sqrt(second[0])
    border = w0 * jnp.exp(-jnp.square(distance / sigma) / 2)
    return jnp.where(inside, balance[1], balance[0] + border).astype(dtype)


def _two_nearest(candidates: Sequence[Near], axis: int, reach: int) -> tuple[Near, Near]:
    """The nearest object of each pixel and the second nearest, among the candidates of the pixels along `axis`."""
    edges = [(0, 0), (0, 0)]
    edges[axis] = (reach, reach)
    padded = [(jnp.pad(d, edges, constant_values=jnp.inf), jnp.pad(i, edges)) for d, i in candidates]
    distance, instance = candidates[0]
    none = (jnp.full_like(distance, jnp.inf), jnp.zeros_like(instance))

    def from_there(step: Array, found: tuple[Near, Near]) -> tuple[Near, Near]:
        away = jnp.square(step - reach).astype(distance.dtype)
        for d, i in padded:
            d, i = (jax.lax.dynamic_slice_in_dim(x, step, distance.shape[axis], axis) for x in (d, i))
            found = _with(found, (d + away, i))
        return found

    return jax.lax.fori_loop(0, 2 * reach + 1, from_there, (none, none))


def _with(found: tuple[Near, Near], new: Near) -> tuple[Near, Near]:
    """The two nearest of three, the first two of different objects."""
    (d1, i1), (d2, i2) = found
    d, i = new
    first, known = d < d1, i == i1
    second = (d < d2) & ~first & ~known
    moved = first & ~known
    return (
        (jnp.where(first, d, d1), jnp.where(first, i, i1)),
        (jnp.where(moved, d1, jnp.where(second, d, d2)), jnp.where(moved, i1, jnp.where(second, i, i2))),
    )

"""The larger and the smaller of two arrays, with gradients that compare the two, never the result with one of them.

A compiler may compute an operand once for the result and once more, rounded otherwise, for the gradient: "equal to the
result" then holds nowhere or too often, and a gradient is lost or doubled. JAX's own `maximum`, `minimum`, `max` and `min`
ask that.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

Operand = Shaped[Array, "..."] | float | int
"""Arrays whose shapes broadcast, or a number."""


def maximum(a: Operand, b: Operand) -> Shaped[Array, "..."]:
    """The larger, element by element; NaN where one is. The gradient goes to the larger, of equal ones half to each."""
    return _maximum(*jnp.broadcast_arrays(*_of_one_type(a, b)))


def minimum(a: Operand, b: Operand) -> Shaped[Array, "..."]:
    """The smaller, element by element; else as `maximum`."""
    return _minimum(*jnp.broadcast_arrays(*_of_one_type(a, b)))


def _of_one_type(a: Operand, b: Operand) -> tuple[Array, Array]:
    dtype = jnp.result_type(a, b)
    return jnp.asarray(a, dtype), jnp.asarray(b, dtype)


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
    return jnp.maximum(a, b)


@jax.custom_jvp
def _minimum(a: Array, b: Array) -> Array:
    return jnp.minimum(a, b)


@_maximum.defjvp
def _(operands: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    a, b = operands
    return _maximum(a, b), _of_the_first_if(a > b, b > a, *tangents)


@_minimum.defjvp
def _(operands: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    a, b = operands
    return _minimum(a, b), _of_the_first_if(a < b, b < a, *tangents)


def _of_the_first_if(first: Array, second: Array, a: Array, b: Array) -> Array:
    return jnp.where(first, a, jnp.where(second, b, (a + b) / 2))

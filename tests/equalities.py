"""Where a program asks whether two computed floats are equal: not a test itself.

A compiler may compute a float twice, each time rounded otherwise. A maximum is then equal to nothing that it was taken from.
"""

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval


def equalities(function, *arguments):
    """A line for each float that the result depends on being equal to another that is no constant."""
    closed = jax.make_jaxpr(function)(*arguments)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return [*_found(jaxpr)]


def _found(jaxpr):
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, equation.invars
        if name == "eq" and jnp.issubdtype(inputs[0].aval.dtype, jnp.floating) and not any(map(_constant, inputs)):
            yield str(equation)
        for value in jax.tree.leaves([*equation.params.values()], is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _found(inner)


def _constant(variable):
    return not hasattr(variable, "count") and hasattr(variable, "val")

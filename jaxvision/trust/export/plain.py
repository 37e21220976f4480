"""Plain programs: the same computation without what only XLA knows, for converters that go from operator to operator."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr

import jaxvision

PACKAGE = Path(jaxvision.__file__).parent
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint")
"""Operators that call a program as it stands."""
CUSTOM = ("custom_vmap_call", "custom_partitioning", "custom_jvp_call", "custom_vjp_call")
"""Operators with a rule of their own for batches, devices or gradients, none of which is left to apply."""
INNER = ("jaxpr", "call_jaxpr", "call", "fun_jaxpr")
"""Settings of these that hold the program that is called."""


Instead = Mapping[str, Callable[[dict[str, Any], list[Any]], Sequence[Any]]]
"""What computes an operator, by its name: `(settings, arguments) -> results`."""
_INSTEAD: ContextVar[Instead] = ContextVar("_INSTEAD", default=MappingProxyType({}))


@contextmanager
def computing(instead: Instead) -> Iterator[None]:
    """Inside this block programs that are made plain compute these operators so."""
    token = _INSTEAD.set(instead)
    try:
        yield
    finally:
        _INSTEAD.reset(token)


def sorted_top_k(settings: dict[str, Any], arguments: list[Any]) -> Sequence[Any]:
    """`jax.lax.top_k` along the last axis by a stable sort: of equal ones the first."""
    (values,) = arguments
    index = jnp.argsort(values, axis=-1, stable=True, descending=True)[..., : settings["k"]]
    return jnp.take_along_axis(values, index, axis=-1), index.astype(jnp.int32)


def apart(function: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """The function, of whose results no two are one value; converters lose the name of one of them."""

    def run(*arguments: jax.Array) -> Sequence[Any]:
        results = function(*arguments)
        seen = [id(each) for each in results]
        return [jnp.copy(x) if id(x) in seen[:n] else x for n, x in enumerate(results)]

    return run


def plain(function: Callable[..., Any], shapes: Sequence[Any] | None = None) -> Callable[..., Any]:
    """The function with calls written out, custom rules, barriers and branches never taken dropped, and loops of one turn
    unrolled; same values.

    Args:
      function: of arrays.
      shapes: arguments to trace it for, now; None: at each call for what it is given.
    """
    first = None if shapes is None else _traced(function, shapes)

    def run(*arguments: jax.Array) -> Any:
        jaxpr, constants, results = first or _traced(function, arguments)
        return jax.tree.unflatten(results, _evaluated(jaxpr, constants, jax.tree.leaves(arguments)))

    return run


def _traced(function: Callable[..., Any], shapes: Sequence[Any]) -> tuple[Jaxpr, Sequence[Any], Any]:
    """The program of a function without what nothing depends on, its constants, and the structure of its results."""
    closed, results = jax.make_jaxpr(function, return_shape=True)(*shapes)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return jaxpr, closed.consts, jax.tree.structure(results)


def _evaluated(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The results of a program; what is traced here has the places in the source that the original operators had."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        stack = source_info_util.current_name_stack() + equation.source_info.name_stack
        with source_info_util.user_context(equation.source_info.traceback, name_stack=stack):
            results = _applied(equation, [read(variable) for variable in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _applied(equation: Any, arguments: list[Any]) -> Sequence[Any]:
    """The results of one operator."""
    name, settings = equation.primitive.name, equation.params
    if name in (*CALLS, *CUSTOM):
        return _called(next(settings[key] for key in INNER if key in settings), arguments)
    if name == "platform_index":  # the branch for any platform, or the first one
        platforms = settings["platforms"]
        return [np.int32(platforms.index(None) if None in platforms else 0)]
    if name == "optimization_barrier":
        return arguments
    if name == "cond" and _is_known(arguments[0]):
        return _called(settings["branches"][int(np.asarray(arguments[0]))], arguments[1:])
    if name in FOLDED and all(map(_is_known, arguments)):
        return [FOLDED[name](settings, *map(np.asarray, arguments))]
    if name in (instead := _INSTEAD.get()):
        return instead[name](settings, arguments)
    if name == "pad" and not all(isinstance(size, int) for size in arguments[0].shape):
        return [_padded(arguments[0], arguments[1], settings["padding_config"])]
    if name in LOOPS and not _batched_condition(settings):
        return LOOPS[name](settings, arguments)
    found: Any = equation.primitive.get_bind_params(settings)
    functions, rest = found if isinstance(found, tuple) else ((), found)  # JAX before 0.10 has a pair
    results = equation.primitive.bind(*functions, *arguments, **rest)
    return results if equation.primitive.multiple_results else [results]


def _is_known(x: Any) -> bool:
    """Whether this is one number, known while the program is traced."""
    return not isinstance(x, Tracer) and np.ndim(x) == 0


FOLDED = {
    "clamp": lambda settings, low, x, high: np.clip(x, low, high),
    "convert_element_type": lambda settings, x: x.astype(settings["new_dtype"]),
}
"""Operators on the way to the number of a branch: `(settings, *arguments) -> result`."""


def _called(inner: ClosedJaxpr | Jaxpr, arguments: Sequence[Any]) -> list[Any]:
    if isinstance(inner, ClosedJaxpr):
        return _evaluated(inner.jaxpr, inner.consts, arguments)
    return _evaluated(inner, (), arguments)


def _padded(x: jax.Array, value: jax.Array, padding: Sequence[tuple[int, int, int]]) -> jax.Array:
    """`jax.lax.pad` by slices and concatenation: jax2onnx 0.17 can't pad a batch of any size."""
    for axis, (low, high, inside) in enumerate(padding):
        if inside:
            raise NotImplementedError("padding between the elements of a batch of any size")
        if low < 0 or high < 0:
            x = jax.lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
        sides = [jnp.broadcast_to(value, (*x.shape[:axis], max(n, 0), *x.shape[axis + 1 :])) for n in (low, high)]
        parts = [part for part, n in ((sides[0], low), (x, 1), (sides[1], high)) if n > 0]
        x = jnp.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _scan(settings: dict[str, Any], arguments: list[Any]) -> Sequence[Any]:
    """`jax.lax.scan`; of one turn without a loop."""
    count = settings["num_consts"]
    constants, carry = arguments[:count], arguments[count : count + settings["num_carry"]]
    rows = arguments[count + settings["num_carry"] :]

    def turn(carry: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        results = _called(settings["jaxpr"], [*constants, *carry, *row])
        return results[: settings["num_carry"]], results[settings["num_carry"] :]

    if settings["length"] == 1:
        carry, found = turn(carry, [row[0] for row in rows])
        return [*carry, *(each[None] for each in found)]
    carry, found = jax.lax.scan(turn, list(carry), rows, settings["length"], settings["reverse"])
    return [*carry, *found]


def _while(settings: dict[str, Any], arguments: list[Any]) -> Sequence[Any]:
    """`jax.lax.while_loop`, its condition and body plain."""
    first, second = settings["cond_nconsts"], settings["cond_nconsts"] + settings["body_nconsts"]
    of_condition, of_body, state = arguments[:first], arguments[first:second], arguments[second:]
    return jax.lax.while_loop(
        lambda state: _called(settings["cond_jaxpr"], [*of_condition, *state])[0],
        lambda state: _called(settings["body_jaxpr"], [*of_body, *state]),
        state,
    )


def _batched_condition(settings: dict[str, Any]) -> bool:
    """Whether a loop goes on for several rows, each with a condition of its own: it can't be written as a function."""
    return "cond_jaxpr" in settings and settings["cond_jaxpr"].out_avals[0].shape != ()


LOOPS = {"scan": _scan, "while": _while}


def operators(jaxpr: Jaxpr) -> list[Any]:
    """All operators of a program, those inside of others too."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)
        ):
            inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
            found += operators(inner) if isinstance(inner, Jaxpr) else []
    return found


def place(equation: Any) -> str:
    """Where in the source an operator comes from: `file:line (function)`."""
    return from_package(source_info_util.summarize(equation.source_info))


def from_package(place: str) -> str:
    """A place in the source; in this package as `jaxvision/...`."""
    return place.removeprefix(f"{PACKAGE.parent}/")


REFUSED = re.compile(r"(?P<place>/[^\s:]+:\d+:\d+)?:? error: [^']{0,2000}?'(?P<operator>\w+\.\w+)'")
"""An operator in the errors of MLIR, with its place where it is known."""


def refused_operator(text: str) -> str:
    """The first operator that these errors of MLIR refuse, and where it comes from; "" if they name none."""
    found = REFUSED.search(text)
    if not found:
        return ""
    at = f"; it is at {from_package(found['place'])}" if found["place"] else ""
    return f"the operator {found['operator']} does not convert{at}"

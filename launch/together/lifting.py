"""Lifting: constants in which programs differ become inputs of one program.

No experiment knows of it: programs are compared as they are traced. Constants are lifted wherever they stand; inside an
equation that holds other equations the whole equation is evaluated anew, by the rules of this module, and one that has no
rule makes its program another one.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Var

from launch.together.equations import Body, Constant, Equation, Program, difference

Inputs = tuple[Any, ...]
Columns = tuple[tuple[int, ...], ...]
"""Numbers of constants that are lifted: those of one column are equal in every member, and one input."""


def columns(members: Sequence[Sequence[Constant]]) -> Columns:
    """The constants in which programs of equal lines differ, by their bits; those that vary as one together."""
    found: dict[Hashable, list[int]] = {}
    for number, constants in enumerate(zip(*members, strict=True)):
        contents = tuple(constant.contents() for constant in constants)
        if len(set(contents)) > 1:
            found.setdefault(contents, []).append(number)
    return tuple(map(tuple, found.values()))


def unlike(first: Program, other: Program) -> str | None:
    """Why one program can't serve both; None where it can."""
    why = difference(first, other)
    if why is not None:
        return why
    for number in itertools.chain(*columns((first.constants, other.constants))):
        without = [name for name in first.constants[number].within if name not in RULES]
        if without:
            return f"a constant inside {without[0]}"
    return None


def values(constants: Sequence[Constant], lifted: Columns) -> Inputs:
    """What a member has for the constants that are lifted: an array of its type for each column."""
    return tuple(_array(constants[column[0]]) for column in lifted)


def _array(constant: Constant) -> Any:
    if isinstance(constant.value, jax.Array):
        return constant.value
    return np.asarray(constant.value, constant.aval.dtype)


def evaluator(program: Program, lifted: Columns) -> Callable[[Inputs, Sequence[Any]], list[Any]]:
    """The program as a function `(values, inputs) -> outputs` of flat lists, pure and traceable.

    Args:
      program: whose constants stay but for those that are lifted.
      lifted: the constants that the function gets as `values`.
    """

    def function(values: Inputs, inputs: Sequence[Any]) -> list[Any]:
        given = {number: value for column, value in zip(lifted, values, strict=True) for number in column}
        return _Evaluation(program, given).body(program.body, inputs)

    return function


class _Evaluation:
    """An evaluation of a program with other values for the constants that are lifted."""

    def __init__(self, program: Program, lifted: Mapping[int, Any]):
        self.constants = program.constants
        self.lifted = lifted

    def constant(self, number: int) -> Any:
        return self.lifted[number] if number in self.lifted else self.constants[number].value

    def body(self, body: Body, inputs: Sequence[Any]) -> list[Any]:
        known: dict[Var, Any] = dict(zip(body.jaxpr.invars, inputs, strict=True))
        known |= zip(body.jaxpr.constvars, map(self.constant, body.captured), strict=True)
        value = lambda operand: self.constant(operand) if isinstance(operand, int) else known[operand]
        for equation in body.equations:
            results = self.equation(equation, [value(each) for each in equation.operands])
            known |= zip(equation.source.outvars, results, strict=True)
        return [value(each) for each in body.outputs]

    def equation(self, equation: Equation, operands: list[Any]) -> list[Any]:
        source = equation.source
        if any(number in self.lifted for number in equation.constants):
            return RULES[source.primitive.name](self, equation, operands)
        with source.ctx.manager:
            asked = source.primitive.get_bind_params(source.params)
            functions, params = asked if isinstance(asked, tuple) else ((), asked)  # a pair before JAX 0.10
            results = source.primitive.bind(*functions, *operands, **params)
        return results if source.primitive.multiple_results else [results]

    def inlined(self, parameter: str, equation: Equation, operands: list[Any]) -> list[Any]:
        """The only jaxpr of this parameter in place of the equation."""
        (body,) = equation.bodies[parameter]
        return self.body(body, operands)

    def rematerialised(self, equation: Equation, operands: list[Any]) -> list[Any]:
        """A computation that is repeated in the backward pass: a barrier keeps it from being merged with the first."""
        parameters = equation.source.params
        if parameters["differentiated"] and parameters["prevent_cse"]:
            operands = list(lax.optimization_barrier(tuple(operands)))
        return self.inlined("jaxpr", equation, operands)

    def branches(self, equation: Equation, operands: list[Any]) -> list[Any]:
        index, *rest = operands
        chosen = [lambda *inputs, body=body: tuple(self.body(body, inputs)) for body in equation.bodies["branches"]]
        return list(lax.switch(index, chosen, *rest))

    def scan(self, equation: Equation, operands: list[Any]) -> list[Any]:
        parameters = equation.source.params
        constants, carried = parameters["num_consts"], parameters["num_carry"]
        fixed, carry, rows = (
            operands[:constants],
            operands[constants : constants + carried],
            operands[constants + carried :],
        )

        def step(carry: Inputs, row: Inputs) -> tuple[Inputs, Inputs]:
            results = self.inlined("jaxpr", equation, [*fixed, *carry, *row])
            return tuple(results[:carried]), tuple(results[carried:])

        options = {name: parameters[name] for name in ("length", "reverse", "unroll")}
        carry, rows = lax.scan(step, tuple(carry), tuple(rows), **options)
        return [*carry, *rows]

    def loop(self, equation: Equation, operands: list[Any]) -> list[Any]:
        parameters = equation.source.params
        tested, done = parameters["cond_nconsts"], parameters["body_nconsts"]
        of_test, of_body, carry = operands[:tested], operands[tested : tested + done], operands[tested + done :]
        going = lambda carry: self.inlined("cond_jaxpr", equation, [*of_test, *carry])[0]
        step = lambda carry: tuple(self.inlined("body_jaxpr", equation, [*of_body, *carry]))
        return list(lax.while_loop(going, step, tuple(carry)))


Rule = Callable[[_Evaluation, Equation, list[Any]], list[Any]]


def _inlined(parameter: str) -> Rule:
    return partial(_inline, parameter)


def _inline(parameter: str, evaluation: _Evaluation, equation: Equation, operands: list[Any]) -> list[Any]:
    return evaluation.inlined(parameter, equation, operands)


RULES: dict[str, Rule] = {
    "jit": _inlined("jaxpr"),
    "pjit": _inlined("jaxpr"),
    "closed_call": _inlined("call_jaxpr"),
    "custom_jvp_call": _inlined("call_jaxpr"),
    "custom_vjp_call": _inlined("call_jaxpr"),
    "checkpoint": _Evaluation.rematerialised,
    "remat2": _Evaluation.rematerialised,
    "cond": _Evaluation.branches,
    "scan": _Evaluation.scan,
    "while": _Evaluation.loop,
}
"""How an equation that holds others is evaluated anew, by its name."""

"""The equations of a traced function as a list that can be compared, its constants apart from it.

A constant is a literal of an equation or an array that the function has captured, in the jaxpr itself or in one that an
equation holds. They are numbered in the order in which `read` meets them.
"""

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from launch.together.meaning import contents, meaning

OF_DERIVATIVES = frozenset(
    {
        *("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees", "symbolic_zeros"),
        "debug_info",
    }
)
"""Parameters of equations that say how they are differentiated, which a training step is already."""


class Constant(NamedTuple):
    """A number or array of a program."""

    value: Any
    aval: Any
    within: tuple[str, ...]
    """Names of the equations that hold it, from the outermost."""

    def contents(self) -> tuple[Hashable, ...]:
        """What it equals another one by: its bits."""
        return contents(self.value)


class Equation(NamedTuple):
    """An equation of a jaxpr."""

    source: JaxprEqn
    operands: tuple[Var | int, ...]
    """Variables, and the numbers of constants."""
    bodies: dict[str, tuple["Body", ...]]
    """The jaxprs that it holds, by the parameter."""
    constants: range
    """Numbers of the constants of its bodies."""


class Body(NamedTuple):
    """A jaxpr whose constants have numbers."""

    jaxpr: Jaxpr
    captured: tuple[int, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Var | int, ...]


class Program(NamedTuple):
    """A traced function."""

    body: Body
    lines: tuple[Hashable, ...]
    """All of it but its constants: two programs with equal lines differ in nothing but constants."""
    constants: tuple[Constant, ...]


def read(traced: ClosedJaxpr) -> Program:
    """The program of a traced function."""
    reader = _Reader()
    body = reader.body(traced.jaxpr, traced.consts, ())
    return Program(body, tuple(reader.lines), tuple(reader.constants))


class _Reader:
    """Walks equations and writes down lines and constants."""

    def __init__(self) -> None:
        self.lines: list[Hashable] = []
        self.constants: list[Constant] = []

    def body(self, jaxpr: Jaxpr, captured: list[Any], within: tuple[str, ...]) -> Body:
        numbers: dict[Var, int] = {}
        first = len(self.constants)
        self.constants += [
            Constant(value, var.aval, within) for var, value in zip(jaxpr.constvars, captured, strict=True)
        ]
        for var in (*jaxpr.constvars, *jaxpr.invars):
            numbers[var] = len(numbers)
        self.lines.append(("inputs", len(jaxpr.constvars), *(_shape(v.aval) for v in numbers)))
        equations = tuple(self.equation(each, numbers, within) for each in jaxpr.eqns)
        outputs, shown = self.operands(jaxpr.outvars, numbers, within)
        self.lines.append(("outputs", *shown))
        return Body(jaxpr, tuple(range(first, first + len(captured))), equations, outputs)

    def operands(
        self, atoms: Any, numbers: dict[Var, int], within: tuple[str, ...]
    ) -> tuple[tuple[Var | int, ...], list[Hashable]]:
        found: list[Var | int] = []
        shown: list[Hashable] = []
        for atom in atoms:
            if isinstance(atom, Literal):
                shown.append(("constant", _shape(atom.aval)))
                found.append(len(self.constants))
                self.constants.append(Constant(atom.val, atom.aval, within))
            else:
                shown.append(numbers[atom])
                found.append(atom)
        return tuple(found), shown

    def equation(self, equation: JaxprEqn, numbers: dict[Var, int], within: tuple[str, ...]) -> Equation:
        name = equation.primitive.name
        operands, shown = self.operands(equation.invars, numbers, within)
        for var in equation.outvars:
            numbers[var] = len(numbers)
        results = tuple(_shape(var.aval) for var in equation.outvars)
        effects = frozenset(type(effect).__name__ for effect in equation.effects)
        self.lines.append((name, tuple(shown), results, effects, str(equation.ctx.compute_type)))
        first = len(self.constants)
        bodies = {}
        for key in sorted(equation.params):
            if key in OF_DERIVATIVES:
                continue
            value = equation.params[key]
            found = tuple(self.body(jaxpr, consts, (*within, name)) for jaxpr, consts in _jaxprs(value))
            if found:
                bodies[key] = found
            else:
                self.lines.append((f"{name}.{key}", meaning(value)))
        return Equation(equation, operands, bodies, range(first, len(self.constants)))


def _jaxprs(value: Any) -> Iterator[tuple[Jaxpr, list[Any]]]:
    """The jaxprs in the value of a parameter."""
    for each in value if isinstance(value, tuple | list) else (value,):
        if isinstance(each, ClosedJaxpr):
            yield each.jaxpr, each.consts
        elif isinstance(each, Jaxpr):
            if each.constvars:
                raise ValueError("a jaxpr in an equation lacks the values of what it captured")
            yield each, []


def _shape(aval: Any) -> Hashable:
    return (getattr(aval, "shape", None), str(getattr(aval, "dtype", aval)), getattr(aval, "weak_type", False))


def difference(first: Program, other: Program) -> str | None:
    """The first thing in which the programs differ but for constants; None where there is none."""
    for a, b in zip(first.lines, other.lines, strict=False):
        if a != b:
            return _compared(a, b)
    if len(first.lines) != len(other.lines):
        return f"{len(first.lines):,} equations and parameters there, {len(other.lines):,} here"
    return None


def _compared(line: Any, other: Any) -> str:
    """What differs between two lines, for a person."""
    if line[0] == other[0] and line[0] in ("inputs", "outputs") and len(line) != len(other):
        return f"{len(line) - 2} {line[0]} there, {len(other) - 2} here"
    if line[0] != other[0] or len(line) != len(other):
        return f"{_head(line)} there, {_head(other)} here"
    if line[0] in ("inputs", "outputs"):
        pairs = [(a, b) for a, b in zip(line[2:], other[2:], strict=True) if a != b]
        return f"an array {_array(pairs[0][0])} there, {_array(pairs[0][1])} here" if pairs else "what it captured"
    if len(line) == 2:
        return f"{line[0]} is {_plain(line[1])} there, {_plain(other[1])} here"
    what = "of other operands" if line[2] == other[2] else ""
    return " ".join(filter(None, [f"{_head(line)} there, {_head(other)} here", what]))


def _head(line: Any) -> str:
    """A line by what is computed, and the shapes of what that gives."""
    return f"{line[0]} {', '.join(_array(each) for each in line[2])}" if len(line) == 5 else str(line[0])


def _plain(meaning: Any) -> str:
    """The value that a meaning is of, as far as it can be read."""
    if isinstance(meaning, tuple) and meaning and isinstance(meaning[0], str):
        inner = [_plain(each) for each in meaning[1:]]
        return inner[0] if len(inner) == 1 else f"({', '.join(inner)})"[:100]
    return repr(meaning)[:100]


def _array(shape: Any) -> str:
    return f"{shape[1]}{list(shape[0] or ())}" if isinstance(shape, tuple) and len(shape) == 3 else str(shape)

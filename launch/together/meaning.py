"""What a parameter of an equation means, as a value that equals another one just where the two mean the same.

A NaN equals a NaN. Functions are compared by their code, by what they hold, and by the plain values that they name in
their module; what can't be looked into equals only itself.
"""

import dataclasses
import enum
import functools
import types
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import numpy as np

PLAIN = (type(None), bool, int, str, bytes, type, np.dtype, enum.Enum, type(Ellipsis))


def meaning(value: Any, within: tuple[int, ...] = ()) -> Hashable:
    """A hashable value that stands for what this one means.

    Args:
      value: anything that an equation may have.
      within: the ids of what it is part of, where the walk ends.
    """
    if id(value) in within:
        return ("again", within.index(id(value)))
    inner = (*within, id(value))
    if isinstance(value, PLAIN):
        return (type(value).__name__, value)
    if isinstance(value, float | complex):
        return (type(value).__name__, np.asarray(value).tobytes())
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return ("array", *contents(value))
    if isinstance(value, Mapping):
        return ("mapping", frozenset((meaning(key, inner), meaning(item, inner)) for key, item in value.items()))
    if isinstance(value, set | frozenset):
        return ("set", frozenset(meaning(item, inner) for item in value))
    if isinstance(value, tuple | list):
        return (type(value).__name__, *(meaning(item, inner) for item in value))
    if dataclasses.is_dataclass(value):
        fields = [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]
        return (type(value).__qualname__, *((name, meaning(item, inner)) for name, item in fields))
    return _of_function(value, inner) if callable(value) else _of_object(value)


def contents(array: Any) -> tuple[Hashable, ...]:
    """Type, shape and bytes of an array; keys of a random generator as the numbers that they are made of."""
    if isinstance(array, jax.Array) and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        return (str(array.dtype), *contents(jax.random.key_data(array)))
    host = np.asarray(array)
    return (str(host.dtype), host.shape, host.tobytes())


def _of_function(value: Any, inner: tuple[int, ...]) -> Hashable:
    if isinstance(value, functools.partial):
        return ("partial", *(meaning(each, inner) for each in (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return ("method", meaning(value.__func__, inner), meaning(value.__self__, inner))
    if isinstance(value, types.FunctionType):
        return ("function", value.__module__, value.__qualname__, _code(value.__code__), *_held(value, inner))
    if (wrapped := getattr(value, "__wrapped__", None)) is not None:
        return ("wrapped", type(value).__qualname__, meaning(wrapped, inner))
    return _of_object(value)


def _code(code: types.CodeType) -> Hashable:
    constants = (_code(each) if isinstance(each, types.CodeType) else meaning(each) for each in code.co_consts)
    return (code.co_code, code.co_names, code.co_freevars, *constants)


def _held(function: types.FunctionType, inner: tuple[int, ...]) -> list[Hashable]:
    """Defaults, what the function closes over, and the plain values of its module that it names."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _empty(cell)]
    named = [function.__globals__.get(name) for name in function.__code__.co_names]
    plain = [value for value in named if isinstance(value, (*PLAIN, float, tuple)) and not isinstance(value, type)]
    return [meaning(each, inner) for each in (function.__defaults__, function.__kwdefaults__, cells, plain)]


def _empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _of_object(value: Any) -> Hashable:
    """The value, where its type says what equals it; otherwise who it is."""
    if type(value).__eq__ is object.__eq__ or type(value).__hash__ is None:
        return ("object", type(value).__qualname__, id(value))
    return ("value", type(value).__qualname__, value)

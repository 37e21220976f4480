"""Names of parameters, and patterns of names.

A parameter's name is its path, joined by slashes: `backbone/conv1/kernel`. A pattern is a regular expression that must
match the whole name.
"""

import re
from collections.abc import Iterable, Sequence

import jax
from jaxtyping import PyTree

from jaxvision.errors import closest
from jaxvision.types import Params


def names(params: Params) -> PyTree:
    """The name of each parameter, in the structure of `params`."""
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params)


def assigned(params: Params, patterns: Sequence[str], who: str) -> PyTree:
    """The first pattern that matches each parameter's name, in the structure of `params`.

    Raises:
      ValueError: led by `who`, for a parameter that no pattern matches, and for a pattern that gets none.
    """
    named = names(params)
    every = jax.tree.leaves(named)
    first = first_match(every, patterns)
    uncovered = [name for name in every if name not in first]
    if uncovered:
        near = closest(uncovered[0], patterns, likeness=0)
        raise ValueError(
            f"{who}: no pattern matches {listed(uncovered)}; there are {quoted(patterns)}"
            + (f", the nearest is {quoted(near)}" if len(patterns) > 1 else "")
        )
    for pattern in patterns:
        check_matches(pattern, every, who)
        if pattern not in first.values():
            raise ValueError(
                f"{who}: {pattern!r} gets no parameter: earlier patterns take {listed(matches(pattern, every))}"
            )
    return jax.tree.map(first.__getitem__, named)


def first_match(every: Iterable[str], patterns: Sequence[str]) -> dict[str, str]:
    """Name to the first pattern that matches it, for the names that one does."""
    found: dict[str, str] = {}
    for pattern in patterns:
        for name in matches(pattern, every):
            found.setdefault(name, pattern)
    return found


def check_matches(pattern: str, every: Iterable[str], who: str) -> None:
    """Raises ValueError, led by `who` and with the nearest names, for a pattern that matches none of these."""
    if not matches(pattern, every):
        near = closest(pattern, every, 3, likeness=0)
        raise ValueError(f"{who}: {pattern!r} matches no parameter; the nearest names are {', '.join(near)}")


def matches(pattern: str, every: Iterable[str]) -> list[str]:
    """The names that the pattern matches. Raises ValueError for one that is no regular expression."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return [name for name in every if compiled.fullmatch(name)]


def listed(every: Sequence[str], shown: int = 3) -> str:
    """The first names as text, and how many more there are."""
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def quoted(patterns: Iterable[str]) -> str:
    """The patterns as a person reads them."""
    return ", ".join(map(repr, patterns))

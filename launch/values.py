"""Values of a sweep: lists, grids, random draws and paired values over the fields of a config, and how they are written."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvision.errors import ConfigError

Change = Mapping[str, Any]
"""Dotted field names to values, or to texts as on the command line."""
OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""
DISTRIBUTION = re.compile(r"(uniform|log_uniform)\((.+)\)")


class Uniform(NamedTuple):
    """Numbers between two bounds, of equal density; whole ones if both bounds are."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float:
        """One number."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(generator.integers(self.low, self.high, endpoint=True))
        return float(generator.uniform(self.low, self.high))


class LogUniform(NamedTuple):
    """Numbers between two positive bounds, whose logarithms are of equal density."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float:
        """One number, to six digits, so that its text is short."""
        value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return min(max(float(f"{value:.6g}"), self.low), self.high)


def grid(values: Mapping[str, Sequence[Any]]) -> list[Change]:
    """Every combination of the values of each field, the last field changing fastest.

    Raises:
      ConfigError: a field without values.
    """
    for field, choices in values.items():
        if not len(choices):
            raise ConfigError(f"the sweep of {field} has no values")
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def paired(values: Mapping[str, Sequence[Any]]) -> list[Change]:
    """The first values of all fields, then the second ones, and so on.

    Raises:
      ConfigError: fields with different numbers of values.
    """
    counts = {field: len(choices) for field, choices in values.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise ConfigError(f"paired fields need the same number of values, at least one: {counts}")
    return [dict(zip(values, chosen, strict=True)) for chosen in zip(*values.values(), strict=True)]


def random(values: Mapping[str, Uniform | LogUniform | Sequence[Any]], count: int, seed: int = 0) -> list[Change]:
    """`count` random draws; number k depends on the seed and k alone, so that more of them keep those before.

    Args:
      values: a distribution, or choices of equal weight, for each field.
      count: how many.
      seed: of the draws.

    Raises:
      ConfigError: `count` below 1, bounds in the wrong order, or not positive for logarithms.
    """
    if count < 1:
        raise ConfigError(f"random draws: {count} of them; it must be 1 or more")
    for field, of in values.items():
        check_bounds(field, of)
    draws = []
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        draws.append({field: _drawn(of, generator) for field, of in values.items()})
    return draws


def check_bounds(field: str, of: Uniform | LogUniform | Sequence[Any]) -> None:
    """Raises ConfigError for bounds that are in the wrong order, not finite, or not positive for logarithms."""
    if isinstance(of, Uniform | LogUniform):
        least = 0 if isinstance(of, LogUniform) else -math.inf
        if not least < of.low < of.high < math.inf:
            raise ConfigError(
                f"the sweep of {field} is from {of.low} to {of.high}; the bounds must ascend, and be above {least}"
            )
    elif not len(of):
        raise ConfigError(f"the sweep of {field} has no values")


def _drawn(of: Uniform | LogUniform | Sequence[Any], generator: np.random.Generator) -> Any:
    return of.draw(generator) if isinstance(of, Uniform | LogUniform) else of[int(generator.integers(len(of)))]


def product(*changes: Iterable[Change]) -> list[Change]:
    """Every combination of one change of each list."""
    return [
        {field: value for change in chosen for field, value in change.items()} for chosen in itertools.product(*changes)
    ]


def parse(field: str, text: str) -> Uniform | LogUniform | list[str]:
    """The values given for a field on the command line: texts between commas, or `uniform(0, 1)`, `log_uniform(1e-4, 1e-1)`.

    Commas inside brackets and quotes divide nothing: `(16, 32), (32, 64)` are two values.

    Raises:
      ConfigError: no values, an empty one, brackets that don't close, or bounds that are no numbers.
    """
    if match := DISTRIBUTION.fullmatch(text.strip()):
        of = (Uniform if match[1] == "uniform" else LogUniform)(*_bounds(field, match[2]))
        check_bounds(field, of)
        return of
    values = [value.strip() for value in _split(field, text)]
    if not any(values):
        raise ConfigError(f"the sweep of {field} has no values")
    if not all(values):
        raise ConfigError(f"the sweep of {field} has an empty value: {text!r}")
    return values


def _bounds(field: str, text: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        low, high = (int(part) if re.fullmatch(r"\s*-?\d+\s*", part) else float(part) for part in parts)
    except ValueError:
        raise ConfigError(f"the sweep of {field} needs two numbers as bounds, not {text!r}") from None
    return low, high


def _split(field: str, text: str) -> Iterator[str]:
    """The parts between commas that stand in no bracket or quote."""
    part, open_brackets, quote = "", [], None
    for letter in text:
        if quote is None and letter == "," and not open_brackets:
            yield part
            part = ""
            continue
        if quote is not None:
            quote = None if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        elif letter in OPENING:
            open_brackets.append(CLOSING[OPENING.index(letter)])
        elif letter in CLOSING and (not open_brackets or open_brackets.pop() != letter):
            raise ConfigError(f"the sweep of {field} has brackets that don't match: {text!r}")
        part += letter
    if open_brackets or quote:
        raise ConfigError(f"the sweep of {field} has a bracket or quote that isn't closed: {text!r}")
    yield part

"""What numbers an option may have, declared at the function: `@allowed(probability=FRACTION)`.

They are checked where the function is called, once for each trace, so that a compiled program knows nothing of it. Arrays of
JAX are data, not options, and are not looked at. A message names the function, the option, its value and what is allowed.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np

from jaxvision.errors import cut

F = TypeVar("F", bound=Callable[..., Any])


class Bound(NamedTuple):
    """Numbers from `low` to `high`; of a sequence, each."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """Whether `low` itself is left out."""
    below: bool = False
    """Whether `high` itself is left out."""
    whole: bool = False
    """Whole numbers alone."""
    pair: bool = False
    """Two numbers, the second no less than the first."""
    infinite: bool = False
    """Whether infinity is one."""
    none: bool = False
    """Whether None is allowed, too."""
    length: int | None = None
    """How many numbers there must be; None: any, or one."""

    def holds(self, value: Any) -> bool:
        """Whether the value is allowed."""
        if value is None or isinstance(value, jax.Array):
            return value is not None or self.none
        if isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim):
            fits = len(value) == (self.length or (2 if self.pair else max(len(value), 1)))
            each = fits and all(map(self._replace(pair=False, length=None).holds, value))
            return each and (not self.pair or value[0] <= value[1])
        return _is_number(value) and not self.pair and self.length is None and self._contains(_as_float(value))

    def _contains(self, value: float) -> bool:
        if not (math.isfinite(value) or (self.infinite and value == math.inf)) or (self.whole and value % 1):
            return False
        return (self.low < value or (value == self.low and not self.above)) and (
            value < self.high or (value == self.high and not self.below)
        )

    def __str__(self) -> str:
        """The numbers, in words."""
        low = f"{'above ' if self.above else ''}{self.low:g}"
        high = f"{'below ' if self.below else ''}{self.high:g}"
        words = "finite" if math.isinf(self.low) else low + (" or more" if not self.above else "")
        if not math.isinf(self.high):
            words = f"{low} to {high}"
        words = f"a range within {words}, low <= high" if self.pair else words
        words = f"{self.length} numbers, each {words}" if self.length else words
        return words + (", whole" if self.whole else "") + (", or None" if self.none else "")


FINITE = Bound()
FRACTION = Bound(0, 1)
NOT_NEGATIVE = Bound(0)
POSITIVE = Bound(0, above=True)
COUNT = Bound(1, whole=True)
WHOLE = Bound(0, whole=True)
LEVEL = Bound(0, 255)


def allowed(**bounds: Bound) -> Callable[[F], F]:
    """Decorator that raises ValueError for an option that is out of its bound."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:  # Python says what is missing better
                return function(*args, **kwargs)
            for name, bound in bounds.items():
                if name in given and not bound.holds(given[name]):
                    who = given.get("who", function.__name__)
                    raise ValueError(f"{who}({name}={cut(repr(given[name]), 120)}): allowed is {bound}")
            return function(*args, **kwargs)

        checked.bounds = bounds  # type: ignore[attr-defined]
        return cast(F, checked)

    return decorate


def _as_float(value: Any) -> float:
    """The number; not a number for one that is too large for a float, which no bound holds."""
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _is_number(value: Any) -> bool:
    scalar = isinstance(value, numbers.Real) or (
        isinstance(value, np.generic) and np.issubdtype(value.dtype, np.number)
    )
    return scalar and not isinstance(value, bool | np.complexfloating)

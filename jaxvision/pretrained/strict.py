"""Filling variables from named arrays, so that nothing is left over on either side."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxvision.types import Variables

Path = tuple[str, ...]
"""Where an array is in our variables: ("params", "head", "kernel")."""


class Source(NamedTuple):
    """Where one of our arrays comes from."""

    name: str
    convert: Callable[[np.ndarray], np.ndarray]
    """From the other library's axes to ours."""


def fill(sources: Mapping[Path, Source], arrays: Mapping[str, np.ndarray], variables: Variables) -> dict[str, Any]:
    """`variables` with every array of `sources` replaced by its source, in the type that it had.

    Every array must be used exactly once. What `sources` does not name stays as it is. `variables` may hold
    `jax.ShapeDtypeStruct` where it is replaced.

    Raises:
        ValueError: if names are missing, left over or used twice, or shapes differ; it lists them all.
    """
    like: dict[Path, Any] = {**traverse_util.flatten_dict(variables)}
    given = {path: np.asarray(arrays[source.name]) for path, source in sources.items() if source.name in arrays}
    converted = {path: _converted(sources[path], array, like[path].shape) for path, array in given.items()}
    uses = Counter(source.name for source in sources.values())
    _complain(
        {
            "missing": [f"{sources[path].name} (for {_text(path)})" for path in sources if path not in given],
            "unexpected": sorted(set(arrays) - set(uses)),
            "used twice": sorted(name for name, count in uses.items() if count > 1),
            "of another shape": [
                f"{sources[path].name} {given[path].shape} (for {_text(path)} {like[path].shape})"
                for path, array in converted.items()
                if array is None
            ],
        }
    )
    filled = {path: jnp.asarray(array, like[path].dtype) for path, array in converted.items()}
    return traverse_util.unflatten_dict({**like, **filled})


def _converted(source: Source, given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array with our axes; None if it can't have `shape` then."""
    try:
        converted = source.convert(given)
    except ValueError:
        return None
    return converted if converted.shape == shape else None


def _text(path: Path) -> str:
    return "/".join(path)


def _complain(faults: Mapping[str, list[str]]) -> None:
    """Raise if there is any fault."""
    lines = [f"{len(names)} {fault}: {', '.join(names)}" for fault, names in faults.items() if names]
    if lines:
        raise ValueError("the given arrays do not fit the network\n" + "\n".join(lines))

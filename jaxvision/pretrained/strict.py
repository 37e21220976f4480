"""Filling variables from named arrays, so that nothing is left over on either side unless it was named."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxvision.errors import WeightsError, closest
from jaxvision.pretrained.known_networks import known
from jaxvision.types import Variables

Path = tuple[str, ...]
"""Where an array is in our variables: ("params", "head", "kernel")."""
COUNTERS = re.compile(r"(.*\.)?(num_batches_tracked|n_averaged)")
"""PyTorch's counters of batches and of averages, which nothing here needs: always unused, never reported."""
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that `torch.compile` and PyTorch's other wrappers put in anywhere."""
SHOWN = 5
"""How many names of a fault a message has at most."""


class Turn(NamedTuple):
    """A way to turn another library's axes into ours, which is called as a function, and the way back."""

    forth: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The other library's array with our axes."""
        return self.forth(array)


class Source(NamedTuple):
    """Where one of our arrays comes from."""

    name: str
    convert: Callable[[np.ndarray], np.ndarray]
    """Conversion from the other library's axes to ours; a `Turn` for what can be exported."""


Sources = Callable[[Variables], Mapping[Path, Source]]
"""A name map: for every array of a network, whose variables (or shapes) are given, where another library has it."""


class Report(NamedTuple):
    """What became of every array: ours as "params/head/kernel", theirs as they are named. `str` is for people."""

    loaded: tuple[str, ...]
    numbers: int
    """Count of numbers in all arrays that were loaded."""
    new: tuple[str, ...]
    """Names of ours, left as they were because a pattern says so; the given counterpart, if any, is not used."""
    unused: tuple[str, ...]
    """Names of theirs, not used because a pattern says so."""
    faults: Mapping[str, tuple[str, ...]]
    """What no pattern allows, by its kind: missing from the file, unexpected, of another shape, not finite and so on."""
    prefix: str = ""
    """What their names were found to begin with, and are given without: "module."."""
    networks: tuple[str | None, str | None] = (None, None)
    """Known networks that the given arrays, and ours, look like."""

    def __str__(self) -> str:
        loaded = f"{len(self.loaded)} loaded, {self.numbers:,} numbers"
        led = f"their names begin with {self.prefix!r}, which is left out" if self.prefix else ""
        if self.faults:
            return f"the given arrays do not fit the network: {'; '.join(filter(None, [*self._misfit(), led]))}"
        fine = [_line(what, names) for what, names in (("new", self.new), ("unused", self.unused)) if names]
        return "\n".join(filter(None, [loaded, led, *fine]))

    def _misfit(self) -> list[str]:
        """The faults; their counts alone where the arrays are another known network's."""
        theirs, ours = self.networks
        if theirs and ours and theirs != ours:
            counts = (f"{len(names)} {what}" for what, names in self.faults.items())
            return [f"they look like {theirs}'s, it looks like {ours}", *counts]
        faults = [_line(what, names) for what, names in self.faults.items()]
        return [f"they look like {theirs}'s", *faults] if theirs and not ours else faults


class Loaded(NamedTuple):
    """Variables filled from named arrays, and how."""

    variables: dict[str, Any]
    report: Report


def load(
    sources: Mapping[Path, Source],
    arrays: Mapping[str, np.ndarray],
    variables: Variables,
    *,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> Loaded:
    """`variables` with every array of `sources` replaced by its source, in the type that it had.

    Every array of both must be used exactly once, but for those that are named. Names may have a prefix (`unprefixed`).
    `variables` may hold `jax.ShapeDtypeStruct` where it is replaced.

    Args:
        sources: source of every array of the network but the new ones.
        arrays: those of the file, by the other library's names.
        variables: the network's own.
        new: patterns of our names (without the collection: "head/.*") that keep their values; each must match one at
            least, wholly. Their counterparts among `arrays` need neither exist nor fit.
        unused: patterns of names of `arrays` (without the prefix) that are left aside; each must match one at least that is
            not used.

    Raises:
        WeightsError: if names are missing, left over or used twice, shapes differ, a number that is used is not finite, or
            a pattern matches nothing; its text is the report.
    """
    arrays, prefix = unprefixed(arrays, {source.name for source in sources.values()}, unused)
    like: dict[Path, Any] = {**traverse_util.flatten_dict(variables)}
    kept = [path for path in like if _matches(new, _name(path))]
    wanted = {path: sources[path] for path in sorted(sources, key=_params_first) if path not in kept}
    replaced = {source.name for path, source in sources.items() if path in kept}
    spare = _spare(arrays, {source.name for source in wanted.values()} | replaced)
    aside = [name for name in spare if _matches(unused, name)]
    converted = {
        path: _converted(source, arrays[source.name], like[path].shape)
        for path, source in wanted.items()
        if source.name in arrays
    }
    fine = {path: array for path, array in converted.items() if array is not None}
    faults = {
        "without a counterpart": [_text(path) for path in like if path not in wanted and path not in kept],
        **_misfits(wanted, arrays, like, fine, [name for name in spare if name not in aside]),
        "patterns that match nothing": [
            *(f"new='{pattern}'" for pattern in _idle(new, [_name(path) for path in kept])),
            *(f"unused='{pattern}'" for pattern in _idle(unused, aside)),
        ],
    }
    report = Report(
        tuple(_text(path) for path in fine),
        sum(math.prod(array.shape) for array in fine.values()),
        tuple(_text(path) for path in kept),
        tuple(aside),
        {kind: tuple(names) for kind, names in faults.items() if names},
        prefix,
        (known(arrays.values()), known(like.values())),
    )
    if report.faults:
        raise WeightsError(str(report))
    filled = {path: jnp.asarray(array, like[path].dtype) for path, array in fine.items()}
    return Loaded(traverse_util.unflatten_dict({**like, **filled}), report)


def fill(sources: Mapping[Path, Source], arrays: Mapping[str, np.ndarray], variables: Variables) -> dict[str, Any]:
    """The variables of `load`; what `sources` does not name stays as it is."""
    others = [_name(path) for path in traverse_util.flatten_dict(variables) if path not in sources]
    return load(sources, arrays, variables, new=[re.escape(name) for name in others]).variables


def unprefixed(
    arrays: Mapping[str, np.ndarray], names: Collection[str], unused: Sequence[str] = ()
) -> tuple[Mapping[str, np.ndarray], str]:
    """The arrays by their names without what wrappers put before them ("module.", "model."), and the prefix left out.

    It is that behind which most of `names` are found, more than without one, or behind another. Arrays whose names begin
    otherwise keep theirs; those whose names match a pattern of `unused` do not count.
    """
    plain = _renamed(arrays, lambda name: WRAPPERS.sub("", name))
    counted = [name for name in plain if not _matches(unused, name)]
    found = Counter(prefix for name in counted for prefix, rest in _splits(name) if rest in names)
    (first, count), (_, other) = [*found.most_common(2), ("", 0), ("", 0)][:2]
    if not first or count in (found[""], other):
        return plain, ""
    stripped = _renamed(plain, lambda name: name.removeprefix(first))
    return stripped, "" if stripped is plain else first


def inside(module: str, sources: Sources) -> Sources:
    """The name map of a network that is the part `module` of another: its backbone, say."""

    def found(variables: Variables) -> dict[Path, Source]:
        part = {collection: tree[module] for collection, tree in variables.items() if module in tree}
        return {(path[0], module, *path[1:]): source for path, source in sources(part).items()}

    return found


def without(variables: Variables, new: Sequence[str]) -> dict[str, Any]:
    """The variables less those whose names match one of the patterns."""
    flat: dict[Path, Any] = {**traverse_util.flatten_dict(variables)}
    return traverse_util.unflatten_dict({path: x for path, x in flat.items() if not _matches(new, _name(path))})


def _renamed(arrays: Mapping[str, np.ndarray], rename: Callable[[str], str]) -> Mapping[str, np.ndarray]:
    """The arrays by other names; as they are where two would have one."""
    renamed = {rename(name): array for name, array in arrays.items()}
    return renamed if len(renamed) == len(arrays) else arrays


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A name cut in two behind each of its dots, and whole: `("", "a.b")`, `("a.", "b")`."""
    yield "", name
    yield from ((name[: dot.end()], name[dot.end() :]) for dot in re.finditer(r"\.", name))


def _misfits(
    wanted: Mapping[Path, Source],
    arrays: Mapping[str, np.ndarray],
    like: Mapping[Path, Any],
    fine: Mapping[Path, np.ndarray],
    unexpected: Sequence[str],
) -> dict[str, list[str]]:
    """What keeps `wanted` from being filled by exactly these arrays, in words."""
    uses = Counter(source.name for source in wanted.values())
    missing = {path: source.name for path, source in wanted.items() if source.name not in arrays}
    near = unexpected if len(missing) <= SHOWN else ()  # to look for many takes long, and they are not shown
    return {
        "missing": [_missing(name, path, near) for path, name in missing.items()],
        "unexpected": list(unexpected),
        "used twice": sorted(name for name, count in uses.items() if count > 1),
        "of another shape": [
            f"{source.name} {np.shape(arrays[source.name])} (for {_text(path)} {like[path].shape})"
            for path, source in wanted.items()
            if source.name in arrays and path not in fine
        ],
        "not finite": sorted({wanted[path].name for path, array in fine.items() if not np.isfinite(array).all()}),
    }


def _converted(source: Source, given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array with our axes; None if it can't have `shape` then."""
    try:
        converted = source.convert(np.asarray(given))
    except ValueError:
        return None
    return converted if converted.shape == shape else None


def _spare(arrays: Mapping[str, np.ndarray], used: set[str]) -> list[str]:
    return sorted(name for name in arrays if name not in used and not COUNTERS.fullmatch(name))


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _idle(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Patterns that match none of the names."""
    return [pattern for pattern in patterns if not any(_matches([pattern], name) for name in names)]


def _params_first(path: Path) -> bool:
    return path[0] != "params"


def _missing(name: str, path: Path, unexpected: Sequence[str]) -> str:
    close = closest(name, unexpected, likeness=0.8)
    return f"{name} (for {_text(path)}){f', nearest is {close[0]}' if close else ''}"


def _line(what: str, names: Sequence[str]) -> str:
    """Count and names of a kind; of many names some, without what they are for."""
    if len(names) <= SHOWN:
        return f"{len(names)} {what}: {', '.join(names)}"
    shown = ", ".join(name.partition(" (for ")[0] for name in names[:SHOWN])
    return f"{len(names)} {what}: {shown}, and {len(names) - SHOWN} more"


def _text(path: Path) -> str:
    return "/".join(path)


def _name(path: Path) -> str:
    """Name of an array without its collection."""
    return "/".join(path[1:])

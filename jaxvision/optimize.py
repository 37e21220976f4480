"""Which parameters an optimizer trains, and how: small compositions of optax.

A parameter's name is its path, joined by slashes: `backbone/conv1/kernel`. A pattern is a regular expression that must
match the whole name.
"""

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import PyTree

from jaxvision.types import Batch, Key, LossOutput, Params, Prediction, Scalar, Task, Variables


def kernels(params: Params):
    """A mask for weight decay: True for kernels, False for biases and for the scales of norms (anything below rank 2)."""
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, params)


def names(params: Params) -> PyTree:
    """The name of each parameter, in the structure of `params`."""
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params)


def freeze(task: Task, patterns: Sequence[str]) -> Task:
    """The task with the parameters that match one of the patterns moved from `params` into a collection `frozen`.

    What is in `params` has gradients and optimizer state, what is in `frozen` has none. Statistics of BatchNorm are no
    parameters: they go on as the network has it. Without patterns, the task as it was.

    Raises:
      ValueError: in `init`, for a pattern that matches no parameter or is no regular expression, and if nothing is left
        to train.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return split(task.init(key, batch), patterns)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        return task.loss(whole(variables), batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        return task.predict(whole(variables), batch)

    return Task(init, loss, predict)


def split(variables: Variables, patterns: Sequence[str]) -> Variables:
    """The variables with the parameters that match one of the patterns in a collection `frozen`; `whole` undoes it.

    Raises ValueError as `freeze` does.
    """
    if not patterns:
        return variables
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    for pattern in patterns:
        if not _matches(pattern, flat):
            raise ValueError(f"frozen: {_no_match(pattern, flat)}")
    first = _first_match(flat, patterns)
    if len(first) == len(flat):
        raise ValueError(f"frozen: nothing is left to train, {_quoted(patterns)} match all {len(flat)} parameters")
    frozen = {name: flat[name] for name in first}
    before = traverse_util.flatten_dict(variables.get("frozen", {}), sep="/")
    return {
        **variables,
        "params": _nested({name: x for name, x in flat.items() if name not in first}),
        "frozen": _nested({**before, **frozen}),
    }


def whole(variables: Variables) -> Variables:
    """The variables with the frozen parameters back in `params`, and in those of `ema` where there is one."""
    if "frozen" not in variables:
        return variables
    frozen = variables["frozen"]
    rest = {name: value for name, value in variables.items() if name != "frozen"}
    if variables.get("ema"):
        rest["ema"] = whole({"frozen": frozen, **variables["ema"]})
    flat = [traverse_util.flatten_dict(part, sep="/") for part in (variables["params"], frozen)]
    return {**rest, "params": _nested({**flat[0], **flat[1]})}


class ByGroup(optax.GradientTransformationExtraArgs):
    """What `by_group` returns: an optax transformation that can tell its groups."""

    patterns: tuple[str, ...]

    def group_of(self, params: Params) -> PyTree:
        """The pattern that each parameter goes by, in the structure of `params`. Raises ValueError as `by_group` does."""
        named = names(params)
        every = jax.tree.leaves(named)
        first = _first_match(every, self.patterns)
        uncovered = [name for name in every if name not in first]
        if uncovered:
            raise ValueError(f"by_group: no pattern matches {_some(uncovered)}; there are {_quoted(self.patterns)}")
        for pattern in self.patterns:
            taken = _matches(pattern, every)
            if not taken:
                raise ValueError(f"by_group: {_no_match(pattern, every)}")
            if pattern not in first.values():
                raise ValueError(f"by_group: {pattern!r} gets no parameter: earlier patterns take {_some(taken)}")
        return jax.tree.map(first.__getitem__, named)


def by_group(groups: Mapping[str, optax.GradientTransformation]) -> ByGroup:
    """Another transformation for each group of parameters, `{pattern: transformation}`.

    Every parameter goes to the first pattern that matches its name; `".*"`, last, takes the rest. Each transformation sees
    its own parameters alone: `clip_by_global_norm` inside a group clips by the norm of that group.

    Raises:
      ValueError: in its `init`, for parameters that no pattern matches, and for a pattern that gets none.
    """

    def labels(params: Params) -> PyTree:
        return transformation.group_of(params)

    transformations: dict[Hashable, optax.GradientTransformation] = {**groups}
    inner = optax.partition(transformations, labels)
    transformation = ByGroup(inner.init, inner.update)
    transformation.patterns = tuple(groups)
    return transformation


def _first_match(every: Iterable[str], patterns: Sequence[str]) -> dict[str, str]:
    """Name to the first pattern that matches it, for the names that one does."""
    found: dict[str, str] = {}
    for pattern in patterns:
        for name in _matches(pattern, every):
            found.setdefault(name, pattern)
    return found


def _matches(pattern: str, every: Iterable[str]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return [name for name in every if compiled.fullmatch(name)]


def _no_match(pattern: str, every: Iterable[str]) -> str:
    near = difflib.get_close_matches(pattern, list(every), n=3, cutoff=0.0)
    return f"{pattern!r} matches no parameter; the nearest names are {', '.join(near)}"


def _some(every: Sequence[str], shown: int = 3) -> str:
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def _quoted(patterns: Iterable[str]) -> str:
    return ", ".join(map(repr, patterns))


def _nested(flat: Mapping) -> dict:
    return traverse_util.unflatten_dict(flat, sep="/")

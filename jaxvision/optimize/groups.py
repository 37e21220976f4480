"""Which parameters an optimizer trains, and how: small compositions of optax.

Parameters are chosen by patterns of their names (`optimize.patterns`). A preflight prints, and can check, all that is
decided here by name.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import optax
from flax import struct, traverse_util
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers

from jaxvision.errors import amount
from jaxvision.optimize.patterns import assigned, check_matches, first_match, names, quoted
from jaxvision.types import Batch, Key, LossOutput, Params, Prediction, Scalar, Task, Variables


def kernels(params: Params) -> PyTree:
    """A mask for weight decay: True for the parameters called `kernel`, False for all others.

    Thus biases, scales of norms and of layers, class tokens and positions don't decay, as in the recipes of DeiT
    (arXiv:2012.12877), MAE (arXiv:2111.06377) and big_vision.
    """
    return jax.tree.map(lambda name: name.rpartition("/")[2] == "kernel", names(params))


def matching(*chosen: str) -> Callable[[Params], PyTree]:
    """A mask by patterns: True for the parameters that one of them matches.

    `optax.adamw(rate, mask=matching(".*/kernel", "positions"))`; inside `by_group` it sees the group's parameters alone.

    Raises:
      ValueError: in use, for a pattern that matches no parameter.
    """

    def mask(params: Params) -> PyTree:
        named = names(params)
        every = jax.tree.leaves(named)
        for pattern in chosen:
            check_matches(pattern, every, "matching")
        found = first_match(every, chosen)
        return jax.tree.map(found.__contains__, named)

    return mask


def kernel_matrices(params: Params) -> PyTree:
    """Axes of each kernel that are inputs, for `optax.contrib.muon`: all but the last; None for what is no kernel.

    Thus the kernel of a convolution is one matrix from `height * width * channels` inputs to the outputs, as Muon's author
    has it (https://kellerjordan.github.io/posts/muon). The kernel of a head is among them: give it a separate group
    (`by_group`) to train it otherwise.
    """

    def axes(x: Any, is_kernel: bool) -> MuonDimensionNumbers | None:
        return MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1) if is_kernel and x.ndim > 1 else None

    return jax.tree.map(axes, params, kernels(params))


def rates(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Another learning rate for each group of parameters: multiplies their updates, `{pattern: factor}`.

    Comes after the optimizer, `optax.chain(optax.adamw(1e-3), rates({"head/.*": 10.0, ".*": 1.0}))`, and so scales its weight
    decay too, as the rate of a group does in PyTorch. Every parameter goes by the first pattern that matches its name.

    Raises:
      ValueError: for a factor that is not positive; in its `init`, for parameters that no pattern matches, and for a
        pattern that gets none.
    """
    for pattern, factor in factors.items():
        if not factor > 0:
            raise ValueError(f"rates: the factor of {pattern!r} is {factor}; it must be positive (0 is `frozen`)")

    def init(params: Params) -> Any:
        assigned(params, tuple(factors), "rates")
        return optax.EmptyState()

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        which = assigned(updates, tuple(factors), "rates")
        return jax.tree.map(lambda x, pattern: factors[pattern] * x, updates, which), state

    return optax.GradientTransformation(init, update)


def layerwise(decay: float, layers: Sequence[str]) -> dict[str, float]:
    """Factors for `rates` that fall from the head to the input: 1 for the last layer, `decay` times as much for each before.

    Discriminative fine-tuning (ULMFiT, arXiv:1801.06146), as BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377) have it:
    `layerwise(0.75, ["patches/.*|class_token|positions", "block1/.*", ..., "block12/.*", "norm/.*|head/.*"])`.

    Args:
      decay: in (0, 1].
      layers: a pattern for each layer, from the input to the head.

    Raises:
      ValueError: for a decay that is not allowed, and a pattern given twice.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layerwise: decay is {decay}; it must be more than 0 and at most 1")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layerwise: a pattern is given twice in {quoted(layers)}")
    return {pattern: decay**above for above, pattern in zip(range(len(layers) - 1, -1, -1), layers, strict=True)}


def freeze(task: Task, frozen: Sequence[str]) -> Task:
    """The task with the parameters that match one of the patterns moved from `params` into a collection `frozen`.

    What is in `params` has gradients and optimizer state, what is in `frozen` has none. Statistics of BatchNorm are no
    parameters: they go on as the network has it. Without patterns, the task as it was.

    Raises:
      ValueError: in `init`, for a pattern that matches no parameter or is no regular expression, and if nothing is left
        to train.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return split(task.init(key, batch), frozen)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        return task.loss(whole(variables), batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        return task.predict(whole(variables), batch)

    return Task(init, loss, predict)


def split(variables: Variables, frozen: Sequence[str]) -> Variables:
    """The variables with the parameters that match one of the patterns in a collection `frozen`; `whole` undoes it.

    Raises ValueError as `freeze` does.
    """
    if not frozen:
        return variables
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    for pattern in frozen:
        check_matches(pattern, flat, "frozen")
    first = first_match(flat, frozen)
    if len(first) == len(flat):
        raise ValueError(
            f"frozen: nothing is left to train, {quoted(frozen)} match all of {amount(len(flat), 'parameter')}"
        )
    before = traverse_util.flatten_dict(variables.get("frozen", {}), sep="/")
    return {
        **variables,
        "params": _nested({name: x for name, x in flat.items() if name not in first}),
        "frozen": _nested({**before, **{name: flat[name] for name in first}}),
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


class Grouped(struct.PyTreeNode):
    """The state of `by_group`, which knows its groups wherever it stands in a chain."""

    inner: PyTree
    patterns: tuple[str, ...] = struct.field(pytree_node=False)

    def group_of(self, params: Params) -> PyTree:
        """The pattern that each parameter goes by, in the structure of `params`. Raises ValueError as `by_group` does."""
        return assigned(params, self.patterns, "by_group")


def by_group(groups: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """Another transformation for each group of parameters, `{pattern: transformation}`.

    Every parameter goes to the first pattern that matches its name; `".*"`, last, takes the rest. Each transformation sees
    its own parameters alone: `clip_by_global_norm` inside a group clips by the norm of that group.

    Raises:
      ValueError: in its `init`, for parameters that no pattern matches, and for a pattern that gets none.
    """
    transformations: dict[Hashable, optax.GradientTransformation] = {**groups}
    inner = optax.partition(transformations, lambda params: assigned(params, tuple(groups), "by_group"))

    def init(params: Params) -> Any:
        return Grouped(inner.init(params), tuple(groups))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        updates, new = inner.update(updates, state.inner, params, **extra)
        return updates, state.replace(inner=new)

    return optax.GradientTransformationExtraArgs(init, update)


def _nested(flat: Mapping) -> dict:
    return traverse_util.unflatten_dict(flat, sep="/")

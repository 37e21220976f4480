"""Folded tasks: BatchNorm becomes a part of the linear layer before it, so that the same predictions cost less.

`scale * (W x + b - mean) / sqrt(var + epsilon) + bias` is linear in `x`: the kernel takes the factor, and of BatchNorm
its `bias` alone is left, which `folded` adds where that was. So a folded network needs no other code, and is
trained on as one without BatchNorm.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from flax.linen.module import InterceptorContext
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array

from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm
from jaxvision.types import Batch, Key, LossOutput, Prediction, Scalar, Task, Variables

LINEAR = (Conv, nn.Conv, nn.Dense)
"""Layers whose result is linear in `kernel`, the axis of its channels the last, and `bias`."""
NORMS = (BatchNorm, FrozenBatchNorm, nn.BatchNorm)
STATISTICS = "batch_stats"

Path = tuple[str, ...]


class Pair(NamedTuple):
    """A linear layer, and the normalisation that alone reads its result and reads nothing else."""

    linear: Path
    norm: Path
    epsilon: float


class Found(NamedTuple):
    """What can be folded."""

    pairs: tuple[Pair, ...]
    rest: tuple[str, ...]
    """Paths of the normalisations that stay."""


def folded(task: Task) -> Task:
    """The task with every BatchNorm that directly follows a convolution or a dense layer folded into it.

    Fresh variables are those of the task, folded. A BatchNorm without statistics adds its bias; one that has some is left as
    it was. Predictions are the same but for rounding.
    """

    def init(key: Key, batch: Batch) -> Variables:
        variables = task.init(key, batch)
        return fold(variables, foldable(task, variables, batch))

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        with nn.intercept_methods(_add_bias):
            return task.loss(variables, batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        with nn.intercept_methods(_add_bias):
            return task.predict(variables, batch)

    return Task(init, loss, predict)


def _add_bias(call: Callable[..., Any], args: tuple, kwargs: dict, context: InterceptorContext) -> Any:
    """The call; of a BatchNorm that was folded, what it is given plus its bias."""
    module = context.module
    if not isinstance(module, NORMS) or context.method_name != "__call__" or module.has_variable(STATISTICS, "mean"):
        return call(*args, **kwargs)
    held = next((name for name in ("params", STATISTICS) if module.has_variable(name, "bias")), None)
    if held is None:
        return call(*args, **kwargs)
    x, bias = args[0], module.get_variable(held, "bias")
    return (x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))).astype(module.dtype or x.dtype)


def foldable(task: Task, variables: Variables, batch: Batch) -> Found:
    """What can be folded of the network that `predict` runs; nothing is computed.

    Args:
      task: any.
      variables: of the task, or their shapes; frozen parameters among the others.
      batch: to predict for, or its shapes.
    """
    modules: dict[Path, nn.Module] = {}

    def mark(call: Callable[..., Any], args: tuple, kwargs: dict, context: InterceptorContext) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, LINEAR + NORMS):
            return call(*args, **kwargs)
        path = tuple(module.path)
        modules[path] = module
        if isinstance(module, NORMS):
            return call(checkpoint_name(args[0], _name(path)), *args[1:], **kwargs)
        return checkpoint_name(call(*args, **kwargs), _name(path))

    with nn.intercept_methods(mark):
        # another function each time: traces are kept
        traced = jax.make_jaxpr(lambda variables, batch: task.predict(variables, batch))(
            variables, batch.replace(target=None)
        )
    return _found(modules, list(_uses(traced.jaxpr, modules)), variables)


def _found(
    modules: Mapping[Path, nn.Module], uses: list[tuple[Path | None, Path | None]], variables: Variables
) -> Found:
    """The pairs of which neither layer has another use, and the other normalisations with statistics."""
    readers, read = ({} for _ in range(2))
    for linear, norm in uses:
        readers.setdefault(linear, set()).add(norm)
        read.setdefault(norm, set()).add(linear)
    kernels = traverse_util.flatten_dict(variables["params"])
    statistics = traverse_util.flatten_dict(variables.get(STATISTICS, {}))
    norms = {path[:-1] for path in statistics if path[-1] == "mean"}
    pairs = [
        Pair(linear, norm, modules[norm].epsilon)  # type: ignore[attr-defined]
        for linear, each in readers.items()
        if linear is not None and len(each) == 1 and (norm := next(iter(each))) is not None and read[norm] == {linear}
        if (*linear, "kernel") in kernels and norm in norms and getattr(modules[norm], "axis", -1) == -1
    ]
    rest = norms - {pair.norm for pair in pairs}
    return Found(tuple(pairs), tuple(sorted("/".join(path) for path in rest)))


def _uses(jaxpr: Jaxpr, modules: Mapping[Path, nn.Module]) -> Iterator[tuple[Path | None, Path | None]]:
    """Each use of a linear layer's result, and what each normalisation reads: `(linear, norm)`, None for anything else."""
    marks = {_name(path): path for path in modules}
    made: dict[Any, Path] = {}
    for equation in jaxpr.eqns:
        path = marks.get(equation.params.get("name", "")) if equation.primitive.name == "name" else None
        norm = path if path is not None and isinstance(modules[path], NORMS) else None
        sources = [made.get(variable) for variable in equation.invars if not hasattr(variable, "val")]
        yield from ((linear, norm) for linear in sources if linear is not None or norm is not None)
        if path is not None and norm is None:
            made[equation.outvars[0]] = path
        for inner in _inner(equation):
            yield from _uses(inner, modules)
    yield from (
        (made[variable], None) for variable in jaxpr.outvars if not hasattr(variable, "val") and variable in made
    )


def _inner(equation: Any) -> Iterator[Jaxpr]:
    """The programs that an operator calls."""
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr))
    yield from (x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in values if isinstance(x, Jaxpr | ClosedJaxpr))


def _name(path: Path) -> str:
    return f"jaxvision layer {'/'.join(path)}"


def fold(variables: Variables, found: Found) -> Variables:
    """The variables for `folded(task)`: these normalisations are a part of the kernels, and have a bias alone."""
    flat: dict[str, dict[Path, Any]] = {
        name: traverse_util.flatten_dict(variables.get(name, {})) for name in ("params", STATISTICS)
    }
    for pair in found.pairs:
        _fold_pair(flat["params"], flat[STATISTICS], pair)
    rest = {name: value for name, value in variables.items() if name not in flat}
    nested = {name: traverse_util.unflatten_dict(each) for name, each in flat.items() if each}
    return {**rest, **nested}


def _fold_pair(params: dict[Path, Array], statistics: dict[Path, Array], pair: Pair) -> None:
    """Folds one normalisation, in place."""
    taken = lambda name, default: next(
        (held.pop(path) for held in (params, statistics) if (path := (*pair.norm, name)) in held), default
    )
    home = statistics if (*pair.norm, "bias") in statistics else params
    mean, variance = taken("mean", None), taken("var", None)
    scale, bias = taken("scale", jnp.ones_like(mean)), taken("bias", jnp.zeros_like(mean))
    factor = scale * jax.lax.rsqrt(variance + pair.epsilon)
    for name in ("kernel", "bias"):
        path = (*pair.linear, name)
        if path in params:
            each = params[path]
            params[path] = (each * factor.reshape((1,) * (each.ndim - 1) + (-1,))).astype(each.dtype)
    home[(*pair.norm, "bias")] = bias - mean * factor

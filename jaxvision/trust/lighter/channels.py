"""Structured pruning: whole channels leave, and the result is the same network with smaller arguments.

The channels of a convolution that leave are those whose filters have the smallest sums of absolute weights
(arXiv:1608.08710), each judged before any leave. Of `SmallCNN` every convolution may lose channels; of a `resnet.Backbone`,
wherever it stands, those between the convolutions of a block may, so that all maps keep their width. Names of parameters
stay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from flax.linen.module import InterceptorContext

from jaxvision.errors import ConfigError
from jaxvision.experiment import Experiment
from jaxvision.nn.cnn import SmallCNN
from jaxvision.nn.resnet import Backbone, Bottleneck
from jaxvision.optimize.patterns import check_matches, first_match
from jaxvision.types import Batch, Key, LossOutput, Prediction, Scalar, Task, Variables

PRUNABLE = (SmallCNN, Backbone)
"""Networks, and parts of networks, whose convolutions have widths as arguments."""

Arguments = Mapping[str, Mapping[str, Any]]
"""New arguments of networks, by the path of each: "" is the whole network of a task, "features/backbone" a part."""


class Unit(NamedTuple):
    """A convolution whose output channels may leave, and what reads them."""

    conv: str
    norm: str
    reader: str
    """The layer whose input channels leave with them: of a dense layer behind a map, those of every pixel."""


class Narrower(NamedTuple):
    """What is left of a network."""

    arguments: Arguments
    """What the networks are built with instead."""
    variables: Variables


class Network(NamedTuple):
    """A network in a task."""

    path: str
    module: nn.Module
    units: tuple[Unit, ...]


def narrowed(task: Task, arguments: Arguments) -> Task:
    """The task with other arguments of its networks, whose variables are those of `without_channels`."""

    def intercept(call: Callable[..., Any], args: tuple, kwargs: dict, context: InterceptorContext) -> Any:
        module = context.module
        if context.method_name == "__call__" and (given := arguments.get("/".join(module.path))):
            for name, value in given.items():
                object.__setattr__(module, name, value)  # of the module as it is bound for this call alone
        return call(*args, **kwargs)

    def init(key: Key, batch: Batch) -> Variables:
        with nn.intercept_methods(intercept):
            return task.init(key, batch)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        with nn.intercept_methods(intercept):
            return task.loss(variables, batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        with nn.intercept_methods(intercept):
            return task.predict(variables, batch)

    return Task(init, loss, predict)


def narrowed_experiment(experiment: Experiment, arguments: Arguments) -> Experiment:
    """The experiment with other arguments of its networks."""
    return experiment._replace(task=narrowed(experiment.task, arguments))


def without_channels(task: Task, variables: Variables, batch: Batch, keep: float, *chosen: str) -> Narrower:
    """The arguments and variables of the task's networks without their weakest channels.

    Args:
      task: of any kind, with a network that is `PRUNABLE`, or has such a part.
      variables: trained ones.
      batch: of the task, arrays or their shapes.
      keep: fraction of the channels of each convolution that stay, above 0, at most 1; at least one stays.
      chosen: patterns of paths of convolutions, `stage1_conv.*`; all that may lose channels if none is given.

    Raises:
      ConfigError: for a fraction that is not allowed, a task without such a network, and a pattern that matches no
        convolution, with the nearest names.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep is {keep}; it must be above 0 and at most 1")
    networks = prunable(task, variables, batch)
    convolutions = [unit.conv for network in networks for unit in network.units]
    allowed = _chosen(convolutions, chosen)
    flat = {part: traverse_util.flatten_dict(tree, sep="/") for part, tree in variables.items()}
    kernels = {name: np.asarray(flat["params"][f"{name}/kernel"]) for name in convolutions}
    kept = {name: strongest(kernel, keep if name in allowed else 1.0) for name, kernel in kernels.items()}
    for unit in (unit for network in networks for unit in network.units):
        flat = _cut(flat, unit, kept[unit.conv], kernels[unit.conv].shape[-1])
    arguments = {each.path: _arguments(each, [len(kept[unit.conv]) for unit in each.units]) for each in networks}
    return Narrower(arguments, {part: traverse_util.unflatten_dict(tree, sep="/") for part, tree in flat.items()})


def strongest(kernel: np.ndarray, keep: float) -> np.ndarray:
    """The numbers, in order, of the output channels with the largest sums of absolute weights; of equal ones the first."""
    strength = np.abs(kernel.astype(np.float64)).reshape(-1, kernel.shape[-1]).sum(0)
    count = max(round(keep * len(strength)), 1)
    return np.sort(np.argsort(-strength, kind="stable")[:count])


def prunable(task: Task, variables: Variables, batch: Batch) -> list[Network]:
    """The networks of a task, or parts of them, that may lose channels.

    Raises:
      ConfigError: if there is none; it names the network.
    """
    found: dict[str, Network] = {}
    seen: list[str] = []

    def intercept(call: Callable[..., Any], args: tuple, kwargs: dict, context: InterceptorContext) -> Any:
        module, path = context.module, "/".join(context.module.path)
        seen.append(type(module).__name__)
        if context.method_name == "__call__" and isinstance(module, PRUNABLE) and not _of_groups(module):
            found[path] = Network(path, module.clone(parent=None), tuple(_units(module, f"{path}/" if path else "")))
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        jax.eval_shape(task.predict, variables, batch)
    if not found:
        which = seen[0] if seen else "what predicts"
        names = " and ".join(each.__qualname__ for each in PRUNABLE)
        raise ConfigError(
            f"channels of {which} can't be pruned: allowed are {names} (of ResNets without groups), and networks on one"
        )
    return list(found.values())


def _of_groups(module: nn.Module) -> bool:
    return isinstance(module, Backbone) and module.groups != 1


def _units(module: nn.Module, lead: str) -> Iterator[Unit]:
    """The convolutions of a network that may lose channels."""
    if isinstance(module, SmallCNN):
        names = [f"stage{s}_{{}}{n}" for s in range(1, len(module.widths) + 1) for n in range(1, module.depth + 1)]
        readers = [*(name.format("conv") for name in names[1:]), "head"]
        for name, reader in zip(names, readers, strict=True):
            yield Unit(f"{lead}{name.format('conv')}", f"{lead}{name.format('norm')}", f"{lead}{reader}")
    elif isinstance(module, Backbone):
        inner = 2 if module.block is Bottleneck else 1
        for stage, blocks in enumerate(module.stage_sizes, 1):
            for block in range(1, blocks + 1):
                at = f"{lead}stage{stage}_block{block}"
                for n in range(1, inner + 1):
                    yield Unit(f"{at}/conv{n}", f"{at}/norm{n}", f"{at}/conv{n + 1}")


def _arguments(network: Network, widths: Sequence[int]) -> dict[str, Any]:
    """The arguments of a network whose units have these widths."""
    if isinstance(network.module, SmallCNN):
        depth = network.module.depth
        return {"channels": tuple(tuple(widths[at : at + depth]) for at in range(0, len(widths), depth))}
    assert isinstance(network.module, Backbone)
    inner = 2 if network.module.block is Bottleneck else 1
    return {"inside": tuple(widths[::inner])}


def _chosen(convolutions: Sequence[str], patterns: Sequence[str]) -> set[str]:
    for pattern in patterns:
        try:
            check_matches(pattern, convolutions, "prune_channels")
        except ValueError as error:
            raise ConfigError(f"{str(error).replace('parameter', 'convolution that may lose channels')}") from None
    return set(first_match(convolutions, patterns)) if patterns else set(convolutions)


def _cut(flat: Mapping[str, Mapping[str, Any]], unit: Unit, kept: np.ndarray, before: int) -> dict[str, dict[str, Any]]:
    """All variables without the channels of a unit that leave."""

    def part(name: str, x: Any) -> Any:
        layer, _, last = name.rpartition("/")
        if layer in (unit.conv, unit.norm):
            return x[..., kept]
        if layer != unit.reader or last != "kernel":
            return x
        axis, pixels = x.ndim - 2, x.shape[-2] // before
        rows = (np.arange(pixels)[:, None] * before + kept).reshape(-1)
        return jnp.take(x, rows, axis)

    return {group: {name: part(name, x) for name, x in tree.items()} for group, tree in flat.items()}


def flops(task: Task, variables: Variables, batch: Batch) -> float:
    """Floating-point operations of one prediction, as XLA counts them."""
    counted = jax.jit(task.predict).lower(variables, batch).cost_analysis()
    assert counted is not None
    return float(counted["flops"])

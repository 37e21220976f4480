"""Training steps of a family, compiled once: what its members differ in is an input."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvision.experiment import Experiment
from jaxvision.run import devices
from jaxvision.train import TrainState, TrainStep
from jaxvision.types import Batch, Scalar
from launch.together.families import Family
from launch.together.lifting import Inputs, evaluator

Flat = list[Any]
FlatStep = Callable[[Inputs, Flat, Flat], tuple[Flat, Flat]]


class Steps:
    """The step of a family over a mesh, for each of its members."""

    def __init__(self, family: Family):
        self.family = family
        self._compiled: FlatStep | None = None

    def step_on(self, name: str, mesh: Mesh, experiment: Experiment) -> tuple[TrainStep, TrainState]:
        """The step of a member, as `devices.step_on` gives it."""
        like = devices.state_on(mesh, experiment)
        return shaped(self.flat_on(name, mesh, like), self.family.metrics[name]), like

    def flat_on(self, name: str, mesh: Mesh, like: TrainState) -> Callable[[Flat, Flat], tuple[Flat, Flat]]:
        """The step of a member, of lists of arrays."""
        if self._compiled is None:
            self._compiled = compiled(flat_step(self.family, like), mesh, like)
        return partial(self._compiled, jax.device_put(self.family.values(name), devices.replicated(mesh)))


def flat_step(family: Family, like: TrainState) -> FlatStep:
    """The step `(values, state, batch) -> (state, metrics)` of a family, each a list of arrays, not jitted."""
    step, count = evaluator(family.program, family.lifted), len(jax.tree.leaves(like))

    def flat(values: Inputs, state: Flat, batch: Flat) -> tuple[Flat, Flat]:
        outputs = step(values, [*state, *batch])
        return outputs[:count], outputs[count:]

    return flat


def compiled(step: FlatStep, mesh: Mesh, like: TrainState) -> FlatStep:
    """The step jitted, its state where `like` lies on the devices, donated."""
    shardings = jax.tree.leaves(devices.layout(mesh, like)), devices.replicated(mesh)
    return jax.jit(step, donate_argnums=1, out_shardings=shardings)


def shaped(step: Callable[[Flat, Flat], tuple[Flat, Flat]], metrics: Any) -> TrainStep:
    """The step of lists of arrays as one of a state and a batch."""

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Scalar]]:
        leaves, structure = jax.tree.flatten(state)
        done, measured = step(leaves, jax.tree.leaves(batch))
        return jax.tree.unflatten(structure, done), jax.tree.unflatten(metrics, measured)

    return train_step

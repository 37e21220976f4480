"""A meeting of runs: threads that train a member each, and wait for each other at every step, which one program does."""

import threading
from collections.abc import Callable, Collection
from functools import partial

import jax
from jax.sharding import Mesh

from jaxvision.experiment import Experiment
from jaxvision.run import devices
from jaxvision.train import TrainState, TrainStep
from launch.together.families import Family
from launch.together.joint import WAYS, Way
from launch.together.steps import Flat, Steps, flat_step, shaped

Given = tuple[Flat, Flat]


class Meeting:
    """The joint step of members of a family.

    All that were there at the beginning step together; when one has left, the others step one by one, under the program of
    one member. So the last bits of a member depend on how long the others stay.
    """

    def __init__(self, family: Family, way: Way):
        self.family = family
        self.way: Way = way
        self.alone = Steps(family)
        self._first: tuple[str, ...] = ()
        self._present: set[str] = set()
        self._left: set[str] = set()
        self._given: dict[str, Given] = {}
        self._done: dict[str, Given | Exception] = {}
        self._changed = threading.Condition()
        self._step: Callable | None = None
        self._single: dict[str, Callable[[Flat, Flat], Given]] = {}

    def open(self, members: Collection[str]) -> None:
        """Lets these members step together; until then, whoever comes waits."""
        with self._changed:
            self._first = tuple(name for name in self.family.members if name in members)
            self._present = set(self._first) - self._left
            self._advance()

    def leave(self, member: str) -> None:
        """The member takes no further step; called by its thread or for it, as often as you like."""
        with self._changed:
            self._left.add(member)
            self._present.discard(member)
            self._advance()

    def step_on(self, member: str, mesh: Mesh, experiment: Experiment) -> tuple[TrainStep, TrainState]:
        """The step of a member, as `devices.step_on` gives it, which waits for the others."""
        like = devices.state_on(mesh, experiment)
        with self._changed:
            if self._step is None:
                self._step = joint_step(self.family, self.way, mesh, like)
            self._single[member] = self.alone.flat_on(member, mesh, like)
        return shaped(partial(self._met, member), self.family.metrics[member]), like

    def _met(self, member: str, state: Flat, batch: Flat) -> Given:
        with self._changed:
            self._given[member] = (state, batch)
            self._advance()
            self._changed.wait_for(lambda: member in self._done)
            done = self._done.pop(member)
        if isinstance(done, Exception):
            raise done
        return done

    def _advance(self) -> None:
        """Does the step, once all who are present have come."""
        if not self._given or not self._first or not self._present <= set(self._given):
            return
        given, self._given = self._given, {}
        try:
            self._done |= self._stepped(given)
        except Exception as error:
            self._done |= dict.fromkeys(given, error)
        self._changed.notify_all()

    def _stepped(self, given: dict[str, Given]) -> dict[str, Given]:
        if set(given) != set(self._first) or len(given) == 1 or self._step is None:
            return {name: self._single[name](*each) for name, each in given.items()}
        values = [self.family.values(name) for name in self._first]
        states, batches = zip(*(given[name] for name in self._first), strict=True)
        return dict(zip(self._first, self._step(values, states, batches), strict=True))


def joint_step(family: Family, way: Way, mesh: Mesh, like: TrainState) -> Callable:
    """The joint step jitted: `(values, states, batches) -> [(state, metrics), ...]`, the states donated."""
    step = WAYS[way](flat_step(family, like))
    everywhere, layout = devices.replicated(mesh), jax.tree.leaves(devices.layout(mesh, like))

    def placed(values, states, batches):
        keep = jax.lax.with_sharding_constraint
        return [(keep(state, layout), keep(metrics, everywhere)) for state, metrics in step(values, states, batches)]

    return jax.jit(placed, donate_argnums=1)

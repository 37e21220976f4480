"""Sameness: variants of a plan that train the same weights, since programs, data and start are the same."""

import itertools
from collections.abc import Generator, Hashable, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jaxvision import experiment as experiments
from jaxvision.errors import UserError
from jaxvision.experiment import Experiment
from jaxvision.run import devices
from launch.plan import Member, Plan, flat
from launch.together.equations import Program, read
from launch.together.families import built, traced
from launch.together.meaning import contents, meaning

BATCHES = 2
"""First batches that are compared, where all else is the same."""


class Training(NamedTuple):
    """What decides the weights that a member comes to, but its batches."""

    program: Hashable
    start: Hashable
    data: Hashable
    steps: int


def warnings(planned: Plan) -> list[str]:
    """A line for each variant that trains the same weights as one before it, of the first seed."""
    members = [each for each in planned.members if each.seed == planned.members[0].seed]
    if len(members) < 2:
        return []
    mesh, seen, found = devices.device_mesh(), {}, []
    for member in members:
        try:
            experiment = built(planned, member).experiment
            key = training(experiment, member, mesh)
        except (UserError, ValueError, TypeError):
            continue  # its run says what is wrong with it
        for other, other_experiment in seen.setdefault(key, []):
            if first_batches(experiment) == first_batches(other_experiment):
                found.append(told(other, member))
                break
        else:
            seen[key].append((member, experiment))
    return found


def training(experiment: Experiment, member: Member, mesh: Mesh) -> Training:
    """What decides the weights, as a value that can be compared."""
    start = read(jax.make_jaxpr(lambda key: _first(experiment, key))(jax.random.key(0)))
    began = whole(start), experiment.seed, meaning(experiment.start)
    return Training(whole(traced(experiment, mesh).program), began, member.data.get("train"), experiment.steps)


def _first(experiment: Experiment, key: jax.Array) -> Sequence[jax.Array]:
    del key  # the seed is compared by itself
    return jax.tree.leaves(experiments.first_state_of(experiment, start=False))


def whole(program: Program) -> Hashable:
    """Lines and constants of a program."""
    return program.lines, tuple(constant.contents() for constant in program.constants)


def first_batches(experiment: Experiment) -> list[Hashable]:
    """The contents of the first batches of training."""
    batches = experiment.train.batches(0)
    try:
        return [tuple(contents(each) for each in jax.tree.leaves(b)) for b in itertools.islice(batches, BATCHES)]
    finally:
        if isinstance(batches, Generator):
            batches.close()


def told(first: Member, other: Member) -> str:
    """What a person should know of two variants that are the same."""
    a, b = flat(first.config), flat(other.config)
    fields = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
    what = f"config.{', config.'.join(fields)} changes nothing in training"
    return f"warning: {first.variant!r} and {other.variant!r} train the same weights: {what}"

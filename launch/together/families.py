"""Families: the members of a plan whose training steps differ in nothing but constants, and so are one program."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxvision import experiment as experiments
from jaxvision.errors import ConfigError, UserError, raised_as
from jaxvision.experiment import Experiment
from jaxvision.run import config as configs
from jaxvision.run import devices
from launch.plan import Member, Plan, flat
from launch.together import lifting
from launch.together.equations import Constant, Program, read


class Family:
    """Members of one program."""

    def __init__(self, program: Program, why: str = ""):
        self.program = program
        self.why = why
        """In what it differs from the first family; empty for that one."""
        self.members: list[str] = []
        self.metrics: dict[str, Any] = {}
        """The names of what the step of a member measures, as the structure of a tree."""
        self._constants: dict[str, Sequence[Constant]] = {}
        self._lifted: lifting.Columns | None = None

    def add(self, name: str, constants: Sequence[Constant], metrics: Any) -> None:
        """Takes in a member, whose program has the lines of this family, and whose step returns such metrics."""
        self.members.append(name)
        self.metrics[name] = metrics
        self._constants[name] = constants
        self._lifted = None

    @property
    def lifted(self) -> lifting.Columns:
        """The constants in which its members differ."""
        if self._lifted is None:
            self._lifted = lifting.columns(list(self._constants.values()))
        return self._lifted

    def values(self, name: str) -> lifting.Inputs:
        """The values of a member for what is lifted."""
        return lifting.values(self._constants[name], self.lifted)


class Traced(NamedTuple):
    """A training step as it is traced."""

    program: Program
    metrics: Any


def traced(experiment: Experiment, mesh: Mesh) -> Traced:
    """The training step of an experiment.

    Raises:
      ValueError: for parts of the experiment that don't fit together, and a step that changes the types of its state.
    """
    like = devices.state_on(mesh, experiment)
    step = jax.make_jaxpr(experiments.train_step_of(experiment), return_shape=True)
    jaxpr, (after, metrics) = step(like, devices.batch_on(mesh, experiment.train.spec))
    before, after = ([(each.shape, each.dtype) for each in jax.tree.leaves(state)] for state in (like, after))
    if before != after:
        raise ValueError("its training step changes the shapes or types of its state, and so is a program of its own")
    return Traced(read(jaxpr), jax.tree.structure(metrics))


def families(members: Iterable[tuple[str, Traced]]) -> list[Family]:
    """The steps, by the names of their members, in families; of each family only one program is kept."""
    found: list[Family] = []
    for name, (program, metrics) in members:
        why = ""
        for family in found:
            unfit = lifting.unlike(family.program, program)
            if unfit is None:
                break
            why = why or unfit
        else:
            family = Family(program, why)
            found.append(family)
        family.add(name, program.constants, metrics)
    return found


def of_plan(planned: Plan, say: Callable[[str], object]) -> list[Family]:
    """The families of the members of a plan; one that can't be traced is told, and is in none."""
    with raised_as(ConfigError):
        mesh = devices.device_mesh()

    def each() -> Iterator[tuple[str, Traced]]:
        for member in planned.members:
            try:
                yield member.name, traced(built(planned, member).experiment, mesh)
            except (UserError, ValueError, TypeError) as error:
                say(f"{member.name} is run alone: {error}")

    return families(each())


def built(planned: Plan, member: Member, command: Sequence[str] = ()) -> configs.Built:
    """The experiment of a member, and its recipe."""
    return configs.build(planned.experiment, member.overrides, command)


def told(found: Sequence[Family], members: Mapping[str, Member]) -> list[str]:
    """What became inputs and what is another program, by the fields of the config, a line each."""
    lines = []
    for family in found:
        fields = [flat(members[name].config) for name in family.members]
        vary = sorted(name for name in fields[0] if any(each.get(name) != fields[0][name] for each in fields))
        size = f"{len(family.members)} of {len(members)} runs are one program"
        lines.append(f"{size}; they differ in {', '.join(vary) or 'nothing'}")
        if family is not found[0]:
            first = flat(members[found[0].members[0]].config)
            other = [name for name in first if name not in vary and first[name] != fields[0].get(name)]
            other += [] if other else vary
            lines[-1] = f"{', '.join(other)}: another program: {family.why}; {lines[-1]}"
    return lines

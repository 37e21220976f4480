"""The choice of a way for the members of a family, by measuring steps of each way that can win and compiles soon enough."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxvision.experiment import Experiment
from jaxvision.run import devices
from launch.together.joint import WAYS, Way
from launch.together.meeting import joint_step
from launch.together.steps import Steps

PART = 0.02
"""Part of the expected time that measuring may take."""
STEPS = 3
COMPILING = 1e-3
"""Seconds that an equation or parameter takes to compile, at least what is assumed; measured on CPU cores of 2026."""
GAIN = 1.03
"""How much faster a joint way must be to be worth its compilation."""


class Choice(NamedTuple):
    """How members are run, and what that was decided by."""

    way: Literal["turns", "vmap", "unroll"]
    why: str
    seconds: dict[str, float] = {}  # noqa: RUF012  (never changed)
    """Seconds of a step of all members, by way."""
    not_measured: dict[str, str] = {}  # noqa: RUF012
    """Why a way was not measured."""


def measured(steps: Steps, experiments: Sequence[Experiment], count: int) -> Choice:
    """The way that is expected to be the fastest.

    Args:
      steps: of the family, whose compiled program is used if the members take turns.
      experiments: of the members that would step together.
      count: of all members that are to run.
    """
    mesh = devices.device_mesh()
    like = devices.state_on(mesh, experiments[0])
    states = [jax.tree.leaves(like) for _ in experiments]
    batches = zeros([jax.tree.leaves(devices.batch_on(mesh, each.train.spec)) for each in experiments])
    names = steps.family.members[: len(experiments)]
    single = steps.flat_on(names[0], mesh, like)
    compiling, one = timed(lambda state: single(state, batches[0]), zeros(states[0]), lambda done: done[0])
    seconds, unmeasured = {"turns": one * len(experiments)}, {}
    expected = one * sum(each.steps for each in experiments) * count / len(experiments)
    values = [steps.family.values(name) for name in names]
    compiling = max(compiling, COMPILING * len(steps.family.program.lines))
    for way in WAYS:
        why = hopeless(way, steps, compiling * (len(names) if way == "unroll" else 1), expected)
        if why is not None:
            unmeasured[way] = why
            continue
        joint = joint_step(steps.family, way, mesh, like)
        try:
            run = lambda now, joint=joint: joint(values, now, batches)
            _, seconds[way] = timed(run, zeros(states), lambda done: [state for state, _ in done])
        except (RuntimeError, ValueError, NotImplementedError) as error:
            unmeasured[way] = f"it fails: {str(error).splitlines()[0][:200]}"
    return best(seconds, unmeasured)


def best(seconds: dict[str, float], unmeasured: dict[str, str]) -> Choice:
    """The fastest way; turns where another is hardly faster."""
    way = min(seconds, key=lambda name: seconds[name] * (1 if name == "turns" else GAIN))
    told = [f"{name} {value * 1e3:.3g} ms" for name, value in seconds.items()]
    told += [f"{name} not measured, {why}" for name, why in unmeasured.items()]
    return Choice(way, f"a step of all takes: {', '.join(told)}", seconds, unmeasured)  # type: ignore[arg-type]


def hopeless(way: Way, steps: Steps, compiling: float, expected: float) -> str | None:
    """Why a way is not worth measuring; None where it is."""
    convolves = any(line[0] == "conv_general_dilated" for line in steps.family.program.lines if isinstance(line, tuple))
    if way == "vmap" and convolves and jax.default_backend() == "cpu":
        return "which is slower wherever a CPU convolves with several members' weights"
    if compiling > PART * expected:
        return f"which takes about {compiling:.0f} s to compile, more than {PART:.0%} of the {expected:.0f} s expected"
    return None


def timed(step: Callable[[PyTree], PyTree], state: PyTree, of: Callable[[PyTree], PyTree]) -> tuple[float, float]:
    """Seconds of the first call, and of a later one; `of` gives the state from what a call returns."""
    began = time.perf_counter()
    state = of(jax.block_until_ready(step(state)))
    first = time.perf_counter() - began
    took = []
    for _ in range(STEPS):
        began = time.perf_counter()
        state = of(jax.block_until_ready(step(state)))
        took.append(time.perf_counter() - began)
    return first, min(took)


def zeros(shapes: PyTree) -> PyTree:
    """Arrays of these shapes on their devices, of zeros or keys; the time of a step does not depend on what they hold."""

    def one(shape: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(0), shape.sharding)
        return jax.device_put(jnp.zeros(shape.shape, shape.dtype), shape.sharding)

    return jax.tree.map(one, shapes)

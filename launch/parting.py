"""The first step in which two runs part, and the arrays: by bisection over their checkpoints, then by training again.

A step is named by the number of steps that are done after it: the batch of step 37 is the one that makes 36 steps 37.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxvision.errors import ConfigError
from jaxvision.run import restore, training
from jaxvision.run.checkpoint import Checkpoints
from jaxvision.train import TrainState
from jaxvision.types import Batch

SHOWN = 5


class Array(NamedTuple):
    """An array in which two runs differ."""

    name: str
    """Such as `batch.image` or `state.params/head/kernel`."""
    different: int
    """Entries that are not the same bits."""
    entries: int
    largest: float
    """Largest difference of two entries; NaN where it can't be computed."""
    examples: tuple[str, ...] = ()
    """Names of the examples that differ, where it is an array of a batch."""

    def text(self) -> str:
        """Name, number of entries and largest difference as one text."""
        of = f", of {', '.join(self.examples[:SHOWN])}" if self.examples else ""
        return f"{self.name}: {self.different:,} of {self.entries:,} entries, by {self.largest:.3g} at most{of}"


class Parting(NamedTuple):
    """Where two runs part."""

    step: int
    """The first step after which, or in the batch of which, something differs; else the last that was looked at."""
    arrays: tuple[Array, ...]
    """What differs: of the batch of the step if that does, else of the state after it; none if nothing does."""
    replayed_from: int
    """Step of the last checkpoints that are the same, from which both were trained again."""
    remark: str = ""

    def lines(self) -> list[str]:
        """Lines for a person, the first array in the first of them."""
        if not self.arrays:
            return [f"no first difference was found up to step {self.step:,}{self.remark}"]
        where = "before the first step" if self.step == 0 else f"at step {self.step:,}"
        first, *others = self.arrays
        lines = [f"the runs part {where}: {first.text()}{self.remark}"]
        lines += [f"  {array.text()}" for array in others[: SHOWN - 1]]
        if len(others) >= SHOWN:
            lines.append(f"  and {len(others) - SHOWN + 1} more arrays")
        return lines


class _Run:
    """A run that can be trained again from any of its checkpoints, in memory."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.restored = restore.restore(folder)
        self.plan = training.prepare(self.restored.experiment)
        path = self.restored.workdir.checkpoints
        self._checkpoints = Checkpoints(path, self.restored.experiment.keep, read_only=True) if path.is_dir() else None

    @property
    def steps(self) -> list[int]:
        return [] if self._checkpoints is None else self._checkpoints.steps

    def state(self, step: int) -> TrainState:
        """State of a checkpoint; of step 0, the one before the first step."""
        if step == 0:
            return training.first_state(self.plan)
        assert self._checkpoints is not None
        return self._checkpoints.load(step, self.plan.like).state

    def batches(self, step: int) -> Iterator[Batch]:
        return training.feeder(self.plan.mesh)(self.plan.experiment.train, step)

    def names(self, batch: Batch, rows: np.ndarray) -> tuple[str, ...]:
        index = np.asarray(batch.index)
        return tuple(self.plan.data["train"].name(int(index[row])) for row in rows)

    def close(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.close()


def find(one: Path, other: Path) -> Parting:
    """Where two runs part; neither workdir is changed.

    Both are trained again, on this machine, from the last checkpoint in which they agree: what makes them differ only on
    other machines, or with other packages, is not found so, and said.

    Raises:
      WorkdirError: if a folder holds no run.
      ConfigError: if their states have other arrays.
      CheckpointError: if a checkpoint can't be read.
    """
    runs = _Run(one), _Run(other)
    try:
        _check_comparable(*runs)
        low, high, at_high = _bisected(*runs)
        if at_high and high == 0:
            return Parting(0, at_high, 0)
        last = high or min(run.plan.experiment.steps for run in runs)
        return _replayed(*runs, low, last, at_high)
    finally:
        for run in runs:
            run.close()


def _check_comparable(one: _Run, other: _Run) -> None:
    shapes = [{name: (x.shape, str(x.dtype)) for name, x in _named(run.plan.like)} for run in (one, other)]
    different = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
    if different:
        name = different[0]
        values = (shape.get(name, "absent") for shape in shapes)
        raise ConfigError(
            f"the runs have other arrays, from the first step on: {name} is {next(values)} and {next(values)}"
        )


def _bisected(one: _Run, other: _Run) -> tuple[int, int, tuple[Array, ...]]:
    """The last common checkpoint that is the same, the first that is not (0: none), and how the latter differs."""
    steps = [0, *sorted(set(one.steps) & set(other.steps))]
    low, high, found = 0, len(steps), ()
    if different := state_differences(one.state(0), other.state(0)):
        return 0, 0, different
    while high - low > 1:
        middle = (low + high) // 2
        different = state_differences(one.state(steps[middle]), other.state(steps[middle]))
        low, high, found = (low, middle, different) if different else (middle, high, found)
    return steps[low], steps[high] if high < len(steps) else 0, found


def _replayed(one: _Run, other: _Run, low: int, last: int, at_high: tuple[Array, ...]) -> Parting:
    """Both trained again, a step at a time, until they part."""
    states = [run.state(low) for run in (one, other)]
    streams = [run.batches(low) for run in (one, other)]
    step = low
    for step in range(low + 1, last + 1):
        batches = [next(stream) for stream in streams]
        if different := batch_differences(one, *batches):
            return Parting(step, different, low)
        states = [
            run.plan.step(state, batch)[0] for run, state, batch in zip((one, other), states, batches, strict=True)
        ]
        if different := state_differences(*states):
            return Parting(step, different, low)
    if at_high:
        remark = (
            f": trained again here from step {low:,}, both give the same, while their checkpoints of step {last:,} differ in "
            f"{at_high[0].name}; what made them part is the machine or the packages, not experiment and data"
        )
        return Parting(step, (), low, remark)
    return Parting(step, (), low)


def _named(tree: PyTree, prefix: str = "") -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(prefix + jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def state_differences(one: TrainState, other: TrainState) -> tuple[Array, ...]:
    """The arrays of two states that are not the same bits: first parameters, then the rest."""
    found = [_difference(f"state.{name}", a, b) for (name, a), (_, b) in zip(_named(one), _named(other), strict=True)]
    known = [array for array in found if array is not None]
    return tuple(sorted(known, key=lambda array: not array.name.startswith("state.params")))


def batch_differences(run: _Run, one: Batch, other: Batch) -> tuple[Array, ...]:
    """The arrays of two batches that are not the same bits, with the names of the examples."""
    ours, theirs = dict(_named(one, "batch.")), dict(_named(other, "batch."))
    found = []
    for name in {**ours, **theirs}:
        array = _difference(name, ours.get(name), theirs.get(name))
        if array is not None:
            found.append(array._replace(examples=run.names(one, _rows(ours.get(name), theirs.get(name)))))
    return tuple(found)


def _rows(one: Any, other: Any) -> np.ndarray:
    """The rows of a batch in which two arrays differ; none where they can't be compared."""
    if one is None or other is None or one.shape != other.shape or not one.ndim:
        return np.zeros(0, int)
    different = _bits(one) != _bits(other)
    return np.flatnonzero(different.reshape(len(different), -1).any(1))


def _difference(name: str, one: Any, other: Any) -> Array | None:
    if one is None or other is None or one.shape != other.shape:
        shapes = [None if x is None else x.shape for x in (one, other)]
        return Array(f"{name} ({shapes[0]} | {shapes[1]})", 1, 1, float("nan"))
    a, b = _bits(one), _bits(other)
    different = a != b
    if not different.any():
        return None
    ours, theirs = (np.asarray(_plain(x)).astype(np.float64) for x in (one, other))
    return Array(name, int(different.sum()), different.size, float(np.abs(ours - theirs).max()))


def _plain(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _bits(x: jax.Array) -> np.ndarray:
    """The array as unsigned integers: NaN is the same as NaN, 0 another than -0."""
    array = np.asarray(_plain(x))
    return array if array.dtype == bool else array.view(f"u{array.dtype.itemsize}")

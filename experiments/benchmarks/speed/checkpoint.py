"""Stall of training for a checkpoint of ResNet-50 with momentum (205 MB), beside Orbax and torch.save.

Ours copies the arrays, computes a digest of them, and writes while training goes on: a block ends where training could go on,
and what is left is done before the next side's turn; Orbax's `save_async` does so too, without a digest. What was saved is
read back, and must be the same; the first save of a run, which is read back too, is no block.
"""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

from experiments.benchmarks.speed.contest import Contest, Side, Told, hold
from experiments.benchmarks.speed.table import Figure

HERE = "experiments.benchmarks.speed"
STEP, BETWEEN = 0.1, 1000
"""Seconds of a step, and steps between two checkpoints, for the share of training."""


def rows(small: bool) -> Iterator[Contest | Callable[[], list[Figure]]]:
    """The stall beside others, and what a checkpoint takes of training."""
    given = {"width": 16 if small else 1}
    ours = Side("ours", f"{HERE}.checkpoint_ours:asynchronous", given)
    sides = (
        ours,
        Side("Orbax, synchronous", f"{HERE}.checkpoint_orbax:synchronous", given, least=5.0),
        Side("torch.save", f"{HERE}.checkpoint_torch:saved", given, peer=True, least=5.0),
        Side("Orbax, asynchronous", f"{HERE}.checkpoint_orbax:asynchronous", given),
    )
    blocks = 3 if small else 7
    yield Contest("stall for a checkpoint of ResNet-50", sides, blocks=blocks, tolerance=0.0)
    whole = Side("ours", f"{HERE}.checkpoint_ours:whole", given)
    on_disk = (whole, *(each._replace(least=None) for each in sides[1:3]))
    yield Contest("a checkpoint of ResNet-50 until it is on disk", on_disk, blocks=blocks, tolerance=0.0)
    yield partial(of_training, ours, "the stall for a checkpoint", 1.0)
    yield partial(of_training, whole, "a checkpoint until it is on disk, beside which training goes on", None)


def of_training(side: Side, name: str, most: float | None) -> list[Figure]:
    """What it takes of a training, in per cent."""
    told = hold(Contest(name, (side,), blocks=3))[side.name]
    assert isinstance(told, Told)
    seconds = statistics.median(block.seconds for block in told.blocks)
    between = f"at one per {BETWEEN:,} steps of {STEP * 1e3:.0f} ms"
    return [Figure(f"{name}, of training {between}", 100 * seconds / (STEP * BETWEEN), "%", most=most)]

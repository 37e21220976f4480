"""What the training loop costs: `train.fit` with all that a run writes and watches, against loops of a few lines.

The first two do the same work: the same step of a CNN with AdamW, the same batches, which lie on the device. Ours writes
metrics.jsonl, timing.jsonl and TensorBoard every 25 steps, draws a progress bar, and has a watchdog and a watch for
recompilations. The bare step is our own jitted training step in a `for` loop. The third has Flax's layers of the same CNN,
whose pooling is slower on a CPU, its `TrainState`, no guard against what is not finite and no gradient norm: it says
nothing of the loop alone.
"""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"
SIZES = ((43, 120, 5, 0.97), (723, 25, 100, 0.99))
"""Images a step, steps in a block, about how many milliseconds a step takes on two cores of an AMD EPYC, the aim."""


def rows(small: bool) -> Iterator[Contest]:
    """Short steps and long ones."""
    for batch_size, units, milliseconds, least in SIZES[: 1 if small else None]:
        given = {"batch_size": 4 if small else batch_size}
        sides = (
            Side("fit", f"{HERE}.fit_ours:fit", given),
            Side("bare step", f"{HERE}.fit_ours:bare", given, least=least),
            Side("Flax's layers and loop", f"{HERE}.fit_flax:loop", given),
        )
        yield Contest(
            f"training loop, steps of about {milliseconds} ms",
            sides,
            units=30 if small else units,
            blocks=3 if small else 25,
            tolerance=1e-4,
        )

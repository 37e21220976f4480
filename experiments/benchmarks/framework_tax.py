"""What the training loop costs: `train.fit` with all that a run writes and watches, against the bare step in a `for` loop.

    python experiments/benchmarks/framework_tax.py

Both do the same jitted step on the same batches, which lie on the device. The network is a small CNN, and the batch so
large that a step takes about 5 ms, and about 100 ms; the two take turns. Takes about four minutes on two CPU cores.
Prints a table; results are in RESULTS.md beside this file.
"""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jaxvision import train
from jaxvision.nn.cnn import SmallCNN
from jaxvision.run import provenance
from jaxvision.run.log import Mark
from jaxvision.run.logbook import Logbook
from jaxvision.tasks.classification import classification
from jaxvision.types import Batch, Labels

SIDE, CLASSES, BATCHES = 28, 10, 8
LOG_EVERY = 25


class Case(NamedTuple):
    """A step that takes about so long."""

    step: Callable
    state: train.TrainState
    batches: list[Batch]

    def fresh(self) -> tuple[train.TrainState, Iterator[Batch]]:
        """A state that may be donated, and the batches again and again."""
        return jax.block_until_ready(jax.tree.map(jnp.copy, self.state)), itertools.cycle(self.batches)


def case(batch_size: int) -> Case:
    network = SmallCNN(CLASSES, channels=(8, 16), depth=1, dropout=0.0)
    task, optimizer = classification(network, mean=73.0, std=90.0), optax.adamw(1e-3)
    batches = [batch(batch_size, seed) for seed in range(BATCHES)]
    spec = jax.eval_shape(lambda: batches[0])
    state = train.init_state(task, optimizer, jax.random.key(0), spec)
    return Case(jax.jit(train.make_train_step(task, optimizer), donate_argnums=0), state, batches)


def batch(count: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    image = jnp.asarray(rng.integers(0, 256, (count, SIDE, SIDE, 1), dtype=np.uint8))
    label = Labels(jnp.asarray(rng.integers(0, CLASSES, count).astype(np.int32)))
    size = jnp.full((count, 2), SIDE)
    return Batch(image, size, size, jnp.arange(count), jnp.ones(count, bool), label)


def calibrated(seconds: float) -> tuple[Case, int]:
    """A case whose step takes about so long, and its batch size."""
    size = 16
    for _ in range(4):
        found = case(size)
        bare(found, 3)
        took = min(bare(found, 4) for _ in range(4))  # the least: other processes only add
        if 0.85 < took / seconds < 1.15:
            break
        size = max(1, round(size * seconds / took))
    return found, size


def bare(found: Case, steps: int) -> float:
    """Seconds a step of a plain loop."""
    state, batches = found.fresh()
    start = time.perf_counter()
    for _ in range(steps):
        state, _ = found.step(state, next(batches))
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / steps


def fitted(found: Case, steps: int) -> float:
    """Seconds a step of the training loop, with all that a run writes and watches."""
    state, batches = found.fresh()
    size = found.batches[0].image.shape[0]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        config = {"batch_size": size}
        book = Logbook(Path(folder), config, mark=Mark(), steps=steps, batch_size=size, every=LOG_EVERY)
        # As on a terminal, even where there is none.
        book.terminal.bar = tqdm(total=steps, file=nowhere, mininterval=0.2)
        with book:
            step = book.watched(found.step)
            nothing: Any = lambda *given: None
            hooks = train.Hooks(book.write, nothing, nothing, lambda history: False, lambda done: False, book.stepped)
            every = train.Every(log=LOG_EVERY, evaluate=0, checkpoint=0)
            start = time.perf_counter()
            train.fit(step, train.Progress(state), batches, steps=steps, every=every, hooks=hooks, clock=book.clock)
            took = time.perf_counter() - start
    return took / steps


def host_seconds(steps: int = 2000) -> float:
    """Seconds that the loop itself takes a step: with one that does nothing."""
    found = case(1)
    state, batches = found.fresh()
    _, metrics = found.step(state, next(batches))
    idle = found._replace(step=lambda state, batch: (state, metrics))
    return min(fitted(idle, steps) for _ in range(3))


def measure(target: float, steps: int, repetitions: int) -> str:
    """A row of the table; the two take turns in going first."""
    found, size = calibrated(target)
    loops, fits = [], []
    for turn in range(repetitions):
        pair = [(bare, loops), (fitted, fits)]
        for run, times in pair if turn % 2 else pair[::-1]:
            times.append(run(found, steps))
    taxes = [fit / loop - 1 for fit, loop in zip(fits, loops, strict=True)]
    low, middle, high = statistics.quantiles(taxes, n=4)
    print(f"{target}: {', '.join(f'{tax:.1%}' for tax in taxes)}", flush=True)
    return (
        f"| {statistics.median(loops) * 1e3:.2f} ms | {1 / statistics.median(loops):.1f} | "
        f"{1 / statistics.median(fits):.1f} | {middle:+.1%} | {low:+.1%} to {high:+.1%} | "
        f"{repetitions} x {steps} steps, batch {size} |"
    )


def main() -> None:
    host = host_seconds()
    here, versions = provenance.machine(), provenance.versions()
    rows = [measure(0.005, 120, 40), measure(0.1, 25, 24)]
    print(f"\n{date.today()}, {here['processor']}, {here['cores']} cores, {here['backend']}", end="; ")
    print(", ".join(f"{name} {versions[name]}" for name in ("jax", "jaxlib", "flax", "optax", "python")) + "\n")
    print("| bare step | bare steps/s | `fit` steps/s | tax (median of pairs) | quartiles | measured |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\nThe host's own work in `fit`, with a step that does nothing: {host * 1e6:.0f} microseconds a step.")


if __name__ == "__main__":
    main()

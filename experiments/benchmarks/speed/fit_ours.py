"""Sides of jaxvision in the benchmark `fit`: the loop with all that a run writes, and the bare step."""

import atexit
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from experiments.benchmarks.speed import fit_data
from experiments.benchmarks.speed.contest import Work
from jaxvision import train
from jaxvision.nn.cnn import SmallCNN
from jaxvision.run.log import Mark
from jaxvision.run.logbook import Logbook
from jaxvision.tasks.classification import classification
from jaxvision.types import Batch, Labels

LOG_EVERY = 25
ALWAYS = 1_000_000
"""Steps of a run that goes on as long as it is asked to."""


class Case(NamedTuple):
    """A step, and where a run begins."""

    step: Callable
    state: train.TrainState
    batches: list[Batch]

    def fresh(self) -> tuple[train.TrainState, Iterator[Batch]]:
        """A state that may be donated, and the batches again and again."""
        return jax.block_until_ready(jax.tree.map(jnp.copy, self.state)), itertools.cycle(self.batches)

    def losses(self) -> list[float]:
        """Losses of the first steps."""
        (state, batches), found = self.fresh(), []
        for _ in range(fit_data.COMPARED):
            state, metrics = self.step(state, next(batches))
            found.append(float(metrics["loss"]))
        return found


def case(batch_size: int) -> Case:
    """The CNN and its batches."""
    network = SmallCNN(fit_data.CLASSES, channels=fit_data.CHANNELS, depth=1, dropout=0.0)
    task, optimizer = classification(network, mean=fit_data.MEAN, std=fit_data.STD), fit_data.optimizer()
    batches = [batch(*each) for each in fit_data.batches(batch_size)]
    start = lambda variables: {**variables, "params": fit_data.filled(variables["params"])}
    spec = jax.eval_shape(lambda: batches[0])
    state = train.init_state(task, optimizer, jax.random.key(0), spec, start=start)
    return Case(jax.jit(train.make_train_step(task, optimizer), donate_argnums=0), state, batches)


def batch(image: jax.Array, label: jax.Array) -> Batch:
    """A batch of whole images."""
    size, index = jnp.full((len(image), 2), fit_data.SIDE), jnp.arange(len(image))
    return Batch(image, size, size, index, index >= 0, Labels(label))


def bare(batch_size: int) -> Work:
    """The jitted step, again and again; the outcome is the first losses."""
    found = case(batch_size)
    state, batches = found.fresh()

    def run(units: int) -> None:
        nonlocal state
        for _ in range(units):
            state, _ = found.step(state, next(batches))
        jax.block_until_ready(state)

    return Work(run, found.losses)


def fit(batch_size: int) -> Work:
    """The training loop of a run; the outcome is the first losses."""
    found, open_ = case(batch_size), ExitStack()
    atexit.register(open_.close)
    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
    config = {"batch_size": batch_size}
    book = Logbook(folder, config, mark=Mark(), steps=ALWAYS, batch_size=batch_size, every=LOG_EVERY)
    nowhere = open_.enter_context(open(os.devnull, "w"))  # noqa: SIM115, closed at the end
    book.terminal.bar = tqdm(total=ALWAYS, file=nowhere, mininterval=0.2)  # as on a terminal, even where there is none
    open_.enter_context(book)
    nothing: Any = lambda *given: None
    hooks = train.Hooks(book.write, nothing, nothing, lambda history: False, lambda done: False, book.stepped)
    every = train.Every(log=LOG_EVERY, evaluate=0, checkpoint=0)
    step, (state, batches) = book.watched(found.step), found.fresh()
    progress, done = train.Progress(state), 0

    def run(units: int) -> None:
        nonlocal progress, done
        done += units
        progress = train.fit(step, progress, batches, steps=done, every=every, hooks=hooks, clock=book.clock)
        jax.block_until_ready(progress.state)

    return Work(run, found.losses)

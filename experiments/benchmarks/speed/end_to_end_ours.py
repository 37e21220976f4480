"""Sides of the benchmark `end_to_end`: the training loop on a stream of JPEG files, and its parts."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks.speed import loader_ours, photographs
from experiments.benchmarks.speed.contest import Work
from jaxvision import train
from jaxvision.augment.geometry import flip
from jaxvision.data import readers
from jaxvision.data.loading import spec
from jaxvision.nn import resnet
from jaxvision.run import devices
from jaxvision.run.log import Clock
from jaxvision.tasks.classification import classification
from jaxvision.types import Batch


def training(network: str, width: int, batch: int, side: int, count: int, part: str) -> Work:
    """A classifier of the two folders."""
    read = readers.threads()(loader_ours.plan(count, batch, side))
    dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
    made = getattr(resnet, network)(len(photographs.CLASSES), width=width, dtype=dtype)
    task, optimizer = classification(made, dtype=dtype), optax.sgd(1e-3, momentum=0.9, nesterov=True)
    place = devices.placer(devices.device_mesh())

    def batches(units: int) -> Iterator[Batch]:
        return devices.ahead(read(range(batch), 0, units), place)

    if part == "reader":
        return Work(lambda units: jax.block_until_ready(list(batches(units))[-1]))
    step = jax.jit(train.make_train_step(task, optimizer, augment=flip()), donate_argnums=0)
    state = train.init_state(task, optimizer, jax.random.key(0), spec(batch, (side, side), 3))
    (one,) = batches(1)

    def alone(units: int) -> None:
        fitted = jax.tree.map(jnp.copy, state)
        for _ in range(units):
            fitted, _ = step(fitted, one)
        jax.block_until_ready(fitted)

    def whole(units: int) -> None:
        fit(step, jax.tree.map(jnp.copy, state), batches(units), units)

    return Work(whole if part == "whole" else alone)


def fit(step: train.TrainStep, state: train.TrainState, batches: Iterator[Batch], steps: int) -> None:
    """The training loop, which logs every ten steps and does nothing else beside."""
    nothing: Any = lambda *given: None
    no: Any = lambda *given: False
    hooks = train.Hooks(nothing, nothing, nothing, no, no, nothing)
    every = train.Every(log=10, evaluate=0, checkpoint=0)
    done = train.fit(step, train.Progress(state), batches, steps=steps, every=every, hooks=hooks, clock=Clock())
    jax.block_until_ready(done.state)

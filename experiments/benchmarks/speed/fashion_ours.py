"""Side of jaxvision in the benchmark `fashion_gpu`: a resident stream, the task, and the one training step."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.speed import fashion_files
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.training_ours import gpu_bytes
from jaxvision import optimize
from jaxvision.augment.compose import chain
from jaxvision.augment.geometry import flip, pad_and_crop
from jaxvision.data import arrays, order, resident
from jaxvision.nn.resnet import resnet18
from jaxvision.tasks.classification import classification
from jaxvision.train import init_state, make_train_step
from jaxvision.types import Stream


def training(
    folder: str, width: int, batch: int, epochs: int, goal: float, dtype: str, images: int | None = None
) -> Work:
    """Trainings until the goal is reached, each with a seed of its own."""
    network = resnet18(10, width=width, stem="cifar", dtype=jnp.dtype(dtype))
    task = classification(
        network,
        mean=fashion_files.MEAN,
        std=fashion_files.STD,
        label_smoothing=fashion_files.SMOOTHING,
        dtype=jnp.dtype(dtype),
    )
    train, test = stream(folder, "train", batch, images), stream(folder, "t10k", 1000, images)
    a_epoch = max(len(fashion_files.read(folder, "train", images).labels) // batch, 1)
    steps = epochs * a_epoch
    rise = max(steps // 5, 1)
    highest = batch * fashion_files.RATE
    up, down = optax.linear_schedule(0, highest, rise), optax.linear_schedule(highest, 0, steps - rise)
    sgd = optax.chain(
        optax.add_decayed_weights(fashion_files.DECAY, mask=optimize.kernels),
        optax.sgd(optax.join_schedules([up, down], [rise]), 0.9, nesterov=True),
    )
    step = jax.jit(
        make_train_step(task, sgd, augment=chain(flip(), pad_and_crop(fashion_files.SHIFT))), donate_argnums=0
    )
    start = jax.jit(partial(init_state, task, sgd, spec=train.spec))
    correct = jax.jit(lambda v, b: ((task.predict(v, b).logits.argmax(-1) == b.target.label) & b.valid).sum())
    seeds = itertools.count()

    def once() -> None:
        state = start(jax.random.key(next(seeds)))
        batches = train.batches(0)
        reached = 0.0
        for _ in range(epochs):
            for given in itertools.islice(batches, a_epoch):
                state, _ = step(state, given)
            found = [(correct(state.current, given), given.valid.sum()) for given in test.batches(0)]
            right, count = np.sum(jax.device_get(found), 0)
            if (reached := right / count) >= goal:
                return
        raise RuntimeError(f"{reached:.2%} after {epochs} epochs, not {goal:.0%}")

    def run(units: int) -> None:
        for _ in range(units):
            once()

    return Work(run, device_bytes=gpu_bytes if jax.default_backend() == "gpu" else None)


def stream(folder: str, split: str, batch: int, images: int | None) -> Stream:
    """Batches that lie on the device."""
    given = fashion_files.read(folder, split, images)
    opened = lambda: arrays.source(given.images, given.labels, None, name=split)
    if split == "train":
        return resident.training(opened, order=order.shuffled(0), canvas=28, batch_size=batch, channels=1)
    return resident.evaluation(opened, canvas=28, batch_size=batch, channels=1)

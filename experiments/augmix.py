"""The quickstart trained with AugMix (arXiv:1912.02781) or without, to be compared on corrupted images.

    python -m jaxvision.main --config=experiments/augmix.py --workdir=runs/augmix0
    python -m jaxvision.main --config=experiments/augmix.py --workdir=runs/plain0 --config.augmix=False
    python -m jaxvision.robustness --workdir=runs/augmix0 --against=runs/plain0

Likewise with the seeds 1 and 2 (`--config.seed=1`). Chains of operations that are none of the corruptions are mixed with each
training image; the consistency loss of the paper is not part of it. Expected: a smaller mean error under corruption for a
slightly larger one on clean images; not measured by us with this file. Training takes about 100 s on 2 CPU cores, as the
quickstart's does.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.compose import chain
from jaxvision.augment.geometry import flip
from jaxvision.augment.policy import augmix
from jaxvision.data import idx, order, placement, samples, streams
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import SmallCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, exponential_average, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "augmix": True,
            "severity": 3.0,
            "batch_size": 128,
            "epochs": 8,
            "channels": (16, 32, 64),
            "dropout": 0.4,
            "learning_rate": 6e-3,
            "weight_decay": 0.02,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 25, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    size, classes, train_examples = 28, 10, 10_000
    dtype = jnp.dtype(config.precision)
    network = SmallCNN(classes, channels=config.channels, dropout=config.dropout, dtype=dtype)
    options = {"placer": placement.letterbox(size), "batch_size": config.batch_size, "channels": 1}
    train = streams.training(lambda: data("train"), order=order.shuffled(config.seed), **options)
    test = streams.evaluation(lambda: data("test"), **options)
    steps = config.epochs * train_examples // config.batch_size
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 10, steps)
    return Experiment(
        task=classification(network, mean=73.0, std=90.0, dtype=dtype),
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels),
        steps=steps,
        train=train,
        augment=chain(flip(), augmix(config.severity)) if config.augmix else flip(),
        evaluations={"test": Evaluation(test, metrics(idx.FASHION_MNIST), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(steps, 5)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )


def data(split: str):
    return idx.source(samples.fashion_mnist_dir(), split, idx.FASHION_MNIST)

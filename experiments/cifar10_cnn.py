"""The network of the classic CIFAR-10 tutorial: two 5x5 convolutions of 6 and 16 channels, dense layers of 120, 84 and 10.

    python -m jaxvision.main --config=experiments/cifar10_cnn.py --workdir=runs/cifar10_cnn

The data must be prepared by TFDS as array_record; a run without it prints the command.
Expected: 60-65 % test accuracy, what a network of this size is known to reach without augmentation; not measured by us yet.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import TutorialCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "batch_size": 32,
            "epochs": 10,
            "learning_rate": 0.01,
            "momentum": 0.9,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    size, classes, train_examples = 32, 10, 50_000
    dtype = jnp.dtype(config.precision)
    network = TutorialCNN(classes, dtype=dtype)
    options = {"placer": placement.letterbox(size), "batch_size": config.batch_size}

    def data(split: str):
        return tfds.source("cifar10", split, config.data_dir)

    train = streams.training(lambda: data("train"), order=order.shuffled(config.seed), **options)
    test = streams.evaluation(lambda: data("test"), **options)
    steps = config.epochs * train_examples // config.batch_size
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    return Experiment(
        task=classification(network, mean=127.5, std=127.5, dtype=dtype),
        optimizer=optax.sgd(schedule, momentum=config.momentum),
        steps=steps,
        train=train,
        evaluations={"test": Evaluation(test, metrics(classes), pictures.report)},
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(steps, 10)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

"""The smallest run with all that a workdir keeps, a module of its own among it; not a test itself."""

import numpy as np
import optax
from linear_network import Linear
from ml_collections import ConfigDict

from jaxvision.data import arrays, order
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.tasks.classification import classification
from jaxvision.train import Every


def get_config() -> ConfigDict:
    return ConfigDict({"seed": 0, "steps": 6, "learning_rate": 0.125, "precision": "float32"})


def source():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)
    return arrays.source(pixels, np.arange(8) % 2, ("even1", "odd2"))


def build(config) -> Experiment:
    options = {"canvas": 4, "batch_size": 4, "channels": 1}
    return Experiment(
        task=classification(Linear(2), mean=127.0, std=64.0),
        optimizer=optax.sgd(config.learning_rate),
        steps=config.steps,
        train=arrays.training(source, order=order.shuffled(config.seed), **options),
        evaluations={"test": Evaluation(arrays.evaluation(source, **options), metrics(2))},
        seed=config.seed,
        every=Every(log=1, evaluate=2, checkpoint=2),
        keep=Keep(latest=3, best=1, by="test/accuracy"),
    )

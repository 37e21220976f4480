"""A small convolutional network with averaged weights on 16 images of 8 px; not a test itself."""

import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision.data import arrays, order
from jaxvision.experiment import Evaluation, Experiment
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import SmallCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, exponential_average


def get_config() -> ConfigDict:
    return ConfigDict({"seed": 0, "steps": 6, "precision": "float32"})


def source():
    pixels = np.random.default_rng(0).integers(0, 120, (16, 8, 8, 1), dtype=np.uint8)
    pixels[1::2, :4] += 100
    return arrays.source(pixels, np.arange(16) % 2, ("dark", "bright"))


def build(config) -> Experiment:
    options = {"canvas": 8, "batch_size": 8, "channels": 1}
    return Experiment(
        task=classification(SmallCNN(2, (4, 6), depth=1, dropout=0.0), mean=127.0, std=64.0),
        optimizer=optax.adam(1e-2),
        steps=config.steps,
        train=arrays.training(source, order=order.shuffled(config.seed), **options),
        evaluations={"test": Evaluation(arrays.evaluation(source, **options), metrics(2))},
        average=exponential_average(0.5),
        seed=config.seed,
        every=Every(log=1, evaluate=0, checkpoint=0),
    )

"""A run on fresh noise, whose loss soon stops falling: for the tests of plateaus and early stopping. Not a test itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision.data import arrays, order
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.optimize import stopping
from jaxvision.tasks.classification import classification
from jaxvision.train import Every


def get_config() -> ConfigDict:
    return ConfigDict({"steps": 200, "log": 1, "evaluate": 3, "checkpoint": 2, "batch_size": 8, "precision": "auto"})


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3, kernel_init=nn.initializers.normal(1.0))(x.reshape(x.shape[0], -1))


def noise(seed: int):
    rng = np.random.default_rng(seed)
    return arrays.source(rng.integers(0, 256, (24, 4, 4), dtype=np.uint8), rng.integers(0, 3, 24), "abc")


def build(config) -> Experiment:
    options = {"canvas": 4, "batch_size": config.batch_size, "channels": 1}
    test = arrays.evaluation(lambda: noise(1), **options)
    return Experiment(
        task=classification(Linear(), mean=128.0, std=74.0, dtype=jnp.dtype(config.precision)),
        optimizer=optax.chain(
            optax.sgd(0.5),
            optax.contrib.reduce_on_plateau(factor=0.5, patience=2, accumulation_size=2),
        ),
        steps=config.steps,
        augment=lambda key, step, batch: batch.replace(image=jax.random.uniform(key, batch.image.shape, maxval=256.0)),
        train=arrays.training(lambda: noise(0), order=order.shuffled(0), **options),
        evaluations={"test": Evaluation(test, metrics(3))},
        stop=stopping.early("test/log_loss", 3, better="lower", min_delta=0.01),
        every=Every(log=config.log, evaluate=config.evaluate, checkpoint=config.checkpoint),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

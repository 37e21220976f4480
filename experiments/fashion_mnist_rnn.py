"""An LSTM or GRU that reads the rows (or patches) of Fashion-MNIST: 60,000 training and 10,000 test images.

    python -m jaxvision.main --config=experiments/fashion_mnist_rnn.py --workdir=runs/fashion_mnist_rnn

--config.cell=gru for the other cell, --config.patch=4 for patches. The data come from TFDS, prepared as array_record; or
from the four `*-ubyte.gz` files of the original (Debian's package dataset-fashion-mnist has them):
--config.idx_dir=/usr/share/datasets/fashion-mnist.
"""

import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision.data import idx, order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.rnn import RNNClassifier
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, exponential_average, intervals

CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "idx_dir": "",
            "cell": "lstm",
            "patch": 0,
            "hidden": 128,
            "layers": 2,
            "batch_size": 128,
            "epochs": 10,
            "learning_rate": 2e-3,
            "clip": 1.0,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    size, classes, train_examples = 28, 10, 60_000
    if config.cell not in CELLS:
        raise ValueError(f"cell is {config.cell!r}; allowed: {', '.join(CELLS)}")
    dtype = jnp.dtype(config.precision)
    network = RNNClassifier(
        classes, CELLS[config.cell], config.hidden, config.layers, config.patch or None, dtype=dtype
    )
    options = {"placer": placement.letterbox(size), "batch_size": config.batch_size, "channels": 1}

    def data(split: str):
        if config.idx_dir:
            return idx.source(config.idx_dir, split, idx.FASHION_MNIST)
        return tfds.source("fashion_mnist", split, config.data_dir)

    train = streams.training(lambda: data("train"), order=order.shuffled(config.seed), **options)
    test = streams.evaluation(lambda: data("test"), **options)
    steps = config.epochs * train_examples // config.batch_size
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 20, steps)
    return Experiment(
        task=classification(network, mean=73.0, std=90.0, dtype=dtype),
        optimizer=optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(schedule)),
        steps=steps,
        train=train,
        evaluations={"test": Evaluation(test, metrics(idx.FASHION_MNIST), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(steps, 10)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

"""Two convolutions on the whole of Fashion-MNIST: 60,000 training and 10,000 test images.

    python -m jaxvision.main --config=experiments/fashion_mnist_cnn.py --workdir=runs/fashion_mnist_cnn

The network of TensorFlow's MNIST tutorial: 5x5 convolutions of 32 and 64 channels with pooling, a dense layer of 1024
with dropout. The data come from TFDS, prepared as array_record; or from the four `*-ubyte.gz` files of the original
(Debian's package dataset-fashion-mnist has them): --config.idx_dir=/usr/share/datasets/fashion-mnist. Expected: 91.6 % test
accuracy, which the dataset's README reports for this network; measured 92.9 % (seed 0, 4,687 steps on 2 CPU cores, about
17 minutes of processor time, 2026-11-21, JAX 0.10.2).
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.augment import flip
from jaxvision.data import idx, order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import FolderCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, exponential_average, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "idx_dir": "",
            "batch_size": 128,
            "epochs": 10,
            "learning_rate": 1e-3,
            "dropout": 0.4,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    size, classes, train_examples = 28, 10, 60_000
    dtype = jnp.dtype(config.precision)
    network = FolderCNN(classes, channels=(32, 64), kernel=5, padding=2, dropout=config.dropout, dtype=dtype)
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
        optimizer=optax.adam(schedule),
        steps=steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, metrics(idx.FASHION_MNIST), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(steps, 10)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

"""ResNet-18 in CIFAR form on CIFAR-10: flip, shifted crops, cosine decay, averaged weights.

    python -m jaxvision.main --config=experiments/cifar10_resnet18.py --workdir=runs/cifar10_resnet18

The data must be prepared by TFDS as array_record; a run without it prints the command.
Expected: about 95 % test accuracy, what this network and recipe are known to reach; not measured by us yet.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.compose import chain
from jaxvision.augment.geometry import flip, pad_and_crop
from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.resnet import resnet18
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, exponential_average, intervals

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "batch_size": 128,
            "epochs": 50,
            "width": 64,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "ema": 0.999,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    size, classes, train_examples = 32, 10, 50_000
    dtype = jnp.dtype(config.precision)
    network = resnet18(classes, width=config.width, stem="cifar", dtype=dtype)
    options = {"placer": placement.letterbox(size), "batch_size": config.batch_size}

    def data(split: str):
        return tfds.source("cifar10", split, config.data_dir)

    train = streams.training(lambda: data("train"), order=order.shuffled(config.seed), **options)
    test = streams.evaluation(lambda: data("test"), **options)
    steps = config.epochs * train_examples // config.batch_size
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 20, steps)
    return Experiment(
        task=classification(network, mean=MEAN, std=STD, dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=optimize.kernels),
            optax.sgd(schedule, momentum=0.9, nesterov=True),
        ),
        steps=steps,
        train=train,
        augment=chain(flip(), pad_and_crop(4)),
        evaluations={"test": Evaluation(test, metrics(classes), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(steps, 10)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

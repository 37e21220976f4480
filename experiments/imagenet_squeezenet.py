"""SqueezeNet 1.1 on ImageNet, by the published solver: SGD with a rate that falls to nothing in a straight line.

    python -m jaxvision.main --config=experiments/imagenet_squeezenet.py --workdir=runs/imagenet_squeezenet

The data must be prepared by TFDS as array_record (imagenet2012 asks for the two tar files of the challenge).
Unlike the authors', which Caffe takes anywhere from images stretched to 256 pixels, crops of 227 pixels have random sizes
and shapes, as torchvision's have; pixels are divided by ImageNet's standard deviation. Expected: 58.2 % top-1 on the 50,000
validation images, what torchvision reports for it, and 80.3 % top-5, what the authors do; not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.augment import flip
from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.squeezenet import squeezenet1_1
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "image_size": 227,
            "batch_size": 512,
            "steps": 170_000,
            "learning_rate": 0.04,
            "weight_decay": 2e-4,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    classes, train_examples = 1000, 1_281_167
    dtype = jnp.dtype(config.precision)
    steps_per_epoch = train_examples // config.batch_size
    schedule = optax.linear_schedule(config.learning_rate, 0.0, config.steps)

    def data(split: str):
        return tfds.source("imagenet2012", split, config.data_dir)

    train = streams.training(
        lambda: data("train"),
        order=order.shuffled(config.seed),
        placer=placement.random_resized_crop(config.image_size),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    validation = streams.evaluation(
        lambda: data("validation"),
        placer=placement.resize_and_centre_crop(config.image_size * 256 // 227, config.image_size),
        batch_size=config.batch_size,
    )
    return Experiment(
        task=classification(squeezenet1_1(classes, dtype=dtype), dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay),
            optax.sgd(schedule, momentum=0.9),
        ),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"validation": Evaluation(validation, metrics(classes), pictures.report)},
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=steps_per_epoch * 5, checkpoint=steps_per_epoch)),
        keep=Keep(latest=2, best=1, by="validation/accuracy"),
    )

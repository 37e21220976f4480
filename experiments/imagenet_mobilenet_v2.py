"""MobileNetV2 on ImageNet, by the recipe of torchvision: SGD, the rate times 0.98 after every epoch.

    python -m jaxvision.main --config=experiments/imagenet_mobilenet_v2.py --workdir=runs/imagenet_mobilenet_v2

The data must be prepared by TFDS as array_record (imagenet2012 asks for the two tar files of the challenge).
Expected: 71.9 % top-1 on the 50,000 validation images, what torchvision reports for it; not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.augment import flip
from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.mobilenet import mobilenet_v2
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "image_size": 224,
            "batch_size": 256,
            "epochs": 300,
            "learning_rate": 0.045,
            "weight_decay": 4e-5,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    classes, train_examples = 1000, 1_281_167
    dtype = jnp.dtype(config.precision)
    steps_per_epoch = train_examples // config.batch_size
    steps = config.epochs * steps_per_epoch
    schedule = optax.exponential_decay(config.learning_rate, steps_per_epoch, 0.98, staircase=True)

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
        placer=placement.resize_and_centre_crop(config.image_size * 8 // 7, config.image_size),
        batch_size=config.batch_size,
    )
    return Experiment(
        task=classification(mobilenet_v2(classes, dtype=dtype), dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay),
            optax.sgd(schedule, momentum=0.9),
        ),
        steps=steps,
        train=train,
        augment=flip(),
        evaluations={"validation": Evaluation(validation, metrics(classes), pictures.report)},
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=steps_per_epoch * 5, checkpoint=steps_per_epoch)),
        keep=Keep(latest=2, best=1, by="validation/accuracy"),
    )

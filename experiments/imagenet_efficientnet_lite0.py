"""EfficientNet-Lite0 on ImageNet, by the recipe of EfficientNet (arXiv:1905.11946): RMSprop, averaged weights.

    python -m jaxvision.main --config=experiments/imagenet_efficientnet_lite0.py --workdir=runs/imagenet_efficientnet_lite0

The data must be prepared by TFDS as array_record (imagenet2012 asks for the two tar files of the challenge).
The rate warms up for 5 epochs and falls by 3 % every 2.4, of which the first count too. Constants are those of the
authors' code, with AutoAugment; its survival probability, 1 of the first block and 0.8 of the one after the last, is
`stochastic_depth` here. Expected: 75.1 % top-1 on the 50,000 validation images, what the authors report for Lite0; not
measured by us.
"""

from functools import partial

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import autoaugment, chain, flip
from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.efficientnet import tf_efficientnet_lite0
from jaxvision.nn.mobilenet import tensorflow_norm
from jaxvision.pretrained.preprocessing import EFFICIENTNET_LITE
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, exponential_average, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "image_size": 224,
            "batch_size": 2048,
            "epochs": 350,
            "warmup_epochs": 5,
            "learning_rate_per_256": 0.016,
            "weight_decay": 1e-5,
            "label_smoothing": 0.1,
            "stochastic_depth": 0.2 * 15 / 16,
            "norm_momentum": 0.99,
            "ema": 0.9999,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    classes, train_examples = 1000, 1_281_167
    dtype = jnp.dtype(config.precision)
    steps_per_epoch = train_examples // config.batch_size
    steps = config.epochs * steps_per_epoch
    peak = config.learning_rate_per_256 * config.batch_size / 256
    decay = optax.exponential_decay(peak, int(2.4 * steps_per_epoch), 0.97, staircase=True)
    warmup = config.warmup_epochs * steps_per_epoch
    rising = optax.linear_schedule(0.0, peak, warmup)
    schedule = lambda step: jnp.where(step < warmup, rising(step), decay(step))
    norm = partial(tensorflow_norm, momentum=config.norm_momentum)
    network = tf_efficientnet_lite0(classes, norm=norm, stochastic_depth=config.stochastic_depth, dtype=dtype)
    prepared = EFFICIENTNET_LITE

    def data(split: str):
        return tfds.source("imagenet2012", split, config.data_dir)

    train = streams.training(
        lambda: data("train"),
        order=order.shuffled(config.seed),
        placer=placement.random_resized_crop(config.image_size, interpolation=prepared.interpolation),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    validation = streams.evaluation(
        lambda: data("validation"),
        placer=prepared.placer(config.image_size),
        batch_size=config.batch_size,
    )
    return Experiment(
        task=classification(
            network, mean=prepared.mean, std=prepared.std, label_smoothing=config.label_smoothing, dtype=dtype
        ),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=optimize.matching(".*kernel", "head/bias")),
            optax.rmsprop(schedule, decay=0.9, eps=1e-3, initial_scale=1.0, momentum=0.9),
        ),
        steps=steps,
        train=train,
        augment=chain(flip(), autoaugment()),
        evaluations={"validation": Evaluation(validation, metrics(classes), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=steps_per_epoch * 5, checkpoint=steps_per_epoch)),
        keep=Keep(latest=2, best=1, by="validation/accuracy"),
    )

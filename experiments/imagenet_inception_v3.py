"""Inception v3 on ImageNet at 299 pixels, by the recipe of the paper (arXiv:1512.00567): RMSprop, label smoothing.

    python -m jaxvision.main --config=experiments/imagenet_inception_v3.py --workdir=runs/imagenet_inception_v3

The data must be prepared by TFDS as array_record (imagenet2012 asks for the two tar files of the challenge).
The rate falls by 6 % every two epochs, gradients are clipped, the auxiliary head counts 0.4 (0: none), and the averaged
weights are evaluated. The paper's 50 replicas of 32 images are one batch of 1600 here. Crops, colours and the momentum of
the normalisation are those of the code (tensorflow/models, research/inception); unlike here, that crops by the boxes of
objects where there are some, resizes in four ways, and half the time changes contrast earlier. Expected: 77.3 % top-1 on
the 50,000 validation images, what torchvision reports for the published weights; not measured by us.
"""

from functools import partial

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import chain, contrast, flip, hue, offset, saturation
from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.inception import InceptionV3, tensorflow_norm
from jaxvision.pretrained.preprocessing import INCEPTION
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, exponential_average, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "image_size": 299,
            "batch_size": 1600,
            "epochs": 100,
            "learning_rate": 0.045,
            "clip": 2.0,
            "weight_decay": 4e-5,
            "label_smoothing": 0.1,
            "auxiliary": 0.4,
            "norm_momentum": 0.9997,
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
    schedule = optax.exponential_decay(config.learning_rate, 2 * steps_per_epoch, 0.94, staircase=True)
    norm = partial(tensorflow_norm, momentum=config.norm_momentum)
    network = InceptionV3(classes, auxiliary=config.auxiliary > 0, norm=norm, dtype=dtype)

    def data(split: str):
        return tfds.source("imagenet2012", split, config.data_dir)

    train = streams.training(
        lambda: data("train"),
        order=order.shuffled(config.seed),
        placer=placement.random_resized_crop(config.image_size, area=(0.05, 1.0)),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    validation = streams.evaluation(
        lambda: data("validation"),
        placer=placement.resize_and_centre_crop(config.image_size * 8 // 7, config.image_size),
        batch_size=config.batch_size,
    )
    return Experiment(
        task=classification(
            network,
            mean=INCEPTION.mean,
            std=INCEPTION.std,
            label_smoothing=config.label_smoothing,
            auxiliary=config.auxiliary or None,
            dtype=dtype,
        ),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=optimize.kernels),
            optax.clip_by_global_norm(config.clip),
            optax.rmsprop(schedule, decay=0.9, eps=1.0, initial_scale=1.0, momentum=0.9),
        ),
        steps=steps,
        train=train,
        augment=chain(flip(), offset(32), saturation(0.5), hue(0.2), contrast(0.5)),
        evaluations={"validation": Evaluation(validation, metrics(classes), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=steps_per_epoch * 5, checkpoint=steps_per_epoch)),
        keep=Keep(latest=2, best=1, by="validation/accuracy"),
    )

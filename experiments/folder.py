"""ResNet-18 on your own images: one folder a class, `<class>/*.jpg` (also PNG, WebP, BMP, GIF, TIFF, PPM).

    python -m jaxvision.main --config=experiments/folder.py --workdir=runs/folder --config.train_dir=my_images/train \
        --config.test_dir=my_images/test

Without --config.test_dir a fifth of every class is held out. `--config.on_bad_image=skip` reports an unreadable image and
goes on without it; `--config.balanced=true` shows every class equally often; `--config.fingerprint=full` notices images
that were overwritten by others of the same size, and reads all of them at every start. It trains from scratch for 1000
steps at 128 pixels; on a CPU begin smaller: `--config.image_size=64 --config.width=16 --config.steps=200`. Time and
accuracy depend on the images: not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.geometry import flip
from jaxvision.data import folder, order, placement, streams
from jaxvision.data.subset import train_and_test
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.resnet import resnet18
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, exponential_average, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "train_dir": "train_data",
            "test_dir": "",
            "classes": (),
            "held_out": 0.2,
            "on_bad_image": "raise",
            "fingerprint": "quick",
            "balanced": False,
            "image_size": 128,
            "batch_size": 32,
            "steps": 1000,
            "width": 64,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 20, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    if not config.classes:  # kept in config.json: to predict later takes no training images
        with config.unlocked():
            config.classes = folder.classes(config.train_dir)
    classes = config.classes
    dtype = jnp.dtype(config.precision)
    network = resnet18(len(classes), width=config.width, dtype=dtype)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 20, config.steps)
    size, options = config.image_size, {"batch_size": config.batch_size, "on_bad_image": config.on_bad_image}

    train_data, test_data = train_and_test(
        lambda: folder.source(config.train_dir),
        (lambda: folder.source(config.test_dir, classes)) if config.test_dir else None,
        config.held_out,
        config.seed,
        classes,
        config.fingerprint,
    )
    train = streams.training(
        train_data,
        order=order.balanced(config.seed) if config.balanced else order.shuffled(config.seed),
        placer=placement.random_resized_crop(size, area=(0.25, 1.0)),
        seed=config.seed,
        **options,
    )
    test = streams.evaluation(test_data, placer=placement.resize_and_centre_crop(size * 8 // 7, size), **options)
    return Experiment(
        task=classification(network, dtype=dtype),
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, metrics(classes), pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 10)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

"""A small network from scratch on your own photos, 150x150 pixels: one folder a class, `<class>/*.jpg`.

    python -m jaxvision.main --config=experiments/folder_cnn.py --workdir=runs/folder_cnn --config.train_dir=my_images/train \
        --config.test_dir=my_images/test

Convolutions of 32, 64 and 128 channels, a dense layer of 1024 and dropout, trained with RMSprop; images are turned by up to
40 degrees, shifted, sheared and zoomed by up to a fifth and mirrored, and the border fills what comes in. Without
--config.test_dir a fifth of every class is held out. Expected: about 82 % on cats against dogs with 1,000 training images a
class, what networks of this kind are known to reach; not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.augment import affine, chain, flip
from jaxvision.data import folder, order, placement, streams
from jaxvision.data.subset import train_and_test
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import FolderCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, intervals


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
            "image_size": 150,
            "batch_size": 32,
            "steps": 6000,
            "channels": (32, 64, 128),
            "hidden": 1024,
            "dropout": 0.5,
            "rotation": 40.0,
            "shift": 0.2,
            "shear": 0.2,
            "zoom": 0.2,
            "learning_rate": 1e-4,
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
    network = FolderCNN(len(classes), config.channels, hidden=config.hidden, dropout=config.dropout, dtype=dtype)

    train_data, test_data = train_and_test(
        lambda: folder.source(config.train_dir),
        (lambda: folder.source(config.test_dir, classes)) if config.test_dir else None,
        config.held_out,
        config.seed,
        classes,
        config.fingerprint,
    )
    options = {
        "placer": placement.stretch(config.image_size),
        "batch_size": config.batch_size,
        "on_bad_image": config.on_bad_image,
    }
    train = streams.training(train_data, order=order.shuffled(config.seed), **options)
    test = streams.evaluation(test_data, **options)
    return Experiment(
        task=classification(network, mean=0.0, std=255.0, dtype=dtype),
        optimizer=optax.rmsprop(config.learning_rate),
        steps=config.steps,
        train=train,
        augment=chain(
            flip(),
            affine(
                rotation=config.rotation,
                shift=config.shift,
                shear=config.shear,
                zoom=config.zoom,
                fill="nearest",
            ),
        ),
        evaluations={"test": Evaluation(test, metrics(classes), pictures.report)},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 10)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

"""A small experiment with all that a run can have; the tests of whole runs use it. Not a test itself."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.compose import chain
from jaxvision.augment.geometry import flip, pad_and_crop
from jaxvision.data import arrays, folder, idx, order, placement, resident, samples, streams, tfds
from jaxvision.data.source import concatenate
from jaxvision.data.subset import subset
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import SmallCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, exponential_average


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "source": "arrays",
            "data_dir": "",
            "test_dir": "",
            "classes": 10,
            "test_examples": 0,
            "size": 28,
            "channels": 1,
            "batch_size": 16,
            "steps": 20,
            "log": 5,
            "evaluate": 10,
            "checkpoint": 5,
            "keep_latest": 2,
            "keep_by": "test/accuracy",
            "network": {"channels": (4, 8), "depth": 1, "dropout": 0.3},
            "learning_rate": 3e-3,
            "blow_up_at": -1,
            "nonfinite": "stop",
            "on_bad_image": "raise",
            "order": "balanced",
            "report": False,
            "precision": "auto",
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    network = SmallCNN(config.classes, dtype=dtype, **config.network)
    train, test = STREAMS[config.source](config)
    return Experiment(
        task=classification(network, mean=73.0, std=90.0, dtype=dtype),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(config.learning_rate, weight_decay=0.01, mask=optimize.kernels),
        ),
        steps=config.steps,
        train=train,
        augment=chain(flip(), pad_and_crop(2), blow_up(config.blow_up_at)),
        evaluations={"test": Evaluation(test, metrics(config.classes), pictures.report if config.report else None)},
        average=exponential_average(0.9),
        seed=config.seed,
        every=Every(log=config.log, evaluate=config.evaluate, checkpoint=config.checkpoint),
        keep=Keep(latest=config.keep_latest, best=1, by=config.keep_by),
        nonfinite=config.nonfinite,
    )


def blow_up(at: int):
    """An augmentation that spoils the third image of one step."""

    def augment(key, step, batch):
        if at < 0:
            return batch
        image = batch.image.astype(jnp.float32)
        spoilt = (jnp.arange(image.shape[0]) == 2) & (step == at)
        return batch.replace(image=jnp.where(spoilt[:, None, None, None], jnp.nan, image))

    return augment


@functools.cache
def uneven(split: str, by_tfds: bool = False):
    """A small, imbalanced part of the bundled Fashion-MNIST sample: class k has 20 - k training examples."""
    source = fashion_mnist(split, by_tfds)
    labels = source.labels()
    per_class = [20 - k if split == "train" else 7 for k in range(10)]
    return subset(source, np.concatenate([np.flatnonzero(labels == k)[:n] for k, n in enumerate(per_class)]))


def fashion_mnist(split: str, by_tfds: bool = False):
    if by_tfds:
        return tfds.directory(samples.fashion_mnist_tfds_dir(), split)
    return idx.source(samples.fashion_mnist_dir(), split, idx.FASHION_MNIST)


@functools.cache
def in_memory(split: str, examples: int = 0):
    """The uneven part of the sample, or its first `examples`."""
    from jaxvision.data.decode import decode

    source = uneven(split)
    if examples:
        source = subset(fashion_mnist(split), np.arange(examples))
    placer = placement.keep(28)
    images = [decode(example.image, placer, None, channels=1)[0] for example in source.read(np.arange(source.length))]
    return arrays.source(np.stack(images), source.labels(), source.classes)


def chosen_order(config):
    if config.order == "mixture":
        return order.mixture([0.7, 0.3], [order.shuffled(config.seed), order.balanced(config.seed)], config.seed)
    return {"balanced": order.balanced, "shuffled": order.shuffled}[config.order](config.seed)


def tfds_streams(config):
    def train():
        source = uneven("train", by_tfds=True)
        return concatenate(source, source) if config.order == "mixture" else source

    options = {"placer": placement.keep(config.size), "batch_size": config.batch_size, "channels": config.channels}
    return (
        streams.training(train, order=chosen_order(config), seed=config.seed, **options),
        streams.evaluation(lambda: uneven("test", by_tfds=True), **options),
    )


def folder_streams(config):
    size = config.size
    options = {"batch_size": config.batch_size, "channels": config.channels, "on_bad_image": config.on_bad_image}
    place = placement.random_resized_crop(size, area=(0.5, 1.0))
    return (
        streams.training(
            lambda: folder.source(config.data_dir),
            order=chosen_order(config),
            placer=place,
            seed=config.seed,
            **options,
        ),
        streams.evaluation(
            lambda: folder.source(config.test_dir or config.data_dir), placer=placement.stretch(size), **options
        ),
    )


def memory_streams(room):
    def streams(config):
        options = {"canvas": config.size, "batch_size": config.batch_size, "channels": config.channels}
        return (
            room.training(lambda: in_memory("train"), order=chosen_order(config), **options),
            room.evaluation(lambda: in_memory("test", config.test_examples), **options),
        )

    return streams


STREAMS = {
    "tfds": tfds_streams,
    "folder": folder_streams,
    "arrays": memory_streams(arrays),
    "resident": memory_streams(resident),
}

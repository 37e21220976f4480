"""An MLP, a small CNN and a small ViT on the bundled sample of Fashion-MNIST: the members of `together.py`."""

from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.geometry import flip
from jaxvision.data import idx, order, resident, samples
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.cnn import SmallCNN
from jaxvision.nn.norm import BatchNorm
from jaxvision.nn.vit import ViT
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, exponential_average, ramped


class MLP(nn.Module):
    """Dense layers, each with BatchNorm, ReLU and dropout, and a head."""

    classes: int
    hidden: tuple[int, ...]
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, images, *, train: bool):
        """Logits of normalised images."""
        x = images.reshape(images.shape[0], -1)
        for width in self.hidden:
            x = nn.Dense(width, use_bias=False, dtype=self.dtype, param_dtype=self.dtype)(x)
            x = BatchNorm(dtype=self.dtype)(x, use_running_average=not train)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.classes, dtype=self.dtype, param_dtype=self.dtype)(x)


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "network": "cnn",
            "size": 1.0,
            "batch_size": 32,
            "steps": 300,
            "dropout": 0.3,
            "learning_rate": 2e-3,
            "weight_decay": 0.02,
            "ema": 0.99,
            "precision": "float32",
        }
    )


def build(config) -> Experiment:
    if config.network not in NETWORKS:
        raise ValueError(f"no network {config.network!r}; allowed: {', '.join(NETWORKS)}")
    dtype, classes = jnp.dtype(config.precision), 10
    network = NETWORKS[config.network](classes, lambda width: max(2, round(width * config.size)), config.dropout, dtype)
    rates = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 10, config.steps)
    # By floating-point steps: a quotient of integers is a float32, which programs may round otherwise.
    schedule = lambda step: rates(jnp.asarray(step, dtype))
    decay = lambda step: ramped(config.ema)(jnp.asarray(step, dtype))
    options = {"canvas": 28, "batch_size": config.batch_size, "channels": 1}
    train = resident.training(lambda: data("train"), order=order.shuffled(config.seed), **options)
    test = resident.evaluation(lambda: data("test"), **options)
    return Experiment(
        task=classification(network, mean=73.0, std=90.0, dtype=dtype),
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, metrics(idx.FASHION_MNIST))},
        average=exponential_average(decay),
        seed=config.seed,
        every=Every(log=25, evaluate=0, checkpoint=0),
        keep=Keep(latest=1),
    )


def data(split: str):
    return idx.source(samples.fashion_mnist_dir(), split, idx.FASHION_MNIST)


def mlp(classes, scaled, dropout, dtype):
    return MLP(classes, (scaled(64), scaled(64)), dropout, dtype)


def cnn(classes, scaled, dropout, dtype):
    return SmallCNN(classes, channels=(scaled(8), scaled(16)), depth=1, dropout=dropout, dtype=dtype)


def vit(classes, scaled, dropout, dtype):
    """ViT has no dropout but that of whole branches."""
    options = {"width": 4 * scaled(8), "depth": 2, "heads": 2, "stochastic_depth": dropout, "dtype": dtype}
    return ViT(patch=7, classes=classes, **options)


NETWORKS = {"mlp": mlp, "cnn": cnn, "vit": vit}

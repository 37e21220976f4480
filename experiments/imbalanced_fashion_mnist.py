"""A small convolutional network on a long-tailed part of the bundled Fashion-MNIST sample, with one remedy for imbalance.

    python -m jaxvision.main --config=experiments/imbalanced_fashion_mnist.py --workdir=runs/imbalanced_fashion_mnist \
        --config.remedy=logit_adjustment

Remedies: none, inverse_frequency, effective_number, oversampling, square_root, focal, focal_balanced, logit_adjustment,
prior_correction, thresholds. Training examples of the ten classes, in their order: 700, 419, 251, 150, 90, 54, 32, 19, 11
and 7, 1,733 in all (ratio 100); the seed chooses them. The 2,000 test images are balanced: 1,500 are tested on, and 500
choose the thresholds of the remedy that needs some. No other remedy sees these 500 labels.

Expected balanced accuracy, mean and standard deviation over the seeds 0 to 2: logit_adjustment 79.1 ± 0.3 %, prior_correction
78.8 ± 0.7, thresholds 78.0 ± 0.8, oversampling 76.9 ± 0.8, the weighted losses and square_root 76.0 to 76.6, none 72.5 ± 1.2,
focal 71.4 ± 1.0. A run took 37 to 216 s on 2 CPU cores that others used too. Measured 2026-11-21 with JAX 0.10.2;
tables are in `benchmarks/RESULTS.md`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.geometry import flip
from jaxvision.data import idx, order, resident, samples
from jaxvision.data.source import concatenate
from jaxvision.data.subset import held_out, imbalanced, long_tailed
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.metrics.thresholds import thresholded
from jaxvision.nn.cnn import SmallCNN
from jaxvision.ops.losses import Loss, class_weighted, cross_entropy, effective_number, focal, inverse_frequency
from jaxvision.tasks.classification import classification
from jaxvision.tasks.thresholds import with_thresholds
from jaxvision.train import Every, intervals

CLASSES, SIZE, TUNED_ON = len(idx.FASHION_MNIST), 28, 500


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "remedy": "none",
            "largest": 700,
            "ratio": 100.0,
            "batch_size": 64,
            "steps": 400,
            "channels": (8, 16, 32),
            "dropout": 0.3,
            "learning_rate": 4e-3,
            "weight_decay": 0.02,
            "precision": "auto",
            "every": {"log": 25, "evaluate": 0, "checkpoint": 0},
        }
    )


class Remedy(NamedTuple):
    """Where the remedies differ."""

    order: order.Order
    loss: Loss = cross_entropy
    thresholds: np.ndarray = np.ones(CLASSES)
    tuned: bool = False


def remedies(counts: np.ndarray, seed: int) -> dict[str, Remedy]:
    shuffled, prior = order.shuffled(seed), counts / counts.sum()
    effective = effective_number(counts)
    return {
        "none": Remedy(shuffled),
        "inverse_frequency": Remedy(shuffled, class_weighted(cross_entropy, inverse_frequency(counts))),
        "effective_number": Remedy(shuffled, class_weighted(cross_entropy, effective)),
        "oversampling": Remedy(order.balanced(seed)),
        "square_root": Remedy(order.balanced(seed, power=0.5)),
        "focal": Remedy(shuffled, focal(2.0)),
        "focal_balanced": Remedy(shuffled, class_weighted(focal(2.0), effective)),
        "logit_adjustment": Remedy(shuffled, logit_adjusted(prior)),
        "prior_correction": Remedy(shuffled, thresholds=prior),
        "thresholds": Remedy(shuffled, tuned=True),
    }


def logit_adjusted(prior: np.ndarray) -> Loss:
    """The cross-entropy of the logits plus the log prior (arXiv:2007.07314, with tau 1)."""
    return lambda logits, labels: cross_entropy(logits + jnp.asarray(np.log(prior), logits.dtype)[None, :], labels)


def build(config) -> Experiment:
    counts = np.asarray(long_tailed(config.largest, config.ratio, CLASSES))
    known = remedies(counts, config.seed)
    if config.remedy not in known:
        raise ValueError(f"remedy is {config.remedy!r}; allowed are {', '.join(known)}")
    remedy = known[config.remedy]
    dtype = jnp.dtype(config.precision)
    network = SmallCNN(CLASSES, channels=config.channels, dropout=config.dropout, dtype=dtype)
    task = classification(network, mean=73.0, std=90.0, loss=remedy.loss, dtype=dtype)
    options = {"canvas": SIZE, "batch_size": config.batch_size, "channels": 1}
    train = resident.training(lambda: imbalanced(data("train"), counts, config.seed), order=remedy.order, **options)
    if remedy.tuned:
        test = Evaluation(resident.evaluation(tuning_and_test, **options), thresholded(idx.FASHION_MNIST, TUNED_ON))
    else:
        test = Evaluation(resident.evaluation(test_alone, **options), metrics(idx.FASHION_MNIST))
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 10, config.steps)
    return Experiment(
        task=with_thresholds(task, remedy.thresholds),
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": test},
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=config.steps, checkpoint=-(-config.steps // 2))),
        keep=Keep(latest=1, best=1, by="test/balanced_accuracy"),
    )


def data(split: str):
    return idx.source(samples.fashion_mnist_dir(), split, idx.FASHION_MNIST)


def test_alone():
    return held_out(data("test"), TUNED_ON / 2000, seed=0)[0]


def tuning_and_test():
    test, held = held_out(data("test"), TUNED_ON / 2000, seed=0)
    return concatenate(held, test)

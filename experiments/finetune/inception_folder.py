"""A pretrained Inception v3 fine-tuned on your own images: one folder a class, cats and dogs, say.

    python -m jaxvision.main --config=experiments/finetune/inception_folder.py --workdir=runs/inception_folder \
        --config.train_dir=my_images --config.weights=inception_v3_google-0cc3c7bd.pth

The weights are torchvision's, a file or an address (`--config.sha256` has it checked). Without --config.test_dir a fifth of
every class is held out. The new head is global pooling, dropout and a dense layer. Ways to fine-tune, `--config.method=`:
  features  the head alone, on features that stay as they are
  partial   the head and the 8x8 blocks
  full      everything, at a rate that falls by `layer_decay` from each part to the one before it
  gradual   as full, but the 8x8 blocks begin after a third of the steps, the rest after two thirds
Normalisation keeps the statistics and the scales of the weights.
"""

from functools import partial

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import flip
from jaxvision.data import folder, order, pipeline, placement
from jaxvision.data.subset import held_out
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as figures
from jaxvision.nn.inception import inception_v3
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.preprocessing import INCEPTION
from jaxvision.pretrained.start import start
from jaxvision.tasks.classification import classification
from jaxvision.train import Every

PARTS = ("Conv2d.*", "Mixed_5.*", "Mixed_6.*", "Mixed_7.*", "head/.*")
"""From the input to the head."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "train_dir": "train_data",
            "test_dir": "",
            "classes": (),
            "held_out": 0.2,
            "on_bad_image": "raise",
            "weights": "inception_v3_google-0cc3c7bd.pth",
            "sha256": "",
            "method": "full",
            "image_size": INCEPTION.size,
            "dropout": 0.5,
            "batch_size": 32,
            "steps": 500,
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "layer_decay": 0.5,
            "precision": "auto",
        }
    )


def methods(config) -> dict[str, dict]:
    """What each way to fine-tune says of the experiment: what is frozen, and the optimizer."""

    def adam(wait: int = 0) -> optax.GradientTransformation:
        steps = config.steps - wait
        cosine = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 10, steps)
        late = optax.join_schedules([optax.constant_schedule(0.0), cosine], [wait])
        return optax.adamw(late, weight_decay=config.weight_decay, mask=optimize.kernels)

    rates = optimize.rates(optimize.layerwise(config.layer_decay, PARTS))
    waits = [2, 2, 2, 1, 0]
    groups = {part: adam(wait * config.steps // 3) for part, wait in zip(PARTS, waits, strict=True)}
    return {
        "features": {"frozen": PARTS[:-1], "optimizer": adam()},
        "partial": {"frozen": PARTS[:-2], "optimizer": adam()},
        "full": {"optimizer": optax.chain(adam(), rates)},
        "gradual": {"optimizer": optax.chain(optimize.by_group(groups), rates)},
    }


def build(config) -> Experiment:
    if not config.classes:  # kept in config.json: to predict later takes no training images
        with config.unlocked():
            config.classes = folder.classes(config.train_dir)
    ways = methods(config)
    if config.method not in ways:
        raise ValueError(f"method is {config.method!r}; allowed: {', '.join(ways)}")
    dtype = jnp.dtype(config.precision)
    norm = partial(FrozenBatchNorm, epsilon=1e-3)
    network = inception_v3(len(config.classes), dtype=dtype).clone(norm=norm, dropout=config.dropout)
    size, options = config.image_size, {"batch_size": config.batch_size, "on_bad_image": config.on_bad_image}

    def train_data():
        everything = folder.source(config.train_dir)
        return everything if config.test_dir else held_out(everything, config.held_out, config.seed)[0]

    def test_data():
        if config.test_dir:
            found = folder.source(config.test_dir)
            if found.classes != config.classes:
                raise ValueError(f"{config.test_dir} has the classes {found.classes}, not {config.classes}")
            return found
        return held_out(folder.source(config.train_dir), config.held_out, config.seed)[1]

    train = pipeline.training(
        train_data,
        order=order.shuffled(config.seed),
        placer=placement.random_resized_crop(size, area=(0.25, 1.0)),
        seed=config.seed,
        **options,
    )
    test = pipeline.evaluation(
        test_data, placer=placement.resize_and_centre_crop(size * INCEPTION.resize // INCEPTION.size, size), **options
    )
    return Experiment(
        task=classification(network, mean=INCEPTION.mean, std=INCEPTION.std, dtype=dtype),
        start=start(
            torchvision.inception_v3_sources,
            config.weights,
            config.sha256 or None,
            new=("head/.*",),
            unused=("AuxLogits\\..*",),
        ),
        **ways[config.method],
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, figures(config.classes), pictures.report)},
        seed=config.seed,
        every=Every(log=20, evaluate=-(-config.steps // 5), checkpoint=-(-config.steps // 5)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )

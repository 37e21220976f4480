"""A pretrained VGG-16 fine-tuned on your own images: one folder a class, cats and dogs, say.

    python -m jaxvision.main --config=experiments/finetune/vgg16_folder.py --workdir=runs/vgg16_folder \
        --config.train_dir=my_images --config.weights=vgg16-397923af.pth

The weights are torchvision's, a file or an address (`--config.sha256` has it checked). Without --config.test_dir a fifth of
every class is held out. The new head is global pooling, a dense layer of 1024, dropout and a dense layer. Ways to
fine-tune, `--config.method=`:
  features  the head alone, on features that stay as they are
  partial   the head and the last stage of convolutions
  full      everything, at a rate that falls by `layer_decay` from each stage to the one before it
  gradual   as full, but the last stage begins after a third of the steps, the rest after two thirds
"""

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
from jaxvision.nn.head import Head, WithHead
from jaxvision.nn.vgg import vgg16
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.preprocessing import TORCHVISION
from jaxvision.pretrained.start import start
from jaxvision.tasks.classification import classification
from jaxvision.train import Every

PARTS = (*(f"backbone/stage{n}_.*" for n in range(1, 6)), "head/.*")
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
            "weights": "vgg16-397923af.pth",
            "sha256": "",
            "method": "full",
            "image_size": TORCHVISION.size,
            "hidden": 1024,
            "dropout": 0.5,
            "batch_size": 32,
            "steps": 500,
            "learning_rate": 3e-4,
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
    waits = [2, 2, 2, 2, 1, 0]
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
    backbone = vgg16(dtype=dtype).backbone
    network = WithHead(backbone, Head(len(config.classes), config.hidden, config.dropout, dtype=dtype))
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
    test = pipeline.evaluation(test_data, placer=placement.resize_and_centre_crop(size * 8 // 7, size), **options)
    return Experiment(
        task=classification(network, mean=TORCHVISION.mean, std=TORCHVISION.std, dtype=dtype),
        start=start(
            torchvision.vgg_sources,
            config.weights,
            config.sha256 or None,
            new=("head/.*",),
            unused=("classifier\\..*",),
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

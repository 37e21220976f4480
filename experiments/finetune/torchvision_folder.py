"""A pretrained network of torchvision fine-tuned on your own images: one folder a class, cats and dogs, say.

    python -m jaxvision.main --config=experiments/finetune/torchvision_folder.py --workdir=runs/torchvision_folder \
        --config.train_dir=my_images --config.network=resnet50 --config.weights=resnet50-0676ba61.pth

`--config.network=` is `resnet50`, `vgg16` or `inception_v3`. A field that is empty or 0 takes the network's own value, and
config.json has it. The weights are torchvision's, a file or an address (`--config.sha256` has it checked). Without
--config.test_dir a fifth of every class is held out. The new head is global pooling, a dense layer of `hidden` (1024; none
above Inception v3), dropout and a dense layer. Ways to fine-tune, `--config.method=`:
  features  the head alone, on features that stay as they are
  partial   the head and the last stage (of Inception v3 the 8x8 blocks)
  full      everything, at a rate that falls by `layer_decay` from each part to the one before it
  gradual   as full, but the last stage begins after a third of the steps, the rest after two thirds
Normalisation keeps the statistics and the scales of the weights; --config.frozen_norm=false trains both (VGG-16 has none).
`width` is that of ResNet-50 alone.
Time and accuracy depend on the images: not measured by us.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import flip
from jaxvision.data import folder, order, placement, streams
from jaxvision.data.subset import train_and_test
from jaxvision.draw import classification as pictures
from jaxvision.errors import nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.head import Head, WithHead
from jaxvision.nn.inception import inception_v3
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm
from jaxvision.nn.resnet import resnet50
from jaxvision.nn.vgg import vgg16
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.preprocessing import INCEPTION, TORCHVISION, Preprocessing
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import Sources
from jaxvision.tasks.classification import classification
from jaxvision.train import evenly, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "network": "resnet50",
            "train_dir": "train_data",
            "test_dir": "",
            "classes": (),
            "held_out": 0.2,
            "on_bad_image": "raise",
            "fingerprint": "quick",
            "weights": "",
            "sha256": "",
            "method": "full",
            "frozen_norm": True,
            "image_size": 0,
            "width": 64,
            "hidden": 1024,
            "dropout": 0.5,
            "batch_size": 32,
            "steps": 500,
            "learning_rate": 0.0,
            "weight_decay": 1e-4,
            "layer_decay": 0.5,
            "precision": "auto",
            "every": {"log": 20, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    if config.network not in NETWORKS:
        raise ValueError(f"no network {config.network!r}{nearest(config.network, tuple(NETWORKS))}")
    pretrained = NETWORKS[config.network]
    fill_in(config, pretrained)
    ways = methods(config, pretrained.parts)
    if config.method not in ways:
        raise ValueError(f"method is {config.method!r}; allowed: {', '.join(ways)}")
    dtype, preprocessing = jnp.dtype(config.precision), pretrained.preprocessing
    size, options = config.image_size, {"batch_size": config.batch_size, "on_bad_image": config.on_bad_image}
    train_data, test_data = train_and_test(
        lambda: folder.source(config.train_dir),
        (lambda: folder.source(config.test_dir, config.classes)) if config.test_dir else None,
        config.held_out,
        config.seed,
        config.classes,
        config.fingerprint,
    )
    train = streams.training(
        train_data,
        order=order.shuffled(config.seed),
        placer=placement.random_resized_crop(size, area=(0.25, 1.0), interpolation=preprocessing.interpolation),
        seed=config.seed,
        **options,
    )
    test = streams.evaluation(test_data, placer=preprocessing.placer(size), **options)
    new = {"new": ("head/.*",), "unused": pretrained.unused}
    return Experiment(
        task=classification(
            pretrained.build(config, dtype), mean=preprocessing.mean, std=preprocessing.std, dtype=dtype
        ),
        start=start(pretrained.sources, config.weights, config.sha256 or None, **new),
        **ways[config.method],
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, metrics(config.classes), pictures.report)},
        scalars={"learning_rate": late_cosine(config, 0)},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 5)),
        keep=Keep(latest=2, best=1, by="test/accuracy"),
    )


class Pretrained(NamedTuple):
    """A network of torchvision, and how it is fine-tuned."""

    build: Callable[..., nn.Module]
    """`(config, dtype) -> Module`."""
    parts: tuple[str, ...]
    """Patterns of its parameters, from the input to the head."""
    sources: Sources
    unused: tuple[str, ...]
    """Patterns of what the file holds beside the features."""
    weights: str
    """The name of the file at torchvision."""
    preprocessing: Preprocessing = TORCHVISION
    learning_rate: float = 1e-3


def fill_in(config, pretrained: Pretrained) -> None:
    """Puts the classes of the data and the network's own values where the config has none."""
    with config.unlocked():
        config.classes = config.classes or folder.classes(config.train_dir)  # to predict later takes no training images
        config.weights = config.weights or pretrained.weights
        config.image_size = config.image_size or pretrained.preprocessing.size
        config.learning_rate = config.learning_rate or pretrained.learning_rate


def late_cosine(config, wait: int) -> optax.Schedule:
    """The rate of parameters that begin to learn after so many steps; of the head without any."""
    steps = config.steps - wait
    cosine = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 10, steps)
    return optax.join_schedules([optax.constant_schedule(0.0), cosine], [wait])


def methods(config, parts: tuple[str, ...]) -> dict[str, dict]:
    """What each way to fine-tune says of the experiment: what is frozen, and the optimizer."""

    def adam(wait: int = 0) -> optax.GradientTransformation:
        return optax.adamw(late_cosine(config, wait), weight_decay=config.weight_decay, mask=optimize.kernels)

    rates = optimize.rates(optimize.layerwise(config.layer_decay, parts))
    waits = [*(2,) * (len(parts) - 2), 1, 0]
    groups = {part: adam(wait * config.steps // 3) for part, wait in zip(parts, waits, strict=True)}
    return {
        "features": {"frozen": parts[:-1], "optimizer": adam()},
        "partial": {"frozen": parts[:-2], "optimizer": adam()},
        "full": {"optimizer": optax.chain(adam(), rates)},
        "gradual": {"optimizer": optax.chain(optimize.by_group(groups), rates)},
    }


def resnet(config, dtype) -> nn.Module:
    norm = FrozenBatchNorm if config.frozen_norm else BatchNorm
    backbone = resnet50(width=config.width, norm=norm, dtype=dtype).backbone
    return WithHead(backbone, Head(len(config.classes), config.hidden, config.dropout, dtype=dtype))


def vgg(config, dtype) -> nn.Module:
    return WithHead(vgg16(dtype=dtype).backbone, Head(len(config.classes), config.hidden, config.dropout, dtype=dtype))


def inception(config, dtype) -> nn.Module:
    norm = partial(FrozenBatchNorm if config.frozen_norm else BatchNorm, epsilon=1e-3)
    return inception_v3(len(config.classes), dtype=dtype).clone(norm=norm, dropout=config.dropout)


NETWORKS = {
    "resnet50": Pretrained(
        resnet,
        parts=("backbone/(stem|stage1).*", "backbone/stage2.*", "backbone/stage3.*", "backbone/stage4.*", "head/.*"),
        sources=torchvision.resnet_sources,
        unused=(r"fc\..*",),
        weights="resnet50-0676ba61.pth",
    ),
    "vgg16": Pretrained(
        vgg,
        parts=(*(f"backbone/stage{n}_.*" for n in range(1, 6)), "head/.*"),
        sources=torchvision.vgg_sources,
        unused=(r"classifier\..*",),
        weights="vgg16-397923af.pth",
        learning_rate=3e-4,
    ),
    "inception_v3": Pretrained(
        inception,
        parts=("Conv2d.*", "Mixed_5.*", "Mixed_6.*", "Mixed_7.*", "head/.*"),
        sources=torchvision.inception_v3_sources,
        unused=(r"AuxLogits\..*",),
        weights="inception_v3_google-0cc3c7bd.pth",
        preprocessing=INCEPTION,
    ),
}

"""A small semantic segmenter on synthetic shapes: a class for every pixel of 96 px images, made from a seed.

    python -m jaxvision.main --config=experiments/shapes_segmentation.py --workdir=runs/shapes_segmentation

A proof that each network learns, and a first one to play with: nothing is downloaded. Tested on shapes of another seed. A
field that is 0 takes the network's own value, and config.json has it. U^2-Net tells objects of one kind, circles, from the
background. Measured (seed 0, the last weights, 200 other images, 2026-11-30, JAX 0.10.2; beside much else on two CPU cores,
so the time is processor time, about two thirds of which they take with nothing beside):

| `--config.network=` | mIoU | boundary F1 | steps | images | minutes of processor time |
|---|---|---|---|---|---|
| `unet` | 0.975 | 0.949 | 800 | 16 of 96 px | 5 |
| `resnet_unet` | 0.959 | 0.933 | 1,000 | 16 of 96 px | 7 |
| `fcn` | 0.955 | 0.924 | 800 | 16 of 96 px | 5 |
| `deeplab` | 0.962 | 0.951 | 1,200 | 16 of 96 px | 8 |
| `u2net`, circles alone | 0.999 | 0.998 | 800 | 16 of 96 px | 6 |
| `fcn8s` | 0.940 | 0.898 | 1,600 | 4 of 384 px | 17 |

FCN-8s adds its last scores at a stride of 8 and enlarges them: borders are less exact than those of the others, and in images
of 192 px, whose shapes are smaller, it had 0.912.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import chain, flip, vertical_flip
from jaxvision.data import maps, order, resident, synthetic, target
from jaxvision.draw import segmentation as pictures
from jaxvision.errors import nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.segmentation import segmentation as metrics
from jaxvision.nn import resnet, vgg
from jaxvision.nn.norm import BatchNorm
from jaxvision.tasks.deeplab import DeepLabHead, deeplab
from jaxvision.tasks.fcn import CROSS_ENTROPY, FCN, FCNHead, SkipFCN, fcn, skip_fcn
from jaxvision.tasks.segmentation import segmenter
from jaxvision.tasks.u2net import Stage, U2Net, salient_objects
from jaxvision.tasks.unet import BackboneUNet, UNet, unet
from jaxvision.train import evenly, exponential_average, intervals
from jaxvision.types import Task

SHAPES = ("circle", "square", "triangle")
MEAN, STD = 127.5, 64.0


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "network": "unet",
            "size": 0,
            "examples": 2000,
            "test_examples": 200,
            "max_objects": 6,
            "width": 0,
            "batch_size": 0,
            "steps": 0,
            "learning_rate": 0.0,
            "weight_decay": 1e-4,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 50, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    if config.network not in NETWORKS:
        raise ValueError(f"no network {config.network!r}{nearest(config.network, tuple(NETWORKS))}")
    network = NETWORKS[config.network]
    fill_in(config, network)

    def shapes(count, seed):
        drawn = synthetic.shapes(
            count, seed=seed, size=config.size, max_objects=config.max_objects, classes=network.shapes
        )
        return maps.from_objects(drawn)

    options = {"canvas": config.size, "batch_size": config.batch_size, "target": target.class_map()}
    train = resident.training(
        lambda: shapes(config.examples, config.seed), order=order.shuffled(config.seed), **options
    )
    test = resident.evaluation(lambda: shapes(config.test_examples, config.seed + 1000), **options)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 20, config.steps)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels)
    measured = metrics(("background", *network.shapes), boundary=True)
    return Experiment(
        task=network.task(config, 1 + len(network.shapes), jnp.dtype(config.precision)),
        optimizer=optax.chain(optax.clip_by_global_norm(10.0), adamw),
        steps=config.steps,
        train=train,
        augment=chain(flip(), vertical_flip()),
        evaluations={"test": Evaluation(test, measured, pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 5)),
        keep=Keep(latest=2, best=1, by="test/mIoU"),
    )


class Network(NamedTuple):
    """How a network is built and trained here."""

    task: Callable[..., Task]
    """`(config, classes, dtype) -> Task`."""
    width: int
    """Channels of the first stage."""
    size: int = 96
    """Side of the images, in pixels."""
    batch_size: int = 16
    steps: int = 800
    learning_rate: float = 3e-3
    shapes: tuple[str, ...] = SHAPES


def fill_in(config, network: Network) -> None:
    """Puts the network's own values where the config has 0."""
    with config.unlocked():
        for field in ("width", "size", "batch_size", "steps", "learning_rate"):
            config[field] = config[field] or getattr(network, field)


def dilated(config, dtype) -> resnet.Backbone:
    """A residual network of one block a stage, whose last maps have stride 4."""
    return resnet.Backbone(
        resnet.Bottleneck, (1, 1, 1), width=config.width, output_stride=4, stem="imagenet", dtype=dtype
    )


def fcn_task(config, classes: int, dtype) -> Task:
    heads = [FCNHead(classes, dtype=dtype) for _ in range(2)]
    return fcn(FCN(dilated(config, dtype), *heads), mean=MEAN, std=STD, dtype=dtype)


def skip_fcn_task(config, classes: int, dtype) -> Task:
    widths = tuple(config.width * factor for factor in (1, 2, 4, 4, 4))
    backbone = vgg.Backbone((1, 1, 2, 2, 2), widths, norm=BatchNorm, ceil_pooling=True, dtype=dtype)
    network = SkipFCN(backbone, classes, 8, hidden=8 * config.width, dropout=0.1)
    return skip_fcn(network, loss=CROSS_ENTROPY, mean=MEAN, std=STD, dtype=dtype)


def deeplab_task(config, classes: int, dtype) -> Task:
    head = DeepLabHead(classes, (2, 4, 6), channels=2 * config.width, dropout=0.1, dtype=dtype)
    network = FCN(dilated(config, dtype), head, FCNHead(classes, dtype=dtype))
    return deeplab(network, mean=MEAN, std=STD, dtype=dtype)


def unet_task(config, classes: int, dtype) -> Task:
    network = UNet(classes, config.width, depth=3, padding=1, dropout=0.1, norm=BatchNorm, dtype=dtype)
    return unet(network, mean=MEAN, std=STD, dtype=dtype)


def resnet_unet_task(config, classes: int, dtype) -> Task:
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1, 1), width=config.width, dtype=dtype)
    width = config.width
    network = BackboneUNet(backbone, classes, (4 * width, 2 * width, width, width // 2), dtype=dtype)
    return segmenter(network, multiple_of=16, mean=MEAN, std=STD, dtype=dtype)


def u2net_task(config, classes: int, dtype) -> Task:
    del classes
    outside, inside = config.width, config.width // 2
    contracting = [Stage(n, inside, outside) for n in (5, 4, 4)]
    expanding = [Stage(n, inside, outside) for n in (4, 5)]
    return salient_objects(U2Net(contracting, expanding, BatchNorm, dtype), mean=MEAN, std=STD, dtype=dtype)


NETWORKS = {
    "fcn": Network(fcn_task, width=24),
    "fcn8s": Network(skip_fcn_task, width=8, size=384, batch_size=4, steps=1600),
    "deeplab": Network(deeplab_task, width=16, steps=1200),
    "unet": Network(unet_task, width=16),
    "resnet_unet": Network(resnet_unet_task, width=32, steps=1000),
    "u2net": Network(u2net_task, width=16, shapes=("circle",)),
}

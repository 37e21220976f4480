"""RetinaNet with a small residual network on drawn shapes: circles, squares and triangles of 96 px images, made from a seed.

    python -m jaxvision.main --config=experiments/shapes_retinanet.py --workdir=runs/shapes_retinanet

A proof that the detector learns, and a first detector to play with: nothing is downloaded. Tested on shapes of another
seed. `--config.examples=32 --config.test_on_train=True --config.steps=1500` shows instead how far 32 images are learned by
heart. Measured (seed 0, one busy CPU core, 2026-11-28, JAX 0.10.2): AP 72.6, AP50 95.4 after 2,500 steps, 10 minutes. By
heart, 1,500 steps in 6 minutes: AP 98.9, AP50 99.8.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.augment import flip, vertical_flip
from jaxvision.augment.compose import chain, identity
from jaxvision.data import order, resident, synthetic, target
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection as figures
from jaxvision.nn import resnet
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.train import Every, exponential_average

CLASSES = ("circle", "square", "triangle")
SIZES = tuple(tuple(base * 2 ** (third / 3) for third in range(3)) for base in (10, 20, 40, 80, 160))
"""Of the anchors on P3 to P7: three in an octave, a third of the published ones."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "size": 96,
            "examples": 2000,
            "test_examples": 200,
            "test_on_train": False,
            "max_objects": 6,
            "width": 24,
            "channels": 64,
            "depth": 2,
            "batch_size": 16,
            "steps": 2500,
            "learning_rate": 2e-3,
            "weight_decay": 1e-4,
            "ema": 0.99,
            "precision": "auto",
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1, 1, 1), width=config.width, dtype=dtype)
    network = retinanet_fpn(backbone, len(CLASSES), channels=config.channels, depth=config.depth)
    task = retinanet(network, sizes=SIZES, mean=127.5, std=64.0, pre_nms_top_k=200, max_detections=50, dtype=dtype)

    def shapes(count, seed):
        return synthetic.shapes(count, seed=seed, size=config.size, max_objects=config.max_objects, classes=CLASSES)

    learned = lambda: shapes(config.examples, config.seed)
    options = {"canvas": config.size, "batch_size": config.batch_size, "target": target.objects(config.max_objects)}
    tested = learned if config.test_on_train else lambda: shapes(config.test_examples, config.seed + 1000)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 20, config.steps)
    return Experiment(
        task=task,
        optimizer=optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(schedule, weight_decay=config.weight_decay)),
        steps=config.steps,
        train=resident.training(learned, order=order.shuffled(config.seed), **options),
        augment=identity if config.test_on_train else chain(flip(), vertical_flip()),
        evaluations={"test": Evaluation(resident.evaluation(tested, **options), figures(CLASSES), pictures.report)},
        average=exponential_average(config.ema),
        seed=config.seed,
        every=Every(log=50, evaluate=-(-config.steps // 5), checkpoint=-(-config.steps // 5)),
        keep=Keep(latest=2, best=1, by="test/AP"),
    )

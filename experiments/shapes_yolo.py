"""YOLOv3-tiny, a quarter as wide, on drawn shapes: circles, squares and triangles of 96 px images, made from a seed.

    python -m jaxvision.main --config=experiments/shapes_yolo.py --workdir=runs/shapes_yolo

A proof that the detector learns, and a first detector to play with: nothing is downloaded. Tested on shapes of another
seed. `--config.examples=32 --config.test_on_train=True` shows instead how far 32 images are learned by heart.
Measured (seed 0, two CPU cores, 2026-11-28, JAX 0.10.2): AP 70.0, AP50 98.3 after 2,500 steps, 3 minutes with nothing
beside it. By heart, 1,500 steps in 2 minutes: AP 100, AP50 100.
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
from jaxvision.nn.darknet import DarknetTiny, YOLOv3Tiny
from jaxvision.tasks.yolo import yolo
from jaxvision.train import Every, exponential_average

CLASSES = ("circle", "square", "triangle")


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "size": 96,
            "examples": 2000,
            "test_examples": 200,
            "test_on_train": False,
            "max_objects": 6,
            "width": 8,
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
    network = YOLOv3Tiny(DarknetTiny(config.width, layers=6, dtype=dtype), len(CLASSES))
    priors = tuple(
        tuple((side * config.size,) * 2 for side in sides) for sides in ((0.28, 0.36, 0.46), (0.12, 0.16, 0.21))
    )

    def shapes(count, seed):
        return synthetic.shapes(count, seed=seed, size=config.size, max_objects=config.max_objects, classes=CLASSES)

    learned = lambda: shapes(config.examples, config.seed)
    options = {"canvas": config.size, "batch_size": config.batch_size, "target": target.objects(config.max_objects)}
    tested = learned if config.test_on_train else lambda: shapes(config.test_examples, config.seed + 1000)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 20, config.steps)
    return Experiment(
        task=yolo(network, priors, max_detections=50, dtype=dtype),
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

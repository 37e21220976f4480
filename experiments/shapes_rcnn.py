"""R-CNN with a small residual network on drawn shapes: circles, squares and triangles of 96 px images, made from a seed.

    python -m jaxvision.main --config=experiments/shapes_rcnn.py --workdir=runs/shapes_rcnn

Nothing is downloaded. Tested on shapes of another seed. Measured (seed 0, one busy CPU core, 2026-11-28, JAX 0.10.2): AP
90.9, AP50 98.8 after 1,200 steps, 22 minutes (14 of processor time); after 960, about 18 minutes, AP 90.9, AP50 98.7.
`--config.examples=32 --config.test_on_train=True` shows instead how far 32 images are learned by heart. Regions come from
selective search (`pip install 'jaxvision[proposals]'`), computed once, a fifth of a second an image, and kept: of 24 images
of seed 0 every object has one with an IoU of 0.5 or more, the mean best IoU is 0.97.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.augment import flip, vertical_flip
from jaxvision.augment.compose import chain, identity
from jaxvision.data import order, resident, synthetic, target
from jaxvision.data.proposals import Search, finder
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection as figures
from jaxvision.nn import resnet
from jaxvision.ops.nms import greedy
from jaxvision.tasks.rcnn import rcnn, rcnn_resnet
from jaxvision.tasks.roi_heads import ROIHeads
from jaxvision.train import Every, exponential_average

CLASSES = ("circle", "square", "triangle")


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "size": 96,
            "examples": 1000,
            "test_examples": 200,
            "test_on_train": False,
            "max_objects": 6,
            "proposals": 200,
            "width": 16,
            "crop": 32,
            "context": 2,
            "regions": 32,
            "batch_size": 8,
            "steps": 1200,
            "learning_rate": 2e-3,
            "weight_decay": 1e-4,
            "ema": 0.99,
            "precision": "auto",
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    roi_heads = ROIHeads(samples_per_image=config.regions, nms=greedy(0.3), max_detections=50)
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1, 1), width=config.width, stem="cifar", dtype=dtype)
    crop = {"size": config.crop, "context": config.context}
    task = rcnn(rcnn_resnet(backbone, len(CLASSES)), **crop, mean=127.5, std=64.0, roi_heads=roi_heads, dtype=dtype)

    def shapes(count, seed):
        return synthetic.shapes(count, seed=seed, size=config.size, max_objects=config.max_objects, classes=CLASSES)

    learned = lambda: shapes(config.examples, config.seed)
    options = {
        "canvas": config.size,
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects),
        "given": target.proposals(config.proposals, finder(Search(width=2 * config.size, smallest=8))),
    }
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

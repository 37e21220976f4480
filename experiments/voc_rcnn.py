"""R-CNN on VGG16 and selective search, trained and tested on VOC 2007 (arXiv:1311.2524).

    python -m jaxvision.data.proposals ~/datasets/VOCdevkit/VOC2007
    python -m jaxvision.main --config=experiments/voc_rcnn.py --workdir=runs/voc_rcnn

The first command searches all images once and keeps what it finds; it prints the recall. `data_dir` holds `VOC2007/`;
`vgg16` is as in voc_fast_rcnn.py. The recipe is that of the paper's fine-tuning and its code: 70,000 steps, the rate divided
by ten every 20,000, that of biases twice and that of the new classes ten times as high; batches of 24 regions, 6 of objects,
which the paper has for VGG16 (128 are for its smaller network), here of two images and not of all. The paper's VGG16 reaches
66.0 mAP (VOC07's 11 points, `test/AP_voc07`; table 3) with support vector machines and regressions trained afterwards; here
classes and boxes are learned together, for which it gives no score. Not measured by us.
"""

from pathlib import Path

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import flip
from jaxvision.data import objects, order, placement, streams, target
from jaxvision.data.proposals import finder
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.formats import voc
from jaxvision.metrics.detection import detection as metrics
from jaxvision.pretrained.preprocessing import TORCHVISION
from jaxvision.pretrained.start import start
from jaxvision.pretrained.torchvision_regions import vgg16_sources
from jaxvision.tasks.rcnn import RCNN_SETTINGS, rcnn, rcnn_vgg16
from jaxvision.train import Every, intervals

CLASSES = voc.VOC_CLASSES
LARGEST = 500
"""Pixels of a side: VOC's images have no more."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/VOCdevkit",
            "vgg16": "",
            "hidden": 4096,
            "batch_size": 2,
            "regions_per_image": 12,
            "steps": 70_000,
            "drop_every": 20_000,
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "proposals": 2000,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {
        "placer": placement.keep(LARGEST),
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects),
        "given": target.proposals(config.proposals, finder()),
    }

    def data(split: str):
        return objects.voc(Path(config.data_dir).expanduser() / "VOC2007", split)

    train = streams.training(
        lambda: data("trainval"),
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    test = streams.evaluation(lambda: data("test"), **options)
    schedule = optax.exponential_decay(config.learning_rate, config.drop_every, 0.1, staircase=True)
    rates = {"box_head/logits/bias": 20.0, "box_head/logits/kernel": 10.0, ".*/bias": 2.0, ".*": 1.0}
    begin = start(vgg16_sources, config.vgg16, new=("box_head/(logits|offsets).*",), unused=("classifier.6.*",))
    heads = RCNN_SETTINGS._replace(samples_per_image=config.regions_per_image)
    return Experiment(
        task=rcnn(
            rcnn_vgg16(len(CLASSES), hidden=config.hidden, dtype=dtype),
            mean=TORCHVISION.mean,
            std=TORCHVISION.std,
            roi_heads=heads,
            dtype=dtype,
        ),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, optimize.kernels),
            optax.sgd(schedule, config.momentum),
            optimize.rates(rates),
        ),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, metrics(CLASSES, voc=True), pictures.report)},
        start=begin if config.vgg16 else None,
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=25_000, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="test/AP_voc07"),
    )

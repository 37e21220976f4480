"""SSD300 on VGG16, trained on VOC 2007 and 2012, tested on VOC 2007 (arXiv:1512.02325).

    python -m jaxvision.main --config=experiments/voc_ssd300.py --workdir=runs/voc_ssd300

`data_dir` holds `VOC2007/` and `VOC2012/`, as in VOCdevkit; `vgg16` is as in coco_ssd300.py. The recipe is the paper's with
its later augmentation: 120,000 steps of 32 images, the rate divided by ten after 80,000 and 100,000, that of biases twice
as high. As in the authors' code, objects marked difficult are trained on; they don't count in the test. What differs from
that code is the same as in coco_ssd300.py. Expected: 77.2 mAP (VOC07's 11 points, `test/AP_voc07`; 74.3 without shrinking
images). Not measured by us.
"""

from pathlib import Path

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import brightness, chain, choose, expand, flip, hue, iou_crop, offset, saturation, sometimes
from jaxvision.data import objects, order, placement, streams, target
from jaxvision.data.interpolation import OPENCV_BILINEAR
from jaxvision.data.source import concatenate
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.formats import voc
from jaxvision.metrics.detection import detection as metrics
from jaxvision.pretrained import torchvision_detection
from jaxvision.pretrained.start import start
from jaxvision.tasks.ssd import CAFFE_MEAN, SSD300_VOC, ssd, ssd300_vgg16
from jaxvision.train import Every, intervals
from jaxvision.types import Batch, Key, Scalar

CLASSES = voc.VOC_CLASSES


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/VOCdevkit",
            "vgg16": "",
            "batch_size": 32,
            "steps": 120_000,
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def with_difficult(key: Key, step: Scalar, batch: Batch) -> Batch:
    """An augmentation: no object is ignored."""
    del key, step
    return batch.replace(target=batch.target.replace(ignore=jnp.zeros_like(batch.target.ignore)))


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {
        "placer": placement.stretch(300, interpolation=OPENCV_BILINEAR),
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects),
    }

    def data(year: int, split: str):
        return objects.voc(Path(config.data_dir).expanduser() / f"VOC{year}", split)

    train = streams.training(
        lambda: concatenate(data(2007, "trainval"), data(2012, "trainval")),
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    test = streams.evaluation(lambda: data(2007, "test"), **options)
    thirds = [config.steps * 2 // 3, config.steps * 5 // 6]
    schedule = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(thirds, 0.1))
    # Caffe's contrast is a factor of all levels, its brightness what is added to them
    contrast, *colours = (sometimes(0.5, each) for each in (brightness(0.5), saturation(0.5), hue(0.1)))
    begin = start(
        torchvision_detection.ssd_backbone_sources,
        config.vgg16,
        new=("features/(conv|extra|norm).*", "(classes|boxes).*"),
        unused=("classifier.*",),
    )
    return Experiment(
        task=ssd(ssd300_vgg16(len(CLASSES), dtype=dtype), SSD300_VOC, dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, optimize.kernels),
            optax.sgd(schedule, config.momentum),
            optimize.rates({".*/bias": 2.0, ".*": 1.0}),
        ),
        steps=config.steps,
        train=train,
        augment=chain(
            with_difficult,
            sometimes(0.5, offset(32)),
            choose(chain(contrast, *colours), chain(*colours, contrast)),
            sometimes(0.5, expand(4.0, CAFFE_MEAN)),
            *(iou_crop(trials=50), flip()),
        ),
        evaluations={"test": Evaluation(test, metrics(CLASSES, voc=True), pictures.report)},
        start=begin if config.vgg16 else None,
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=10_000, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="test/AP_voc07"),
    )

"""YOLACT-550 on ResNet-50 or ResNet-101, trained on COCO 2017 (arXiv:1904.02689).

    python -m jaxvision.main --config=experiments/coco_yolact.py --workdir=runs/coco_yolact

`data_dir` is as in coco_ssd300.py; `backbone` is resnet50 or resnet101, and `imagenet` a file of its ImageNet weights in
torchvision's form; empty: random weights, for trials. The recipe is that of the authors' code (dbolya/yolact): 800,000 steps
of 8 images that have objects, SGD from 1e-4, 1e-3 after 500 steps, divided by ten after 280,000, 600,000, 700,000 and
750,000; everything decays, and batch normalisation learns. Images are changed as for SSD: colours, half of them shrunk into
a larger area, crops by IoU, half of them flipped. It differs in that images are stretched to 550 px first and cropped on the
device, so that crops are enlarged from that, and in what coco_ssd300.py says of colours and crops. Objects with a side below
4 px, which the authors drop after all that, stay. Expected: mask AP 28.2 with ResNet-50 and 29.8 with ResNet-101 on test-dev
(the authors' README). Not measured by us.
"""

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision.augment import brightness, chain, choose, expand, flip, hue, iou_crop, offset, saturation, sometimes
from jaxvision.data import objects, order, placement, streams, subset, target
from jaxvision.data.interpolation import OPENCV_BILINEAR
from jaxvision.draw import instances as pictures
from jaxvision.errors import nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.instances import instances
from jaxvision.pretrained import torchvision_detection
from jaxvision.pretrained.coco import CLASSES
from jaxvision.pretrained.start import start
from jaxvision.tasks.yolact import MEAN, yolact, yolact_resnet50, yolact_resnet101
from jaxvision.train import Every, intervals

NETWORKS = {"resnet50": yolact_resnet50, "resnet101": yolact_resnet101}


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/coco",
            "backbone": "resnet50",
            "imagenet": "",
            "size": 550,
            "batch_size": 8,
            "steps": 800_000,
            "drops": (280_000, 600_000, 700_000, 750_000),
            "warmup": 500,
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    if config.backbone not in NETWORKS:
        raise ValueError(f"no backbone {config.backbone!r}{nearest(config.backbone, tuple(NETWORKS))}")
    dtype = jnp.dtype(config.precision)
    options = {
        "placer": placement.stretch(config.size, interpolation=OPENCV_BILINEAR),
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects, masks="bits"),
    }
    tested = lambda: objects.coco_split(config.data_dir, "val2017", masks=True)
    train = streams.training(
        lambda: with_objects(objects.coco_split(config.data_dir, "train2017", masks=True)),
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    drops = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, 0.1))
    warmup = optax.linear_schedule(0.1, 1.0, config.warmup)
    schedule = lambda step: drops(step) * warmup(step)
    # of all levels, as OpenCV's and Caffe's SSD have it
    contrast, *colours = (sometimes(0.5, each) for each in (brightness(0.5), saturation(0.5), hue(0.1)))
    new = ("features/(lateral|output|top).*", "(head|prototypes|semantic)/.*")
    begin = start(torchvision_detection.fpn_backbone_sources, config.imagenet, new=new, unused=(r"fc\..*",))
    return Experiment(
        task=yolact(NETWORKS[config.backbone](len(CLASSES), dtype=dtype), dtype=dtype),
        optimizer=optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(schedule, config.momentum)),
        steps=config.steps,
        train=train,
        augment=chain(
            sometimes(0.5, offset(32)),
            choose(chain(contrast, *colours), chain(*colours, contrast)),
            sometimes(0.5, expand(4.0, MEAN)),
            *(iou_crop(trials=50), flip()),
        ),
        evaluations={
            "val": Evaluation(streams.evaluation(tested, **options), instances(CLASSES, tested), pictures.report)
        },
        start=begin if config.imagenet else None,
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=14_658, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="val/mask_AP"),
    )


def with_objects(source):
    """The images that have an object."""
    return subset.subset(source, np.flatnonzero([len(each.boxes) > 0 for each in source.objects()]))

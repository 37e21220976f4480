"""Mask R-CNN on ResNet-50 and a feature pyramid, trained on COCO 2017 (arXiv:1703.06870).

    python -m jaxvision.main --config=experiments/coco_mask_rcnn.py --workdir=runs/coco_mask_rcnn

`data_dir` is as in coco_ssd300.py; `resnet50` is a file of ResNet-50's ImageNet weights in torchvision's form, whose batch
normalisation, stem and first stage stay as they are; empty: random weights, for trials. `mask_rcnn` is a file of the weights
that torchvision distributes (`maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth`), to train on, or with `--config.steps=1
--config.learning_rate=0.0` to evaluate; masks then lie in their boxes as they were trained, else `aligned`. The recipe is
torchvision's: 26 epochs of 16 images, SGD at 0.02, divided by ten after 16 and 22 epochs, images with objects (or crowds)
alone, 800 pixels high and at most 1333 wide, half of them flipped, on one canvas for wide images and one for tall ones.
Masks go to the device as bits. The epsilon of the fixed normalisation is today's, 1e-5; the published weights were trained,
and are run, with 0. Expected: box AP 37.9, mask AP 34.6 (torchvision's `maskrcnn_resnet50_fpn`). Not measured by us.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision.augment import flip
from jaxvision.data import buckets, objects, order, placement, subset, target
from jaxvision.draw import instances as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.instances import instances
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import torchvision_detection
from jaxvision.pretrained.coco import CLASSES
from jaxvision.pretrained.start import start
from jaxvision.tasks.mask_rcnn import mask_rcnn, mask_rcnn_resnet50_fpn
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/coco",
            "resnet50": "",
            "mask_rcnn": "",
            "short": 800,
            "longest": 1333,
            "batch_size": 16,
            "epoch": 7_329,
            "steps": 26 * 7_329,
            "drops": (16, 22),
            "warmup": 1_000,
            "learning_rate": 0.02,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def with_objects(source):
    """The images that have an object, a crowd too, of which width and height are more than a pixel, as torchvision keeps."""
    large = [(each.boxes[:, 2:] - each.boxes[:, :2] > 1).all(1).any() for each in source.objects()]
    return subset.subset(source, np.flatnonzero(large))


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {"batch_size": config.batch_size, "target": target.objects(config.max_objects, masks="bits")}
    sides = (config.short, config.longest)

    options["placers"] = [placement.resize_shortest_edge(*sides, canvas) for canvas in (sides, sides[::-1])]
    train = buckets.training(
        lambda: with_objects(objects.coco_split(config.data_dir, "train2017", masks=True)),
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    tested = lambda: objects.coco_split(config.data_dir, "val2017", masks=True)
    test = buckets.evaluation(tested, **options)
    epochs = optax.piecewise_constant_schedule(
        config.learning_rate, {epoch * config.epoch: 0.1 for epoch in config.drops}
    )
    warmup = optax.linear_schedule(1e-3, 1.0, config.warmup)
    schedule = lambda step: epochs(step) * warmup(step)
    decay = optax.add_decayed_weights(config.weight_decay)
    begin, norm, geometry = None, FrozenBatchNorm, "aligned"
    if config.mask_rcnn:
        sources = torchvision_detection.coco_sources(torchvision_detection.mask_rcnn_sources)
        begin = start(torchvision_detection.as_distributed(sources), config.mask_rcnn)
        norm, geometry = partial(FrozenBatchNorm, epsilon=0.0), "torchvision"
    elif config.resnet50:
        new = ("features/(lateral|output).*", "(region|box|mask)_head/.*")
        begin = start(torchvision_detection.fpn_backbone_sources, config.resnet50, new=new, unused=(r"fc\..*",))
    return Experiment(
        task=mask_rcnn(mask_rcnn_resnet50_fpn(len(CLASSES), norm=norm, dtype=dtype), geometry=geometry, dtype=dtype),
        optimizer=optax.chain(decay, optax.sgd(schedule, config.momentum)),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"val": Evaluation(test, instances(CLASSES, tested), pictures.report)},
        start=begin,
        frozen=("features/backbone/(stem|stage1)_.*",) if begin else (),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=config.epoch, checkpoint=config.epoch)),
        keep=Keep(latest=2, best=1, by="val/mask_AP"),
    )

"""YOLOv3 at 416 px, trained on COCO 2017 (arXiv:1804.02767).

    python -m jaxvision.main --config=experiments/coco_yolov3.py --workdir=runs/coco_yolov3

`data_dir` is as in coco_ssd300.py; `darknet53` is Darknet's file of ImageNet weights with its `.cfg` beside it
(`darknet53.conv.74` renamed to `.weights`, with the first 52 convolutions of `yolov3.cfg`); empty: random weights. The
recipe is Darknet's: 500,200 steps of 64 images, SGD, the rate divided by ten after 400,000 and 450,000, rising from 0 in
1,000; flips and colours (exposure and saturation up to 1.5 times, or divided by as much). Unlike there, images lie in the
middle of the grey canvas, where Darknet puts them anywhere on it, scales are jittered image by image, where Darknet resizes
whole batches, and their aspect stays; saturation is PIL's; gradients are clipped at a norm of 100.
Expected: 31.0 AP and 55.3 AP50, which the paper reports on test-dev (its figure 3; 30.9 AP, mmdetection's on val2017). Not
measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import brightness, chain, choose, flip, hue, saturation, scale_jitter
from jaxvision.data import objects, order, streams, target
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection as metrics
from jaxvision.pretrained import darknet
from jaxvision.pretrained.coco import CLASSES
from jaxvision.pretrained.preprocessing import DARKNET
from jaxvision.pretrained.start import start
from jaxvision.tasks.yolo import YOLOV3, yolo, yolov3
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/coco",
            "darknet53": "",
            "size": 416,
            "batch_size": 64,
            "steps": 500_200,
            "drops": (400_000, 450_000),
            "learning_rate": 1e-3,
            "warmup": 1_000,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {
        "placer": DARKNET.placer(config.size),
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects),
    }

    train = streams.training(
        lambda: objects.coco_split(config.data_dir, "train2017"),
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    test = streams.evaluation(lambda: objects.coco_split(config.data_dir, "val2017"), **options)
    constant = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, 0.1))
    schedule = lambda step: constant(step) * jnp.minimum(step / config.warmup, 1.0) ** 4
    sgd = optax.sgd(schedule, config.momentum)
    decay = optax.add_decayed_weights(config.weight_decay, optimize.kernels)
    begin = start(darknet.sources, config.darknet53, new=(r"conv\d+/.*",))
    return Experiment(
        task=yolo(yolov3(len(CLASSES), dtype=dtype), YOLOV3, dtype=dtype),
        optimizer=optax.chain(optax.clip_by_global_norm(100.0), decay, sgd),
        steps=config.steps,
        train=train,
        augment=chain(
            *(flip(), hue(0.1)),
            *(choose(change((1, 1.5)), change((1 / 1.5, 1))) for change in (saturation, brightness)),
            scale_jitter((0.75, 1.25)),
        ),
        evaluations={"val": Evaluation(test, metrics(CLASSES), pictures.report)},
        start=begin if config.darknet53 else None,
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=10_000, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="val/AP"),
    )

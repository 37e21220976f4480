"""SSD300 on VGG16, trained on COCO 2017 (arXiv:1512.02325).

    python -m jaxvision.main --config=experiments/coco_ssd300.py --workdir=runs/coco_ssd300

`data_dir` holds `train2017/`, `val2017/` and `annotations/instances_*2017.json`; `vgg16` is a file of VGG16's weights in
torchvision's form, for Caffe's pixels (its `VGG16_Weights.IMAGENET1K_FEATURES`); empty: random weights. The recipe is the
paper's with its later augmentation: 400,000 steps of 32 images, SGD, the rate divided by ten after 280,000 and 360,000,
that of biases twice as high; half of the images flipped, half shrunk into a larger area, each of four changes of colour made
to half of them, all cropped by IoU. It differs from the authors' code (weiliu89/caffe): the first two layers behind VGG16's
convolutions begin at random; images are stretched to 300 px first and cropped on the device, so that crops are enlarged from
that; of its five interpolations there is the linear one; the sides of a crop are sampled, where there it is their mean and
ratio. Expected: 25.1 AP, which the paper reports on test-dev (23.2 without shrinking images, in 240,000 steps), and
torchvision's `ssd300_vgg16` on val2017, by a recipe of its own. Not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import brightness, chain, choose, expand, flip, hue, iou_crop, offset, saturation, sometimes
from jaxvision.data import objects, order, placement, streams, target
from jaxvision.data.interpolation import OPENCV_BILINEAR
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection as metrics
from jaxvision.pretrained import torchvision_detection
from jaxvision.pretrained.coco import CLASSES
from jaxvision.pretrained.start import start
from jaxvision.tasks.ssd import CAFFE_MEAN, SSD300, ssd, ssd300_vgg16
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/coco",
            "vgg16": "",
            "batch_size": 32,
            "steps": 400_000,
            "learning_rate": 1e-3,
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
        "placer": placement.stretch(300, interpolation=OPENCV_BILINEAR),
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
    drops = [config.steps * 7 // 10, config.steps * 9 // 10]
    schedule = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(drops, 0.1))
    # Caffe's contrast is a factor of all levels, its brightness what is added to them
    contrast, *colours = (sometimes(0.5, each) for each in (brightness(0.5), saturation(0.5), hue(0.1)))
    begin = start(
        torchvision_detection.ssd_backbone_sources,
        config.vgg16,
        new=("features/(conv|extra|norm).*", "(classes|boxes).*"),
        unused=("classifier.*",),
    )
    return Experiment(
        task=ssd(ssd300_vgg16(len(CLASSES), dtype=dtype), SSD300, dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, optimize.kernels),
            optax.sgd(schedule, config.momentum),
            optimize.rates({".*/bias": 2.0, ".*": 1.0}),
        ),
        steps=config.steps,
        train=train,
        augment=chain(
            sometimes(0.5, offset(32)),
            choose(chain(contrast, *colours), chain(*colours, contrast)),
            sometimes(0.5, expand(4.0, CAFFE_MEAN)),
            *(iou_crop(trials=50), flip()),
        ),
        evaluations={"val": Evaluation(test, metrics(CLASSES), pictures.report)},
        start=begin if config.vgg16 else None,
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=10_000, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="val/AP"),
    )

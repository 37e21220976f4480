"""FCN-32s, FCN-16s and FCN-8s on VGG16, trained on SBD, tested on VOC 2011 (arXiv:1411.4038, arXiv:1605.06211).

    python -m jaxvision.main --config=experiments/voc_fcn.py --workdir=runs/voc_fcn --config.begin=runs/fcn16

trains FCN-8s from an FCN-16s, `--workdir=runs/fcn16 --config.stride=16 --config.begin=runs/fcn32`, which began as an FCN-32s,
`--workdir=runs/fcn32 --config.stride=32 --config.begin=vgg16.pth`.

`data_dir` is a VOC folder of a year. Its `SegmentationClass/` holds SBD's maps, too, as palette PNG (the authors'
`data/pascal/convert_sbdd.py` writes them), and `ImageSets/Segmentation/` two lists of theirs: `sbd_train.txt`, the 8,498
images of SBD's train, and `seg11valid.txt`, the 736 of VOC 2011's val that are not among them. `begin` is a file of VGG16's
weights in torchvision's form with all its layers, or the run of the network before; empty: random weights. `caffe_pixels`
says that the file was trained on Caffe's pixels, whose deviation is 1, as the authors' was; torchvision's own was not.

The recipe is the authors' last (shelhamer/fcn.berkeleyvision.org), of heavy momentum: 100,000 steps of one image each, the
loss a sum over its pixels, rates of 1e-10, 1e-12 and 1e-14, those of biases twice as high, momentum 0.99; no augmentation.
It differs in this: images lie on a canvas of 500 x 500, so that there are more zeros around the smaller ones. Expected: 63.6,
65.0 and 65.5 mIoU on seg11valid, as the authors publish. Not measured by us.
"""

from pathlib import Path

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.data import maps, order, placement, streams, target
from jaxvision.draw import segmentation as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.formats.voc import VOC_CLASSES
from jaxvision.metrics.segmentation import segmentation as metrics
from jaxvision.nn import vgg
from jaxvision.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from jaxvision.pretrained import torchvision_segmentation
from jaxvision.pretrained.start import start
from jaxvision.run import transfer
from jaxvision.tasks.fcn import MEAN, SkipFCN, skip_fcn
from jaxvision.train import Every, intervals

CLASSES = (maps.BACKGROUND, *VOC_CLASSES)
RATES = {32: 1e-10, 16: 1e-12, 8: 1e-14}
NEW = {32: ("scores/.*",), 16: ("scores4/.*",), 8: ("scores3/.*",)}
"""Arrays that begin with zeros, by stride."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/VOCdevkit/VOC2012",
            "train_split": "sbd_train",
            "val_split": "seg11valid",
            "begin": "",
            "caffe_pixels": False,
            "stride": 8,
            "side": 500,
            "batch_size": 1,
            "steps": 100_000,
            "momentum": 0.99,
            "weight_decay": 5e-4,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {
        "placer": placement.keep(config.side),
        "batch_size": config.batch_size,
        "target": target.class_map(),
    }
    train = streams.training(
        lambda: maps.voc(config.data_dir, config.train_split),
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    val = streams.evaluation(lambda: maps.voc(config.data_dir, config.val_split), **options)
    backbone = vgg.Backbone(vgg.VGG16, ceil_pooling=True, dtype=dtype)
    mean, std = (MEAN, 1.0) if config.caffe_pixels else (IMAGENET_MEAN, IMAGENET_STD)
    return Experiment(
        task=skip_fcn(SkipFCN(backbone, len(CLASSES), config.stride), mean=mean, std=std, dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, optimize.kernels),
            optax.sgd(RATES[config.stride], config.momentum),
            optimize.rates({".*/bias": 2.0, ".*": 1.0}),
        ),
        steps=config.steps,
        train=train,
        evaluations={"val": Evaluation(val, metrics(CLASSES), pictures.report)},
        start=begin(config.begin, config.stride) if config.begin else None,
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=4_000, checkpoint=4_000)),
        keep=Keep(latest=2, best=1, by="val/mIoU"),
    )


def begin(path: str, stride: int):
    """The weights of VGG16 in a file, or those of another run, which has the scores of one map less."""
    if Path(path).expanduser().is_dir():
        return transfer.from_run(path, new=NEW[stride])
    return start(torchvision_segmentation.vgg16_sources, path, new=("scores.*",), unused=("classifier.6.*",))

"""U-Net on ResNet-34 finds the pixels of cats and dogs in Oxford-IIIT Pet.

    python -m jaxvision.main --config=experiments/pets_unet.py --workdir=runs/pets_unet --config.begin=resnet34-b627a593.pth

`begin` is a file of torchvision's weights of ResNet-34, or its address; empty: random weights. 3,680 photographs to learn
from, 3,669 to test on; the outlines between pet and background have no class. The data must be prepared by TFDS as
array_record; a run without it prints the command. Not measured by us; no figure is published for this task without outlines.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import brightness, chain, contrast, flip, saturation
from jaxvision.data import maps, order, placement, streams, target, tfds
from jaxvision.draw import segmentation as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.segmentation import segmentation as metrics
from jaxvision.nn.resnet import resnet34
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.start import start
from jaxvision.tasks.segmentation import segmenter
from jaxvision.tasks.unet import BackboneUNet
from jaxvision.train import evenly, exponential_average, intervals

CLASSES = maps.PETS.classes
TRAIN_EXAMPLES = 3_680


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "begin": "",
            "size": 256,
            "batch_size": 16,
            "epochs": 20,
            "learning_rate": 3e-4,
            "weight_decay": 1e-4,
            "ema": 0.999,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    options = {"batch_size": config.batch_size, "target": target.class_map()}

    def data(split: str):
        return tfds.maps_source("oxford_iiit_pet", split, maps.PETS, config.data_dir)

    train = streams.training(
        lambda: data("train"),
        order=order.shuffled(config.seed),
        seed=config.seed,
        placer=placement.random_resized_crop(config.size, area=(0.25, 1.0)),
        **options,
    )
    test = streams.evaluation(lambda: data("test"), placer=placement.letterbox(config.size), **options)
    dtype = jnp.dtype(config.precision)
    steps = config.epochs * TRAIN_EXAMPLES // config.batch_size
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 20, steps)
    begin = start(torchvision.resnet_sources, config.begin, new=("stride.*", "head/.*"), unused=(r"fc\..*",))
    return Experiment(
        task=segmenter(BackboneUNet(resnet34(None, dtype=dtype).backbone, len(CLASSES), dtype=dtype), dtype=dtype),
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels),
        steps=steps,
        train=train,
        augment=chain(flip(), brightness(0.3), contrast(0.3), saturation(0.3)),
        evaluations={"test": Evaluation(test, metrics(CLASSES, boundary=True), pictures.report)},
        start=begin if config.begin else None,
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(steps, 10)),
        keep=Keep(latest=2, best=1, by="test/mIoU"),
    )

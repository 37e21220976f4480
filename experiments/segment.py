"""A class for every pixel of your own images: a folder of images and masks, a COCO file with masks, VOC, Cityscapes.

    python -m jaxvision.main --config=experiments/segment.py --workdir=runs/segment --config.train=my_data

`my_data` has `images/` and `masks/`, a PNG of the same name for each image, its pixels the numbers of classes (255: none),
and their names in `classes.txt`, or in `--config.classes="('background', 'cell')"`. Where the pixels are other numbers,
`--config.mask_values=0:0,255:1` says which class each is: of masks that are black and white, white is the second. Of a COCO
file the objects' masks are the classes, all else is background; of VOC and Cityscapes it is the split `split` that is
trained on, and `test_split` that is tested on. `--config.test=` names other data to test on, such as a second
folder; without it a fifth of the images is held out, chosen by the seed (`--config.held_out=0.2`). Check the data first:
`python -m jaxvision.formats.check my_data`.

`--config.network=` is `unet`, a U-Net on ResNet-18, or `deeplab`, DeepLabV3 on ResNet-50, which takes five times as long.
Both begin at random, or the backbone at torchvision's file in `--config.begin=` (`resnet18-f37072fd.pth`, `resnet50-...`).
Images are shown whole, their longer side as long as the canvas, while training in random cuts of half of it and more.
Not measured yet. Bundled data to try it on: `--config.train=jaxvision/data/samples/nuclei/train.json
--config.test=jaxvision/data/samples/nuclei/test.json --config.size=128 --config.steps=150`.
"""

from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import brightness, chain, contrast, flip, saturation
from jaxvision.data import maps, objects, order, placement, streams, target
from jaxvision.data.source import Source
from jaxvision.data.subset import train_and_test
from jaxvision.draw import segmentation as pictures
from jaxvision.errors import DataError, nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.formats.opening import Layout, recognise
from jaxvision.metrics.segmentation import segmentation as metrics
from jaxvision.nn import resnet
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.start import start
from jaxvision.tasks.deeplab import deeplab, deeplabv3_resnet50
from jaxvision.tasks.segmentation import segmenter
from jaxvision.tasks.unet import BackboneUNet
from jaxvision.train import evenly, exponential_average, intervals
from jaxvision.types import Task

DIVIDED = (Layout.VOC, Layout.CITYSCAPES)
"""Layouts whose splits lie in one folder."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "train": "",
            "split": "train",
            "test": "",
            "test_split": "val",
            "held_out": 0.2,
            "classes": (),
            "mask_values": "",
            "on_bad_image": "raise",
            "fingerprint": "quick",
            "network": "unet",
            "begin": "",
            "size": 256,
            "batch_size": 8,
            "steps": 1000,
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 10, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    if config.network not in NETWORKS:
        raise ValueError(f"no network {config.network!r}{nearest(config.network, tuple(NETWORKS))}")
    fill_in(config)
    given = tuple(config.classes), config.mask_values
    train_data, test_data = train_and_test(
        lambda: opened(config.train, config.split, *given),
        (lambda: opened(config.test, config.test_split, *given)) if config.test else None,
        config.held_out,
        config.seed,
        config.classes,
        config.fingerprint,
    )
    options = {"batch_size": config.batch_size, "target": target.class_map(), "on_bad_image": config.on_bad_image}
    cut = placement.random_resized_crop(config.size, area=(0.5, 1.0))
    train = streams.training(train_data, order=order.shuffled(config.seed), seed=config.seed, placer=cut, **options)
    test = streams.evaluation(test_data, placer=placement.letterbox(config.size), **options)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 10, config.steps)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels)
    begin = start(torchvision.resnet_sources, config.begin, new=("(?!backbone/).*",), unused=(r"fc\..*",))
    return Experiment(
        task=NETWORKS[config.network](len(config.classes), jnp.dtype(config.precision)),
        optimizer=optax.chain(optax.clip_by_global_norm(10.0), adamw),
        steps=config.steps,
        train=train,
        augment=chain(flip(), brightness(0.3), contrast(0.3), saturation(0.3)),
        evaluations={"test": Evaluation(test, metrics(tuple(config.classes), boundary=True), pictures.report)},
        start=begin if config.begin else None,
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 5)),
        keep=Keep(latest=1, best=1, by="test/mIoU"),
    )


def fill_in(config) -> None:
    """Puts what the data say where the config has nothing. Raises ValueError where no data are named."""
    if not config.train:
        raise ValueError(
            "--config.train= says what to train on: a folder with images/ and masks/, a COCO .json with masks, a VOC folder, "
            "Cityscapes, a panoptic .json"
        )
    with config.unlocked():
        if not config.classes:  # to predict later takes no training images
            if not config.test and recognise(config.train).layout in DIVIDED:
                config.test = config.train
            config.classes = opened(config.train, config.split, (), config.mask_values).classes


@cache
def opened(path: str, split: str, classes: tuple[str, ...], values: str) -> Source:
    """The class maps of a dataset, by its layout; of this split if it is divided."""
    layout, found = recognise(path)
    match layout:
        case Layout.MAP_FOLDER:
            return maps.folder(found, classes or None, values=numbers(values) if values else None)
        case Layout.CITYSCAPES:
            return maps.cityscapes(found, split)
        case Layout.VOC:
            return maps.voc(found, split)
        case Layout.PANOPTIC:
            return maps.panoptic(found)
        case Layout.COCO:
            return maps.from_objects(objects.coco(found, masks=True))
    raise DataError(f"{path} is a {layout}, which has no masks")


def numbers(text: str) -> dict[int, int | None]:
    """`0:0,255:1` as values and their classes; `7:` stands for none. Raises ValueError for other texts."""
    try:
        pairs = [each.split(":") for each in text.split(",")]
        return {int(value): int(label) if label else None for value, label in pairs}
    except ValueError:
        raise ValueError(
            f"--config.mask_values={text!r}: allowed are pairs such as 0:0,255:1, or 7: for a value of none"
        ) from None


def unet_task(classes: int, dtype) -> Task:
    backbone = resnet.resnet18(None, dtype=dtype).backbone
    return segmenter(BackboneUNet(backbone, classes, dtype=dtype), multiple_of=32, dtype=dtype)


def deeplab_task(classes: int, dtype) -> Task:
    return deeplab(deeplabv3_resnet50(classes, dtype=dtype), dtype=dtype)


NETWORKS: dict[str, Callable[..., Task]] = {"unet": unet_task, "deeplab": deeplab_task}

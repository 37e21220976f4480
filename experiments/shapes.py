"""A small detector on synthetic shapes: circles, squares and triangles of 96 px images, made from a seed.

    python -m jaxvision.main --config=experiments/shapes.py --workdir=runs/shapes --config.detector=ssd

A proof that each detector learns, and a first one to play with: nothing is downloaded. Tested on shapes of another seed.
A field that is 0 takes the detector's own value, and config.json has it. Measured (seed 0, one busy CPU core, SSD and YOLO
two cores, 2026-11-28, JAX 0.10.2):

| `--config.detector=` | AP | AP50 | steps | minutes | 32 images by heart |
|---|---|---|---|---|---|
| `ssd` | 78.7 | 98.5 | 2,500 | 5 | 1,500 steps, 3 minutes: AP 100, AP50 100 (at 600 already) |
| `yolo`: YOLOv3-tiny, a quarter as wide | 70.0 | 98.3 | 2,500 | 3, alone | 1,500 steps, 2 minutes: 100, 100 |
| `yolox`: an eighth as wide as L | 81.3 | 94.2 | 2,500 | 5 | 1,500 steps, 4 minutes: 98.0, 98.0 (at 600 already) |
| `retinanet` | 72.6 | 95.4 | 2,500 | 10 | 1,500 steps, 6 minutes: 98.9, 99.8 |
| `faster_rcnn` | 89.6 | 99.6 | 2,500 | 15 | 1,500 steps, 8 minutes: 100, 100 (at 900 already) |
| `fast_rcnn` | 89.3 | 99.3 | 2,500 | 16, three of them the search | not measured |
| `rcnn` | 90.9 | 98.8 | 1,200 | 22 (14 of processor time) | not measured |
| `detr` | 65.8 | 90.5 | 12,000 | 14 | 700 steps, 4 minutes: 98.1, 100 (2026-11-22) |

R-CNN had AP 90.9, AP50 98.7 after 960 steps, about 18 minutes. DETR after 4,000 steps alone, with the rate falling to the
end, had AP 14.2. By heart is `--config.examples=32 --config.test_on_train=True --config.steps=...`.

With masks, 32 images by heart alone (seed 0, batches of 8, on a machine busy with much else, 2026-11-30): `yolact`, in 800
steps and 18 minutes, has mask AP 75.2, AP50 100 (73.7 after 160 steps; its prototypes have half the side of the image);
`detr_segmentation`, in 700 steps and 10 minutes, has 47.2 and 84.8, its boxes 92.6 and 99.8: its maps have a quarter of the
side. `mask_rcnn`, in 500 steps of batches of 16 and 5 minutes with nothing beside it,
has 98.6 and 100, its boxes 99.6 and 100. Tested on other images, `mask_rcnn` has mask AP 92.8, AP50 99.3, its boxes 89.5 and
99.3, in 2,500 steps and 25 minutes of processor time.

The proposals of Fast R-CNN and R-CNN come from selective search (`pip install 'jaxvision[proposals]'`), computed once, a
fifth of a second an image, and kept: of 24 images of seed 0 every object has one with an IoU of 0.5 or more, the mean best
IoU is 0.97.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import flip, vertical_flip
from jaxvision.augment.compose import chain, identity
from jaxvision.data import order, resident, synthetic, target
from jaxvision.data.loading import Open
from jaxvision.data.proposals import Search, finder
from jaxvision.data.target import TargetForm
from jaxvision.draw import detection as box_pictures
from jaxvision.draw import instances as mask_pictures
from jaxvision.errors import nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection as metrics
from jaxvision.metrics.instances import instances
from jaxvision.nn import resnet
from jaxvision.nn.darknet import DarknetTiny
from jaxvision.ops.nms import greedy
from jaxvision.tasks.detr import DETR, detr
from jaxvision.tasks.detr_segmentation import detr_segmentation, segmenting
from jaxvision.tasks.fast_rcnn import fast_rcnn, fast_rcnn_fpn
from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_fpn
from jaxvision.tasks.mask_rcnn import mask_rcnn, with_mask_head
from jaxvision.tasks.rcnn import rcnn, rcnn_last_map
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.tasks.roi_heads import ROIHeads
from jaxvision.tasks.rpn import RPN
from jaxvision.tasks.ssd import SSD, Features, paper, ssd
from jaxvision.tasks.yolact import SIDES, yolact, yolact_fpn
from jaxvision.tasks.yolo import YOLOv3Tiny, yolo
from jaxvision.tasks.yolox import YOLOX, CSPDarknet, Make, yolox
from jaxvision.train import evenly, exponential_average, intervals
from jaxvision.trust import groups
from jaxvision.types import Task

CLASSES = ("circle", "square", "triangle")
MEAN, STD = 127.5, 64.0
ANCHORS = ((8,), (16,), (32,), (64,), (128,))
"""Faster R-CNN's anchor sizes on P2 to P6: a quarter of the published ones."""
OCTAVES = tuple(tuple(base * 2 ** (third / 3) for third in range(3)) for base in (10, 20, 40, 80, 160))
"""RetinaNet's anchor sizes on P3 to P7: three in an octave, a third of the published ones."""
PRIORS = ((0.28, 0.36, 0.46), (0.12, 0.16, 0.21))
"""YOLO's prior boxes, squares with these parts of the canvas as sides: of the coarse grid, and of the fine one."""


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "detector": "ssd",
            "size": 96,
            "examples": 0,
            "test_examples": 200,
            "test_on_train": False,
            "max_objects": 6,
            "width": 0,
            "batch_size": 0,
            "steps": 0,
            "learning_rate": 0.0,
            "weight_decay": 1e-4,
            "ema": 0.99,
            "precision": "auto",
            "every": {"log": 50, "evaluate": 0, "checkpoint": 0},
            "retinanet": {"channels": 64, "depth": 2},
            "faster_rcnn": {"channels": 64, "hidden": 128, "proposals": 50, "regions": 32},
            "mask_rcnn": {"channels": 64, "hidden": 128, "proposals": 50, "regions": 32},
            "fast_rcnn": {"channels": 64, "hidden": 128, "proposals": 200, "regions": 32},
            "rcnn": {"crop": 32, "context": 2, "proposals": 200, "regions": 32},
            "detr": {"model_width": 64, "layers": 2, "queries": 12, "dropout": 0.0},
            "detr_segmentation": {"model_width": 64, "layers": 2, "queries": 12, "dropout": 0.0},
            "yolact": {"channels": 64, "prototypes": 32},
        }
    )


def build(config) -> Experiment:
    def shapes(count, seed):
        return synthetic.shapes(count, seed=seed, size=config.size, max_objects=config.max_objects, classes=CLASSES)

    learned, tested = (
        (lambda: shapes(config.examples, config.seed)),
        lambda: shapes(config.test_examples, config.seed + 1000),
    )
    made = learning(config, learned, tested, attributes=("colour",))
    by_colour = {"colour": groups.of_objects("colour", synthetic.COLOURS)}
    return made._replace(evaluations={name: each._replace(groups=by_colour) for name, each in made.evaluations.items()})


def learning(config, learned: Open, tested: Open, rows: TargetForm | None = None, attributes=()) -> Experiment:
    """The detector of the config, trained on one source of `CLASSES` and tested on another; `rows` None: `max_objects`."""
    if config.detector not in DETECTORS:
        raise ValueError(f"no detector {config.detector!r}{nearest(config.detector, tuple(DETECTORS))}")
    detector = DETECTORS[config.detector]
    fill_in(config, detector)
    tested = learned if config.test_on_train else tested
    masks = "bits" if detector.masks else None
    rows = rows or target.objects(config.max_objects, masks=masks, attributes=attributes)
    options = {"canvas": config.size, "batch_size": config.batch_size, "target": rows}
    if detector.searched:
        search = finder(Search(width=2 * config.size, smallest=8))
        options["given"] = target.proposals(config[config.detector].proposals, search)
    metric = (instances if detector.masks else metrics)(CLASSES)
    pictures = mask_pictures if detector.masks else box_pictures
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 20, config.steps)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=detector.decayed)
    return Experiment(
        task=detector.task(config, jnp.dtype(config.precision)),
        optimizer=optax.chain(optax.clip_by_global_norm(detector.clip), adamw),
        steps=config.steps,
        train=resident.training(learned, order=order.shuffled(config.seed), **options),
        augment=identity if config.test_on_train else chain(flip(), vertical_flip()),
        evaluations={"test": Evaluation(resident.evaluation(tested, **options), metric, pictures.report)},
        average=exponential_average(config.ema),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, evenly(config.steps, 5)),
        keep=Keep(latest=2, best=1, by="test/mask_AP" if detector.masks else "test/AP"),
    )


class Detector(NamedTuple):
    """How a detector is built and trained here."""

    task: Callable[..., Task]
    """`(config, dtype) -> Task`."""
    width: int
    """Channels of the first stage."""
    examples: int = 2000
    batch_size: int = 16
    steps: int = 2500
    learning_rate: float = 2e-3
    clip: float = 10.0
    """The largest global norm of a gradient."""
    decayed: Callable | None = None
    """The parameters that decay; None: all."""
    searched: bool = False
    """Whether it takes proposals of selective search."""
    masks: bool = False
    """Whether it finds masks."""


def fill_in(config, detector: Detector) -> None:
    """Puts the detector's own values where the config has 0."""
    with config.unlocked():
        for field in ("width", "examples", "batch_size", "steps", "learning_rate"):
            config[field] = config[field] or getattr(detector, field)


def residual(config, stages: int, dtype, stem: str = "imagenet") -> resnet.Backbone:
    """A residual network of one block a stage."""
    return resnet.Backbone(resnet.BasicBlock, (1,) * stages, width=config.width, stem=stem, dtype=dtype)


def ssd_task(config, dtype) -> Task:
    features = Features(residual(config, 4, dtype), 0, (), dtype=dtype)
    defaults = paper((0.11, 0.17, 0.28, 0.42, 0.6), ((2,),) * 4, (4, 8, 16, 32))
    network = SSD(features, len(CLASSES), (4,) * 4, dtype=dtype)
    return ssd(network, defaults, mean=MEAN, std=STD, max_detections=50, dtype=dtype)


def yolo_task(config, dtype) -> Task:
    network = YOLOv3Tiny(DarknetTiny(config.width, layers=6, dtype=dtype), len(CLASSES))
    priors = tuple(tuple((side * config.size,) * 2 for side in sides) for sides in PRIORS)
    return yolo(network, priors, max_detections=50, dtype=dtype)


def yolox_task(config, dtype) -> Task:
    make = Make(dtype=dtype)
    network = YOLOX(CSPDarknet(config.width, 1, make), len(CLASSES), 1, make)
    return yolox(network, max_detections=50, dtype=dtype)


def retinanet_task(config, dtype) -> Task:
    network = retinanet_fpn(residual(config, 4, dtype), len(CLASSES), **config.retinanet)
    return retinanet(network, sizes=OCTAVES, mean=MEAN, std=STD, pre_nms_top_k=200, max_detections=50, dtype=dtype)


def faster_rcnn_task(config, dtype) -> Task:
    sizes = config.faster_rcnn
    network = faster_rcnn_fpn(residual(config, 4, dtype), len(CLASSES), channels=sizes.channels, hidden=sizes.hidden)
    return faster_rcnn(network, **two_stages(sizes), mean=MEAN, std=STD, dtype=dtype)


def mask_rcnn_task(config, dtype) -> Task:
    sizes = config.mask_rcnn
    boxes = faster_rcnn_fpn(residual(config, 4, dtype), len(CLASSES), channels=sizes.channels, hidden=sizes.hidden)
    network = with_mask_head(boxes, channels=sizes.channels, layers=2)
    return mask_rcnn(network, **two_stages(sizes), mean=MEAN, std=STD, dtype=dtype)


def two_stages(sizes) -> dict:
    """How both stages are trained, and the anchors of the first."""
    post = 2 * sizes.proposals, sizes.proposals
    rpn = RPN(samples_per_image=128, pre_nms_top_k=(2 * post[0], 2 * post[1]), post_nms_top_k=post)
    roi_heads = ROIHeads(
        samples_per_image=sizes.regions, pre_nms_top_k=4 * sizes.proposals, max_detections=sizes.proposals
    )
    return {"sizes": ANCHORS, "rpn": rpn, "roi_heads": roi_heads}


def fast_rcnn_task(config, dtype) -> Task:
    sizes = config.fast_rcnn
    network = fast_rcnn_fpn(residual(config, 3, dtype), len(CLASSES), channels=sizes.channels, hidden=sizes.hidden)
    roi_heads = ROIHeads(samples_per_image=sizes.regions, nms=greedy(0.3), max_detections=50)
    return fast_rcnn(network, mean=MEAN, std=STD, roi_heads=roi_heads, dtype=dtype)


def rcnn_task(config, dtype) -> Task:
    sizes = config.rcnn
    network = rcnn_last_map(residual(config, 3, dtype, stem="cifar"), len(CLASSES))
    roi_heads = ROIHeads(samples_per_image=sizes.regions, nms=greedy(0.3), max_detections=50)
    return rcnn(network, size=sizes.crop, context=sizes.context, mean=MEAN, std=STD, roi_heads=roi_heads, dtype=dtype)


def detr_task(config, dtype) -> Task:
    return detr(transformer(config, config.detr, 4, dtype), mean=MEAN, std=STD, dtype=dtype)


def detr_segmentation_task(config, dtype) -> Task:
    network = segmenting(transformer(config, config.detr_segmentation, 8, dtype))
    return detr_segmentation(network, mean=MEAN, std=STD, dtype=dtype)


def transformer(config, sizes, heads: int, dtype) -> DETR:
    return DETR(
        residual(config, 3, dtype),
        len(CLASSES),
        queries=sizes.queries,
        width=sizes.model_width,
        heads=heads,
        hidden=4 * sizes.model_width,
        encoder_layers=sizes.layers,
        decoder_layers=sizes.layers,
        dropout=sizes.dropout,
        dtype=dtype,
    )


def yolact_task(config, dtype) -> Task:
    sizes = config.yolact
    network = yolact_fpn(
        residual(config, 3, dtype), len(CLASSES), finest=4, channels=sizes.channels, prototype_count=sizes.prototypes
    )
    halved = tuple(tuple(side / 2 for side in level) for level in SIDES)
    return yolact(network, sides=halved, mean=MEAN, std=STD, max_detections=50, dtype=dtype)


DETECTORS = {
    "ssd": Detector(ssd_task, width=24),
    "yolo": Detector(yolo_task, width=8),
    "yolox": Detector(yolox_task, width=8, decayed=optimize.kernels),
    "retinanet": Detector(retinanet_task, width=24),
    "faster_rcnn": Detector(faster_rcnn_task, width=24),
    "mask_rcnn": Detector(mask_rcnn_task, width=24, masks=True),
    "fast_rcnn": Detector(fast_rcnn_task, width=24, examples=1000, searched=True),
    "rcnn": Detector(rcnn_task, width=16, examples=1000, batch_size=8, steps=1200, searched=True),
    "detr": Detector(detr_task, width=16, steps=12000, learning_rate=1e-3, clip=1.0),
    "detr_segmentation": Detector(
        detr_segmentation_task, width=16, steps=12000, learning_rate=1e-3, clip=1.0, masks=True
    ),
    "yolact": Detector(yolact_task, width=24, masks=True),
}

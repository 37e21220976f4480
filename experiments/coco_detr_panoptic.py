"""DETR on ResNet-50 with masks, trained on COCO panoptic (arXiv:2005.12872, section 4.4): boxes first, then masks.

    python -m jaxvision.main --config=experiments/coco_detr_panoptic.py --workdir=runs/coco_detr_panoptic

Two runs. `--config.stage=boxes --workdir=runs/coco_detr_boxes` trains DETR on the boxes of things and stuff, from a file of
ResNet-50's ImageNet weights in torchvision's form, `--config.resnet50=...` (empty: random weights, for trials); then
`--config.boxes=runs/coco_detr_boxes` trains the mask head on it, all else frozen. `--config.detr=...` is a file of the
published `facebook/detr-resnet-50-panoptic` in transformers' form, in place of both, to evaluate with
`--config.steps=1 --config.learning_rate=0.0`. `data_dir` holds `train2017/`, `val2017/` and, in `annotations/`,
`panoptic_*2017.json` beside the folders of their maps. The recipe is the authors' (their README): AdamW at 1e-4 of 16 images,
gradients clipped at 0.1; 300 epochs for boxes, the rate divided by ten after 200, that of the backbone a tenth; 25 epochs for
masks, divided after 15. Images are changed as in coco_detr.py. Expected: PQ 43.4 (the authors' README). Not measured by us.
"""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import chain, flip, resized_crop, scale_jitter, sometimes
from jaxvision.data import buckets, maps, order, placement, streams, target
from jaxvision.draw import detection as pictures
from jaxvision.draw import panoptic as panoptic_pictures
from jaxvision.errors import nearest
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection
from jaxvision.metrics.panoptic import panoptic
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.coco import PANOPTIC_CLASSES, THINGS
from jaxvision.pretrained.detr import panoptic_sources
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import inside
from jaxvision.run import map_records
from jaxvision.run.transfer import from_run
from jaxvision.tasks.detr import DETR, Outputs, detr
from jaxvision.tasks.detr_segmentation import detr_segmentation, detr_segmentation_resnet50
from jaxvision.train import Every, intervals
from jaxvision.types import Variables

EPOCH = 7_393
"""Steps of 16 images."""
EPOCHS = {"boxes": (300, 200), "masks": (25, 15)}
"""How long each stage is, and after how many epochs its rate falls."""
OF_MASKS = ("attention/.*", "mask_head/.*")


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/coco",
            "stage": "masks",
            "resnet50": "",
            "boxes": "",
            "detr": "",
            "short": 800,
            "longest": 1333,
            "layers": 6,
            "batch_size": 16,
            "steps": 0,
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


class Boxes(nn.Module):
    """DETR with the names that it has in the network of the second stage."""

    detr: DETR

    def __call__(self, images, size, *, train: bool) -> Outputs:
        """Outputs of DETR."""
        return self.detr(images, size, train=train)


def build(config) -> Experiment:
    if config.stage not in EPOCHS:
        raise ValueError(f"no stage {config.stage!r}{nearest(config.stage, tuple(EPOCHS))}")
    length, drop = EPOCHS[config.stage]
    with config.unlocked():
        config.steps = config.steps or length * EPOCH
    masks, dtype, begin = config.stage == "masks", jnp.dtype(config.precision), beginning(config)
    fixed = ("detr/.*",) if masks else ("detr/backbone/stem_.*", "detr/backbone/stage1_.*")

    def split(name: str):
        folder = Path(config.data_dir).expanduser()
        return maps.panoptic(folder / "annotations" / f"panoptic_{name}.json", images=folder / name)

    rows = target.objects(config.max_objects, masks="bits" if masks else None)
    options = {"batch_size": config.batch_size, "target": rows}
    sides = (config.short, config.longest)
    train = buckets.training(
        lambda: split("train2017"),
        placers=[placement.resize_shortest_edge(*sides, canvas) for canvas in (sides, sides[::-1])],
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    both, tested = placement.resize_shortest_edge(*sides, (config.longest, config.longest)), lambda: split("val2017")
    test = streams.evaluation(tested, placer=both, **options)
    rate = optax.piecewise_constant_schedule(config.learning_rate, {drop * EPOCH: 0.1})
    layers = {"encoder_layers": config.layers, "decoder_layers": config.layers}
    network = detr_segmentation_resnet50(len(PANOPTIC_CLASSES), dtype=dtype, **layers)
    metric = panoptic(PANOPTIC_CLASSES, THINGS, tested) if masks else detection(PANOPTIC_CLASSES)
    adamw = optax.adamw(rate, weight_decay=config.weight_decay)
    slower = optimize.rates({".*backbone/.*": 0.1, ".*": 1.0})
    clip = optax.clip_by_global_norm(0.1)
    return Experiment(
        task=detr_segmentation(network, dtype=dtype) if masks else detr(Boxes(network.detr), dtype=dtype),
        optimizer=optax.chain(clip, adamw) if masks else optax.chain(clip, adamw, slower),
        steps=config.steps,
        train=train,
        augment=chain(
            flip(), sometimes(0.5, resized_crop((0.3, 1.0), (384 / 600, 600 / 384))), scale_jitter((0.6, 1.0))
        ),
        evaluations={
            "val": Evaluation(test, metric, panoptic_pictures.report, map_records.panoptic(THINGS))
            if masks
            else Evaluation(test, metric, pictures.report)
        },
        start=begin,
        frozen=fixed if begin else (),
        scalars={"learning_rate": rate},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=EPOCH, checkpoint=EPOCH)),
        keep=Keep(latest=2, best=1, by="val/PQ" if masks else "val/AP"),
    )


def beginning(config) -> Callable[[Variables], Variables] | None:
    """Weights to start from."""
    if config.detr:
        return start(panoptic_sources, config.detr)
    if config.boxes:
        return from_run(config.boxes, new=OF_MASKS)
    if config.resnet50:
        new = ("detr/(projection|queries|encoder|decoder|norm|classes|boxes).*", *OF_MASKS)
        sources = inside("detr", inside("backbone", torchvision.resnet_sources))
        return start(sources, config.resnet50, new=new, unused=(r"fc\..*",))
    return None

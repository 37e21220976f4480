"""DETR on ResNet-50, trained on COCO 2017 (arXiv:2005.12872).

    python -m jaxvision.main --config=experiments/coco_detr.py --workdir=runs/coco_detr

`data_dir` is as in coco_ssd300.py; `resnet50` is a file of ResNet-50's ImageNet weights in torchvision's form, whose batch
normalisation, stem and first stage stay as they are; empty: random weights, for trials. `detr` is a file of the published
`facebook/detr-resnet-50` in transformers' form, to train on, or with `--config.steps=1 --config.learning_rate=0.0` to
evaluate. The recipe is the authors': AdamW at 1e-4, a tenth of it for the backbone, 64 images, gradients clipped at 0.1,
the rate divided by ten after 400 of 500 epochs (for 300 epochs `--config.steps=554400`, the rate divided after
`--config.drop=369600`). Images are flipped, half of them cropped, and 480 to 800 pixels high, on one canvas for wide images
and one for tall ones; crops are taken on the device from the resized image and stretched to its aspect. The authors' keep
their own, and have sides of 384 to 600 pixels of an image whose short one is 400, 500 or 600: here that is 0.3 to 1 of the
area at the same ratios. Expected: 42.0 AP after 500 epochs (the authors' README), 40.6 after 300 (the paper's table 2); six
days of eight V100 for 300 epochs, the authors say. Not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import chain, flip, resized_crop, scale_jitter, sometimes
from jaxvision.data import buckets, objects, order, placement, streams, target
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection as metrics
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.coco import CLASSES
from jaxvision.pretrained.detr import coco_sources
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import inside
from jaxvision.tasks.detr import detr, detr_resnet50
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/coco",
            "resnet50": "",
            "detr": "",
            "short": 800,
            "longest": 1333,
            "layers": 6,
            "batch_size": 64,
            "steps": 924_000,
            "drop": 739_200,
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {"batch_size": config.batch_size, "target": target.objects(config.max_objects)}
    sides = (config.short, config.longest)

    train = buckets.training(
        lambda: objects.coco_split(config.data_dir, "train2017"),
        placers=[placement.resize_shortest_edge(*sides, canvas) for canvas in (sides, sides[::-1])],
        order=order.shuffled(config.seed),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    both = placement.resize_shortest_edge(*sides, (config.longest, config.longest))
    test = streams.evaluation(lambda: objects.coco_split(config.data_dir, "val2017"), placer=both, **options)
    layers = {"encoder_layers": config.layers, "decoder_layers": config.layers}
    rate = optax.piecewise_constant_schedule(config.learning_rate, {config.drop: 0.1})
    begin = None
    if config.detr:
        begin = start(coco_sources, config.detr)
    elif config.resnet50:
        new = ("projection/.*", "queries", "(en|de)coder.*", "norm/.*", "classes/.*", "boxes.*")
        begin = start(inside("backbone", torchvision.resnet_sources), config.resnet50, new=new, unused=(r"fc\..*",))
    return Experiment(
        task=detr(detr_resnet50(len(CLASSES), dtype=dtype, **layers), dtype=dtype),
        optimizer=optax.chain(
            optax.clip_by_global_norm(0.1),
            optax.adamw(rate, weight_decay=config.weight_decay),
            optimize.rates({"backbone/.*": 0.1, ".*": 1.0}),
        ),
        steps=config.steps,
        train=train,
        augment=chain(
            flip(), sometimes(0.5, resized_crop((0.3, 1.0), (384 / 600, 600 / 384))), scale_jitter((0.6, 1.0))
        ),
        evaluations={"val": Evaluation(test, metrics(CLASSES), pictures.report)},
        start=begin,
        frozen=("backbone/stem_.*", "backbone/stage1_.*") if begin else (),
        scalars={"learning_rate": rate, "learning_rate_backbone": lambda step: 0.1 * rate(step)},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=18_480, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="val/AP"),
    )

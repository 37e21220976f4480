"""Fast R-CNN on VGG16 and selective search, trained and tested on VOC 2007 (arXiv:1504.08083).

    python -m jaxvision.data.proposals ~/datasets/VOCdevkit/VOC2007
    python -m jaxvision.main --config=experiments/voc_fast_rcnn.py --workdir=runs/voc_fast_rcnn

The first command searches all images once and keeps what it finds; it prints the recall. `data_dir` holds `VOC2007/`;
`vgg16` is a file of torchvision's ImageNet classifier (`vgg16-397923af.pth`), whose mean and standard deviation images get
here; that of the SSDs is Caffe's, and its dense layers are not numbers. The recipe is the paper's: two images a batch with
64 regions each, short sides of 600 pixels, the first two stages of VGG16 frozen, 40,000 steps, the rate divided by ten after
30,000, that of biases twice as high; the new layers start as those of Faster R-CNN, not with the paper's normal numbers.
Expected: 68.1 mAP (VOC07's 11 points, `test/AP_voc07`; table 1, trained without difficult objects) with Caffe's VGG16. Not
measured by us, nor checked against the paper once more.
"""

from pathlib import Path

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import flip
from jaxvision.data import buckets, objects, order, placement, streams, target
from jaxvision.data.proposals import finder
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.formats import voc
from jaxvision.metrics.detection import detection as metrics
from jaxvision.pretrained.preprocessing import TORCHVISION
from jaxvision.pretrained.start import start
from jaxvision.pretrained.torchvision_regions import vgg16_sources
from jaxvision.tasks.fast_rcnn import fast_rcnn, fast_rcnn_vgg16
from jaxvision.train import Every, intervals

CLASSES = voc.VOC_CLASSES


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/datasets/VOCdevkit",
            "vgg16": "",
            "short": 600,
            "longest": 1000,
            "hidden": 4096,
            "batch_size": 2,
            "steps": 40_000,
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "proposals": 2000,
            "max_objects": 100,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    dtype = jnp.dtype(config.precision)
    options = {
        "batch_size": config.batch_size,
        "target": target.objects(config.max_objects),
        "given": target.proposals(config.proposals, finder()),
    }

    def placer(height: int, width: int) -> placement.Placer:
        return placement.resize_shortest_edge(config.short, config.longest, (height, width))

    def data(split: str):
        return objects.voc(Path(config.data_dir).expanduser() / "VOC2007", split)

    train = buckets.training(
        lambda: data("trainval"),
        order=order.shuffled(config.seed),
        placers=(placer(config.short, config.longest), placer(config.longest, config.short)),
        seed=config.seed,
        on_bad_image="skip",
        **options,
    )
    test = streams.evaluation(lambda: data("test"), placer=placer(config.longest, config.longest), **options)
    schedule = optax.piecewise_constant_schedule(config.learning_rate, {config.steps * 3 // 4: 0.1})
    begin = start(vgg16_sources, config.vgg16, new=("box_head/(logits|offsets).*",), unused=("classifier.6.*",))
    return Experiment(
        task=fast_rcnn(
            fast_rcnn_vgg16(len(CLASSES), hidden=config.hidden, dtype=dtype),
            mean=TORCHVISION.mean,
            std=TORCHVISION.std,
            dtype=dtype,
        ),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, optimize.kernels),
            optax.sgd(schedule, config.momentum),
            optimize.rates({".*/bias": 2.0, ".*": 1.0}),
        ),
        steps=config.steps,
        train=train,
        augment=flip(),
        evaluations={"test": Evaluation(test, metrics(CLASSES, voc=True), pictures.report)},
        start=begin if config.vgg16 else None,
        frozen=("features/backbone/stage[12]_.*",) if config.vgg16 else (),
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=10_000, checkpoint=5_000)),
        keep=Keep(latest=2, best=1, by="test/AP_voc07"),
    )

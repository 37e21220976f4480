"""ResNet-50 (v1.5) on ImageNet, the 90-epoch recipe: SGD, 5 epochs of warm-up, cosine decay, label smoothing.

    python -m jaxvision.main --config=experiments/imagenet_resnet50.py --workdir=runs/imagenet_resnet50

The data must be prepared by TFDS as array_record (imagenet2012 asks for the two tar files of the challenge). The recipe is
put together from two papers: rate, warm-up, decay and 90 epochs from arXiv:1706.02677, no decay of biases and norms, a
cosine and label smoothing from arXiv:1812.01187, which trains for 120; from both, residual branches that begin at nothing.
Expected: 76-76.5 % top-1 on the 50,000 validation images, as both report for parts of it; not measured by us yet.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment.geometry import flip
from jaxvision.data import order, placement, streams, tfds
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.resnet import resnet50
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "image_size": 224,
            "batch_size": 1024,
            "epochs": 90,
            "warmup_epochs": 5,
            "learning_rate_per_256": 0.1,
            "weight_decay": 1e-4,
            "label_smoothing": 0.1,
            "width": 64,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    classes, train_examples = 1000, 1_281_167
    dtype = jnp.dtype(config.precision)
    steps_per_epoch = train_examples // config.batch_size
    steps = config.epochs * steps_per_epoch
    peak = config.learning_rate_per_256 * config.batch_size / 256
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, config.warmup_epochs * steps_per_epoch, steps)
    network = resnet50(classes, width=config.width, dtype=dtype, zero_init_last=True)

    def data(split: str):
        return tfds.source("imagenet2012", split, config.data_dir)

    train = streams.training(
        lambda: data("train"),
        order=order.shuffled(config.seed),
        placer=placement.random_resized_crop(config.image_size),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    validation = streams.evaluation(
        lambda: data("validation"),
        placer=placement.resize_and_centre_crop(config.image_size * 8 // 7, config.image_size),
        batch_size=config.batch_size,
    )
    return Experiment(
        task=classification(network, label_smoothing=config.label_smoothing, dtype=dtype),
        optimizer=optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=optimize.kernels),
            optax.sgd(schedule, momentum=0.9, nesterov=True),
        ),
        steps=steps,
        train=train,
        augment=flip(),
        evaluations={"validation": Evaluation(validation, metrics(classes), pictures.report)},
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=steps_per_epoch * 5, checkpoint=steps_per_epoch)),
        keep=Keep(latest=2, best=1, by="validation/accuracy"),
    )

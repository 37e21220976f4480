"""ViT-S/16 on ImageNet, by the recipe of DeiT (arXiv:2012.12877): AdamW, RandAugment, mixup and CutMix.

    python -m jaxvision.main --config=experiments/imagenet_vit_small.py --workdir=runs/imagenet_vit_small

The data must be prepared by TFDS as array_record (imagenet2012 asks for the two tar files of the challenge).
Each epoch shows a third of the images three times (repeated augmentation), cropped with bicubic interpolation. Unlike in
the authors' code the rate follows the step, not the epoch; mixup and CutMix are chosen, and their fractions sampled, for
each image and not each batch; what RandAugment moves is bilinear. Expected: 79.8 % top-1 on the 50,000 validation images,
what the paper reports for DeiT-S; not measured by us.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import optimize
from jaxvision.augment import chain, choose, cutmix, flip, mixup, randaugment_timm, random_erasing
from jaxvision.data import order, placement, streams, tfds
from jaxvision.data.interpolation import PIL_BICUBIC
from jaxvision.draw import classification as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.nn.vit import vit_small
from jaxvision.tasks.classification import classification
from jaxvision.train import Every, intervals


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "image_size": 224,
            "batch_size": 1024,
            "epochs": 300,
            "warmup_epochs": 5,
            "learning_rate_per_512": 5e-4,
            "weight_decay": 0.05,
            "label_smoothing": 0.1,
            "stochastic_depth": 0.1,
            "magnitude": 9.0,
            "repeats": 3,
            "erasing": 0.25,
            "mixup": 0.8,
            "cutmix": 1.0,
            "precision": "auto",
            "every": {"log": 100, "evaluate": 0, "checkpoint": 0},
        }
    )


def build(config) -> Experiment:
    classes, train_examples = 1000, 1_281_167
    dtype = jnp.dtype(config.precision)
    steps_per_epoch = train_examples // config.batch_size
    steps = config.epochs * steps_per_epoch
    peak = config.learning_rate_per_512 * config.batch_size / 512
    warmup = config.warmup_epochs * steps_per_epoch
    rising = optax.linear_schedule(1e-6, peak, warmup)
    falling = optax.cosine_decay_schedule(peak, steps, alpha=1e-5 / peak)
    schedule = lambda step: jnp.where(step < warmup, rising(step), falling(step))
    network = vit_small(classes, stochastic_depth=config.stochastic_depth, dtype=dtype)

    def data(split: str):
        return tfds.source("imagenet2012", split, config.data_dir)

    train = streams.training(
        lambda: data("train"),
        order=order.repeated(config.seed, config.repeats, max(config.batch_size // config.repeats, 1)),
        placer=placement.random_resized_crop(config.image_size, interpolation=PIL_BICUBIC),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    validation = streams.evaluation(
        lambda: data("validation"),
        placer=placement.resize_and_centre_crop(
            config.image_size * 8 // 7, config.image_size, interpolation=PIL_BICUBIC
        ),
        batch_size=config.batch_size,
    )
    return Experiment(
        task=classification(network, label_smoothing=config.label_smoothing, dtype=dtype),
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay, mask=optimize.kernels),
        steps=steps,
        train=train,
        augment=chain(
            flip(),
            randaugment_timm(2, config.magnitude),
            random_erasing(config.erasing, fill="normal"),
            choose(mixup(config.mixup, classes), cutmix(config.cutmix, classes)),
        ),
        evaluations={"validation": Evaluation(validation, metrics(classes), pictures.report)},
        scalars={"learning_rate": schedule},
        seed=config.seed,
        every=intervals(config.every, Every(evaluate=steps_per_epoch * 5, checkpoint=steps_per_epoch)),
        keep=Keep(latest=2, best=1, by="validation/accuracy"),
    )

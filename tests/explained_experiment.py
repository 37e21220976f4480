"""A small SSD with random weights, whose training changes nothing: for the command that explains. Not a test itself."""

import jax
import numpy as np
import optax
from detectors import CLASSES, SIDE, small_ssd, variables_of
from ml_collections import ConfigDict

from jaxvision.data import order, placement, streams, synthetic, target
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment
from jaxvision.metrics.detection import detection
from jaxvision.train import Every
from jaxvision.types import LossOutput, Task


def get_config() -> ConfigDict:
    return ConfigDict({"precision": "auto", "weaker": 0.6})


def build(config) -> Experiment:
    ssd = small_ssd()

    def init(key, batch):
        weaker = lambda path, x: config.weaker * x if path[-1].key == "kernel" else x
        return jax.tree_util.tree_map_with_path(weaker, variables_of(ssd, batch, seed=2))

    def loss(variables, batch, key):
        return sum(0.0 * x.sum() for x in jax.tree.leaves(variables["params"])), LossOutput({}, {})

    source = lambda: synthetic.shapes(4, seed=0, size=64, max_objects=3)
    options = {"batch_size": 2, "target": target.objects(4), "placer": placement.stretch(SIDE)}
    test = streams.evaluation(source, **options)
    return Experiment(
        task=Task(init, loss, ssd.predict),
        optimizer=optax.sgd(0.0),
        steps=1,
        train=streams.training(source, order=order.shuffled(0), **options),
        evaluations={"test": Evaluation(test, detection(CLASSES), pictures.report)},
        every=Every(1, 1, 1),
    )


def scene(seed: int = 0) -> np.ndarray:
    """Noise, as the file of an image."""
    return np.random.default_rng(seed).integers(0, 255, (2 * SIDE, 3 * SIDE, 3), dtype=np.uint8)

"""A tiny detector with mosaic and two canvases; the tests of killed runs use it. Not a test itself."""

import boxes_experiment as scenes
import flax.linen as nn
import optax
from ml_collections import ConfigDict

from jaxvision.augment import chain, flip, mosaic
from jaxvision.data import buckets, order, placement, target
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.detection import detection
from jaxvision.tasks.yolo import yolo
from jaxvision.train import Every, exponential_average

PRIORS = (((10, 8), (16, 14)),)


class OneMap(nn.Module):
    """The outputs of a YOLO on one map of stride 8, by two convolutions and a norm."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(8, (8, 8), strides=8)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Conv(len(PRIORS[0]) * (5 + len(scenes.CLASSES)), (3, 3))(x)
        return [x.reshape(*x.shape[:3], len(PRIORS[0]), -1)]


def get_config() -> ConfigDict:
    return ConfigDict({"steps": 20, "log": 4, "evaluate": 10, "checkpoint": 5, "report": False, "precision": "auto"})


def build(config) -> Experiment:
    placers = [placement.letterbox((32, 48)), placement.letterbox((48, 32))]
    options = {"placers": placers, "batch_size": 4, "target": target.objects(8)}
    test = buckets.evaluation(scenes.source, **options)
    return Experiment(
        task=yolo(OneMap(), PRIORS, max_detections=10, pre_nms_top_k=20),
        optimizer=optax.adam(3e-3),
        steps=config.steps,
        train=buckets.training(scenes.source, order=order.shuffled(0), seed=0, **options),
        augment=chain(flip(), mosaic()),
        evaluations={"test": Evaluation(test, detection(scenes.CLASSES), pictures.report if config.report else None)},
        average=exponential_average(0.9),
        every=Every(log=config.log, evaluate=config.evaluate, checkpoint=config.checkpoint),
        keep=Keep(latest=2, best=1, by="test/AP50"),
    )

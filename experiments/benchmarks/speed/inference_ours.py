"""Sides of jaxvision in the benchmark `inference`: `run.load(...).predict`, and its parts alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments.benchmarks.speed import photographs, weight_files
from experiments.benchmarks.speed.contest import Work
from jaxvision import run
from jaxvision.data import media, placement
from jaxvision.nn import resnet
from jaxvision.pretrained import preprocessing, torchvision, torchvision_detection
from jaxvision.pretrained.published import Published
from jaxvision.pretrained.published_task import PublishedTask, blank
from jaxvision.pretrained.strict import Sources
from jaxvision.run import prediction
from jaxvision.tasks.ssd import SSD300, ssd, ssd300_vgg16

LEAST_SCORE = 0.02
"""What a detection needs to be told."""
TOLD = 5
"""Classes, or detections, of an image that are compared: the best."""


def classifier(network: str, side: int, batch: int, count: int, part: str = "whole") -> Work:
    """A ResNet; of each image the best classes."""
    return _work(resnet_model(network, side, batch), batch, count, part)


def detector(network: str, side: int, batch: int, count: int, part: str = "whole") -> Work:
    """An SSD; of each image the best detections, their boxes in pixels of the file."""
    return _work(ssd_model(network, side, batch), batch, count, part)


def resnet_model(network: str, side: int, batch: int) -> prediction.Model:
    """A ResNet as torchvision has it, for ImageNet's classes."""
    make, sources = getattr(resnet, network), torchvision.resnet_sources
    image = jnp.zeros((1, side, side, 3))
    _write(network, sources, jax.eval_shape(lambda: make().init(jax.random.key(0), image, train=False)))
    fit = preprocessing.centre_crop(side * 256 // 224, side)
    shown = preprocessing.TORCHVISION._replace(size=side, fit=fit)
    names = tuple(map(str, range(1000)))
    weights = Published(make, sources, partial(weight_files.path, network), shown, lambda: names)
    return run.load(weights, batch_size=batch)


def ssd_model(network: str, side: int, batch: int) -> prediction.Model:
    """SSD300 as torchvision has it."""
    task, sources = _ssd(weight_files.CLASSES), torchvision_detection.ssd_sources
    _write(network, sources, jax.eval_shape(task.init, jax.random.key(0), blank(side)), gain=2**0.5)
    shown = preprocessing.TORCHVISION._replace(size=side, fit=placement.stretch)
    names = tuple(map(str, range(weight_files.CLASSES)))
    weights = PublishedTask(_ssd, sources, partial(weight_files.path, network), shown, names, ())
    return run.load(weights, batch_size=batch)


def _ssd(classes: int) -> Any:
    return ssd(ssd300_vgg16(classes), SSD300)


def _write(name: str, sources: Sources, spec: Any, gain: float = 1.0) -> None:
    """The file of weights, as large as the network wants them."""
    arrays: dict[Any, Any] = {**traverse_util.flatten_dict(spec)}
    shapes = {}
    for place, source in sources(spec).items():
        turn: Any = source.convert
        shapes[source.name] = turn.back(np.zeros(arrays[place].shape, bool)).shape
    weight_files.write(name, shapes, gain)


def _work(model: prediction.Model, batch: int, count: int, part: str) -> Work:
    files = photographs.files(count)
    predict = partial(model.predict, score_threshold=LEAST_SCORE)

    def whole(units: int) -> None:
        if batch > 1:
            predict(files[: max(units, batch)])
            return
        for file in files[:units]:
            predict([file])

    def decoding(units: int) -> None:
        pictures = media.pictures(map(Path, files[:units]))
        for _ in media.decoded(pictures, model.preprocessing):
            pass

    canvases = [model.preprocessing(Path(file).read_bytes()) for file in files[:batch]]
    rows = prediction.batch_of(canvases, model.spec, 0)

    def alone(units: int) -> None:
        for _ in range(0, units, batch):
            jax.device_get(model.apply(rows))

    parts = {"whole": whole, "decoding": decoding, "model": alone}
    return Work(parts[part], lambda: [number for record in predict(files[:batch])[:2] for number in _numbers(record)])


def _numbers(record: Any) -> Sequence[float]:
    """What is compared of a record."""
    if "classes" in record:
        return [each["probability"] for each in record["classes"][:TOLD]]
    best = sorted(record["objects"], key=lambda each: -each["score"])[:TOLD]
    return [number for each in best for number in (each["score"], *(1000 + side for side in each["box"]))]

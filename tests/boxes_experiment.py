"""A detector that needs no training: a box around all bright pixels of a channel. Not a test itself."""

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision.data import buckets, order, placement, streams, target
from jaxvision.data.decode import decode
from jaxvision.data.source import Example, Source, annotations, no_labels
from jaxvision.draw import detection as pictures
from jaxvision.experiment import Evaluation, Experiment
from jaxvision.metrics.detection import detection
from jaxvision.train import Every
from jaxvision.types import Detections, LossOutput, Task

CLASSES = ("red", "green", "blue")
SCORES = (0.9, 0.6, 0.2)
COUNT = 6


def get_config() -> ConfigDict:
    return ConfigDict({"size": 32, "given": False, "buckets": False, "precision": "auto"})


def scene(seed: int):
    """A dark image of odd size with a rectangle of two or three colours, and their boxes in the order of the classes."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(60, 160, 2))
    image = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    boxes = []
    for k in range(2 + seed % 2):
        x0, y0 = (int(side * (0.05 + 0.3 * k)) for side in (width, height))
        x1, y1 = x0 + int(width * rng.uniform(0.15, 0.28)), y0 + int(height * rng.uniform(0.15, 0.28))
        image[y0:y1, x0:x1, k] = 250
        boxes.append([x0, y0, x1, y1])
    return image, np.array(boxes, np.float32)


def source() -> Source:
    def read(indices):
        scenes = [scene(int(i)) for i in indices]
        return [Example(image, objects=annotations(boxes, np.arange(len(boxes)))) for image, boxes in scenes]

    return Source(
        length=COUNT,
        read=read,
        labels=no_labels("the scenes"),
        classes=CLASSES,
        name="scene {}".format,
        fingerprint="scenes",
        objects=lambda: [example.objects for example in read(range(COUNT))],
    )


def around(bright):
    """The box around what is True."""
    rows, columns = bright.any(1), bright.any(0)
    low = [jnp.argmax(columns), jnp.argmax(rows)]
    high = [columns.size - jnp.argmax(columns[::-1]), rows.size - jnp.argmax(rows[::-1])]
    return jnp.stack([*low, *high]).astype(jnp.float32), bright.any()


def predict(variables, batch):
    found = [[around(image[..., k] > 145) for k in range(3)] for image in batch.image]
    boxes = jnp.stack([jnp.stack([box for box, _ in each]) for each in found])
    valid = jnp.stack([jnp.stack([there for _, there in each]) for each in found])
    count = len(found)
    labels, scores = jnp.tile(jnp.arange(3, dtype=jnp.int32), (count, 1)), jnp.tile(jnp.asarray(SCORES), (count, 1))
    return Detections(boxes, labels, scores, valid)


def proposed(image):
    """The same boxes in pixels of a file, as what is given to a model: larger by one on every side."""
    channels = np.moveaxis(decode(image, placement.keep(200)).image > 145, -1, 0)
    found = [np.asarray(box) + [-1, -1, 1, 1] for box, there in map(around, channels) if there]
    return np.array(found, np.float32).reshape(-1, 4)


def predict_given(variables, batch):
    given, labels = batch.given, jnp.arange(3, dtype=jnp.int32)
    every = lambda row: jnp.broadcast_to(row, given.valid.shape)
    return Detections(given.boxes, every(labels), every(jnp.asarray(SCORES)), given.valid)


def build(config) -> Experiment:
    options = {"batch_size": 4, "target": target.objects(4), "placer": placement.stretch(config.size)}
    if config.given:
        options["given"] = target.proposals(3, proposed)
    task = Task(
        init=lambda key, batch: {"params": {"scale": jnp.ones(())}},
        loss=lambda variables, batch, key: (variables["params"]["scale"] ** 2, LossOutput()),
        predict=predict_given if config.given else predict,
    )
    test = streams.evaluation(source, **options)
    if config.buckets:
        placers = [placement.letterbox((32, 48)), placement.letterbox((48, 32))]
        test = buckets.evaluation(source, placers=placers, batch_size=4, target=target.objects(4))
    return Experiment(
        task=task,
        optimizer=optax.sgd(0.1),
        steps=2,
        train=streams.training(source, order=order.shuffled(0), seed=0, **options),
        evaluations={"test": Evaluation(test, detection(CLASSES), pictures.report)},
        every=Every(log=1, evaluate=2, checkpoint=2),
    )

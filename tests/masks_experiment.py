"""Segmenters that need no training: what is bright in a channel is an object, or a class. Not a test itself."""

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvision.data import order, placement, streams, target
from jaxvision.data.source import ClassMap, Example, Source, annotations, no_labels
from jaxvision.draw import instances as instance_pictures
from jaxvision.draw import panoptic as panoptic_pictures
from jaxvision.draw import segmentation as class_pictures
from jaxvision.experiment import Evaluation, Experiment
from jaxvision.metrics.instances import instances
from jaxvision.metrics.panoptic import panoptic
from jaxvision.metrics.segmentation import segmentation
from jaxvision.run import map_records
from jaxvision.train import Every
from jaxvision.types import Detections, LossOutput, MapMasks, PixelScores, Task

COLOURS = ("red", "green", "blue")
CLASSES = {"instances": COLOURS, "semantic": ("background", *COLOURS), "panoptic": (*COLOURS, "ground")}
THINGS = (True, True, True, False)
SCORES = (0.95, 0.9, 0.2)
COUNT = 6


def get_config() -> ConfigDict:
    return ConfigDict(
        {"kind": "instances", "size": 64, "batch_size": 4, "steps": 2, "truth": False, "precision": "auto"}
    )


def scene(seed: int):
    """A dark image of odd size with an ellipse of two or three colours, and their masks in the order of the colours."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(60, 160, 2))
    image = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    masks = []
    for k in range(2 + seed % 2):
        y, x = (0.2 + 0.3 * k) * height, (0.2 + 0.3 * k) * width
        radius = rng.uniform(0.09, 0.14, 2) * [height, width]
        masks.append(((rows - y) / radius[0]) ** 2 + ((columns - x) / radius[1]) ** 2 < 1)
        image[masks[-1], k] = 250
    return image, np.array(masks)


def box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def example(seed: int, kind: str) -> Example:
    image, masks = scene(seed)
    if kind == "semantic":
        label = np.zeros(image.shape[:2], np.uint8)
        for k, mask in enumerate(masks, 1):
            label[mask] = k
        return Example(image, map=ClassMap(label, np.ones_like(label, bool)))
    labels = [*range(len(masks))]
    if kind == "panoptic":
        masks, labels = np.append(masks, ~masks.any(0)[None], 0), [*labels, 3]
    found = annotations([box(mask) for mask in masks], labels, area=masks.sum((1, 2)))
    return Example(image, objects=found._replace(masks=list(masks)))


def source(kind: str):
    read = lambda indices: [example(int(i), kind) for i in indices]
    return Source(
        length=COUNT,
        read=read,
        labels=no_labels("the scenes"),
        classes=CLASSES[kind],
        name="scene {}".format,
        fingerprint="scenes",
        objects=None if kind == "semantic" else lambda: [each.objects for each in read(range(COUNT))],
        maps=kind == "semantic",
    )


def around(bright):
    """The box around what is True."""
    rows, columns = bright.any(1), bright.any(0)
    low = [jnp.argmax(columns), jnp.argmax(rows)]
    high = [columns.size - jnp.argmax(columns[::-1]), rows.size - jnp.argmax(rows[::-1])]
    return jnp.stack([*low, *high]).astype(jnp.float32), bright.any()


def scores_of(image):
    """How bright each channel is, above 0 where it is an object; `b h w 3`."""
    return (image.astype(jnp.float32) - 145) / 20


def predict_objects(kind):
    def predict(variables, batch):
        logits = scores_of(batch.image)
        if kind == "panoptic":
            logits = jnp.concatenate([logits, -logits.max(-1, keepdims=True)], -1)
        found = [[around(each[..., k] > 0) for k in range(each.shape[-1])] for each in logits]
        boxes = jnp.stack([jnp.stack([box for box, _ in each]) for each in found])
        valid = jnp.stack([jnp.stack([there for _, there in each]) for each in found])
        count, classes = boxes.shape[:2]
        every = lambda row: jnp.tile(jnp.asarray(row)[None, :classes], (count, 1))
        labels, scores = every(np.arange(classes, dtype=np.int32)), every(np.float32([*SCORES, 0.99]))
        masks = MapMasks(jnp.moveaxis(logits, -1, 1), batch.image.shape[1:3])
        return Detections(boxes, labels, scores, valid, masks)

    return predict


def predict_classes(variables, batch):
    logits = scores_of(batch.image)
    every = jnp.concatenate([jnp.zeros_like(logits[..., :1]), logits], -1)
    return PixelScores(every[:, ::2, ::2])


def build(config) -> Experiment:
    kind = config.kind
    form = target.class_map() if kind == "semantic" else target.objects(4, masks="bits")
    place = placement.stretch if kind == "semantic" else placement.letterbox
    options = {"batch_size": config.batch_size, "target": form, "placer": place(config.size)}
    opened = lambda: source(kind)
    evaluation = {
        "instances": lambda test: Evaluation(
            test, instances(COLOURS, opened if config.truth else None), instance_pictures.report
        ),
        "semantic": lambda test: Evaluation(test, segmentation(CLASSES[kind], boundary=True), class_pictures.report),
        "panoptic": lambda test: Evaluation(
            test, panoptic(CLASSES[kind], THINGS), panoptic_pictures.report, map_records.panoptic(THINGS)
        ),
    }[kind]
    return Experiment(
        task=Task(
            init=lambda key, batch: {"params": {"scale": jnp.ones(())}},
            loss=lambda variables, batch, key: (variables["params"]["scale"] ** 2, LossOutput()),
            predict=predict_classes if kind == "semantic" else predict_objects(kind),
        ),
        optimizer=optax.sgd(0.1),
        steps=config.steps,
        train=streams.training(opened, order=order.shuffled(0), seed=0, **options),
        evaluations={"test": evaluation(streams.evaluation(opened, **options))},
        every=Every(log=1, evaluate=2, checkpoint=2),
    )

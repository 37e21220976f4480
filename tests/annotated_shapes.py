"""Stores of generated shapes, as a model would have left them: most objects right and sure, a few wrong and less so."""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.store import Store
from jaxvision.data.synthetic import COLOURS, shapes
from jaxvision.masks import runs

CLASSES = ("circle", "square", "triangle")
MODEL = Source("shapes_detector", "0123456789abcdef", '{"score":0.3}')


def make_store(folder: Path, count: int = 4, *, size: int = 160, seed: int = 0, masks: bool = True) -> Path:
    """Writes images of shapes below `folder/images` and a store of what a model found in them; the path of the store."""
    images, store = folder / "images", folder / "annotations.sqlite"
    images.mkdir(parents=True)
    source, rng = shapes(count, seed=seed, size=size, classes=CLASSES), np.random.default_rng(seed)
    with Store(store, create=True) as opened:
        opened.settings["images"] = json.dumps(str(images))
        opened.settings["classes"] = json.dumps(CLASSES)
        for number, example in enumerate(source.read(np.arange(count))):
            path = images / f"shapes {number:03}.png"
            Image.fromarray(example.image).save(path)
            objects = [_found(example.objects, row, rng, masks) for row in range(len(example.objects.labels))]
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            opened.put(ImageRecord(path.name, digest, (size, size), tuple(objects)), who=MODEL.model)
    return store


def _found(objects, row: int, rng: np.random.Generator, masks: bool) -> Annotation:
    """What the model says of an object: one of six is misnamed, with a lower score."""
    wrong = rng.random() < 1 / 6
    label = (int(objects.labels[row]) + wrong) % len(CLASSES)
    score = round(float(rng.uniform(0.3, 0.75) if wrong else rng.uniform(0.6, 0.99)), 3)
    mask = runs.encode(objects.masks[row]) if masks else None
    attributes = {"colour": COLOURS[objects.attributes["colour"][row]]}
    box = tuple(float(side) for side in objects.boxes[row])
    return Annotation(0, CLASSES[label], box, mask, score, score, attributes, (MODEL,))

"""Every network and detector whose trained weights ship in packages, by name."""

from typing import Any, NamedTuple

from jaxvision.errors import nearest
from jaxvision.pretrained import detectors, published
from jaxvision.pretrained.detectors import PublishedDetector
from jaxvision.pretrained.preprocessing import Preprocessing
from jaxvision.pretrained.published import Published, load_published
from jaxvision.tasks.classification import classification
from jaxvision.types import Task


class Classifier(NamedTuple):
    """A trained classifier."""

    task: Task
    variables: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing


def load_classifier(weights: Published) -> Classifier:
    """The classifier with its weights, downloaded at the first call; errors are those of `load_published`."""
    model = load_published(weights)
    task = classification(model.network, mean=model.preprocessing.mean, std=model.preprocessing.std)
    return Classifier(task, model.variables, model.classes, model.preprocessing)


def by_name() -> dict[str, Published | PublishedDetector]:
    """The values of `detectors` and `published` by their names in lower case: "ssd_mobilenet_v2"."""
    values = {**vars(detectors), **vars(published)}
    return {name.lower(): each for name, each in values.items() if isinstance(each, Published | PublishedDetector)}


def find(name: str) -> Published | PublishedDetector:
    """The published weights of this name. Raises ValueError for another, naming the nearest."""
    known = by_name()
    if name.lower() not in known:
        raise ValueError(f"there are no published weights {name!r}{nearest(name.lower(), sorted(known))}")
    return known[name.lower()]

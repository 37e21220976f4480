"""Every network and task whose trained weights ship in packages, by name."""

from jaxvision.errors import nearest
from jaxvision.pretrained import detectors, published, segmenters
from jaxvision.pretrained.published import Published, load_published
from jaxvision.pretrained.published_task import PublishedTask, TrainedTask, load_task
from jaxvision.tasks.classification import classification


def load(weights: Published | PublishedTask) -> TrainedTask:
    """The task of published weights, with them, downloaded at the first call.

    Errors are those of `load_published` and `load_task`.
    """
    if isinstance(weights, PublishedTask):
        return load_task(weights)
    model = load_published(weights)
    task = classification(model.network, mean=model.preprocessing.mean, std=model.preprocessing.std)
    return TrainedTask(task, model.variables, model.classes, model.preprocessing)


def by_name() -> dict[str, Published | PublishedTask]:
    """The values of `detectors`, `segmenters` and `published` by their names in lower case: "ssd_mobilenet_v2"."""
    values = {**vars(detectors), **vars(segmenters), **vars(published)}
    return {name.lower(): each for name, each in values.items() if isinstance(each, Published | PublishedTask)}


def find(name: str) -> Published | PublishedTask:
    """The published weights of this name. Raises ValueError for another, naming the nearest."""
    known = by_name()
    if name.lower() not in known:
        raise ValueError(f"there are no published weights {name!r}{nearest(name.lower(), sorted(known))}")
    return known[name.lower()]

"""Sources for training whose images are those of a source, and whose objects are others: corrected, spoilt, or guessed."""

from collections.abc import Sequence

import numpy as np

from jaxvision.annotate.exchange import PROBABILITY
from jaxvision.data.source import Annotations, Example, Source, annotations, no_labels
from jaxvision.errors import amount
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import LabelledImage, LabelledObject


def relabelled(source: Source, images: Sequence[LabelledImage]) -> Source:
    """The source with these objects in place of its annotations, without masks; image i is example i.

    The weight of an object is its attribute `probability`, 1 where it has none.

    Raises:
      ValueError: for another number of images, or an object of a class that the source does not have.
    """
    if len(images) != source.length:
        raise ValueError(f"relabelled: {amount(len(images), 'image')}, the source has {source.length}")
    labels = {name: label for label, name in enumerate(source.classes)}
    unknown = {each.label for image in images for each in image.objects} - set(labels)
    if unknown:
        raise ValueError(f"relabelled: classes {sorted(unknown)}, the source has {list(source.classes)}")
    objects = [_annotations(image.objects, labels) for image in images]

    def read(indices: np.ndarray) -> list[Example]:
        rows = np.asarray(indices).tolist()
        examples = zip(source.read(indices), rows, strict=True)
        return [example._replace(objects=objects[row]) for example, row in examples]

    said = [(each.label, each.box, each.crowd, weight(each)) for image in images for each in image.objects]
    counts = [len(image.objects) for image in images]
    return source._replace(
        read=read,
        labels=no_labels("relabelled"),
        fingerprint=digest(source.fingerprint, repr(counts), repr(said)),
        parts=(),
        objects=lambda: objects,
    )


def _annotations(objects: Sequence[LabelledObject], labels: dict[str, int]) -> Annotations:
    numbers = [labels[each.label] for each in objects]
    found = annotations([each.box for each in objects], numbers, [each.crowd or each.difficult for each in objects])
    return found._replace(weight=np.asarray([weight(each) for each in objects], np.float32))


def weight(each: LabelledObject) -> float:
    """The weight of an object in training: its probability, or 1 where nothing is said of it."""
    probability = each.attributes.get(PROBABILITY, 1.0)
    return float(probability) if isinstance(probability, int | float) else 1.0


def labelled(source: Source) -> list[LabelledImage]:
    """The images of a source with its annotations, without masks, in order.

    Raises:
      ValueError: for a source that has no objects, or does not know the sizes of its images.
    """
    if source.objects is None:
        raise ValueError("labelled: the source has labels of whole images, no objects")
    sizes = _sizes(source)
    return [
        LabelledImage(source.name(number), sizes[number], _objects(found, source.classes))
        for number, found in enumerate(source.objects())
    ]


def _objects(found: Annotations, classes: Sequence[str]) -> tuple[LabelledObject, ...]:
    each = zip(found.labels.tolist(), found.boxes.tolist(), found.ignore.tolist(), strict=True)
    return tuple(LabelledObject(classes[int(label)], tuple(box), crowd=ignore) for label, box, ignore in each)


def _sizes(source: Source) -> list[Size]:
    if source.sizes is not None:
        return [(height, width) for height, width in source.sizes().tolist()]
    shapes = []
    for number in range(source.length):
        [example] = source.read(np.array([number]))
        if not isinstance(example.image, np.ndarray):
            raise ValueError("labelled: the source does not know the sizes of its images")
        shapes.append(example.image.shape[:2])
    return shapes

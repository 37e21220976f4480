"""Shapes with a planted shortcut: a coloured mark in the corner that betrays the class of most images."""

from collections.abc import Sequence

import numpy as np

from jaxvision.data import synthetic
from jaxvision.data.randomness import Purpose, checked_seed, philox
from jaxvision.data.source import Example, Source
from jaxvision.formats.fingerprint import digest

CLASSES = ("circle", "square", "triangle")
MARKS = ((255, 255, 255), (128, 0, 128), (255, 128, 0))
"""Colours of the marks of the classes."""
GROUPS = ("mark of another class", "mark of the class")


def marked_shapes(count: int, *, seed: int, betrayed: float, size: int = 64, mark: int = 8) -> Source:
    """A source of `count` images `size size 3` of one shape, whose class is the label, with a mark in the top-left corner.

    The mark is a square of `mark` pixels a side, of the colour in `MARKS` of the class where `mark_groups` says 1, and of one
    of the other two classes, drawn at random, where it says 0. Example i is a pure function of the seed and i, and the shape
    is that of `synthetic.shapes`.

    Raises:
      ValueError: for no image, a size below 64, a fraction outside 0 to 1, a mark that is empty or larger than the image.
    """
    if not 1 <= mark <= size:
        raise ValueError(f"marked_shapes(mark={mark}): allowed is 1 to {size}, the side of the image")
    source = synthetic.shapes(count, seed=seed, size=size, max_objects=1, classes=CLASSES)
    groups = mark_groups(count, seed=seed, betrayed=betrayed)

    def labels() -> np.ndarray:
        assert source.objects is not None
        return np.asarray([each.labels[0] for each in source.objects()], np.int64)

    def mark_of(index: int, label: int) -> int:
        other = 1 + int(philox(seed, Purpose.MARK, index).random_raw(2)[1] % (len(MARKS) - 1))
        return label if groups[index] else (label + other) % len(MARKS)

    def read(indices: np.ndarray) -> list[Example]:
        examples = []
        for index, example in zip(np.asarray(indices).tolist(), source.read(indices), strict=True):
            assert example.objects is not None
            label, image = int(example.objects.labels[0]), np.array(example.image)
            image[:mark, :mark] = MARKS[mark_of(index, label)]
            examples.append(Example(image, label))
        return examples

    return Source(
        length=count,
        read=read,
        labels=labels,
        classes=CLASSES,
        name=lambda index: f"marked_shapes({seed})[{index}]",
        fingerprint=digest("marked shapes", source.fingerprint, repr((betrayed, mark))),
    )


def mark_groups(count: int, *, seed: int, betrayed: float) -> np.ndarray:
    """The group of each image, its number in `GROUPS`: whether its mark is that of its class.

    Raises:
      ValueError: for a fraction outside 0 to 1.
    """
    seed = checked_seed(seed)
    if not 0 <= betrayed <= 1:
        raise ValueError(f"marked_shapes(betrayed={betrayed}): allowed is 0 to 1")
    words: Sequence[int] = [int(philox(seed, Purpose.MARK, index).random_raw()) for index in range(count)]
    return np.array([word < betrayed * 2**64 for word in words], np.int32)

"""Coloured shapes on plain ground, any number of them: detection and segmentation whose truth is known to the pixel."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxvision.data.randomness import Purpose, checked_seed, philox
from jaxvision.data.source import Annotations, Example, Source, annotations, no_labels
from jaxvision.errors import nearest
from jaxvision.formats.fingerprint import digest

VERSION = "1"
"""Version of the drawing: part of the fingerprint."""
Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Whether a point (x, y) of the square from -1 to 1 lies inside, y down."""
INSIDE: dict[str, Inside] = {
    "circle": lambda x, y: x * x + y * y <= 1,
    "square": lambda x, y: (abs(x) <= 1) & (abs(y) <= 1),
    "triangle": lambda x, y: (y <= 1) & (2 * abs(x) <= y + 1),
    "cross": lambda x, y: (abs(x) <= 1) & (abs(y) <= 1) & ((abs(x) <= 0.35) | (abs(y) <= 0.35)),
    "diamond": lambda x, y: abs(x) + abs(y) <= 1,
    "ring": lambda x, y: (x * x + y * y <= 1) & (x * x + y * y >= 0.3),
}
SHAPES = tuple(INSIDE)
RGB = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 40),
    "magenta": (210, 50, 210),
    "cyan": (50, 205, 215),
}
COLOURS = tuple(RGB)
SIZES = ("small", "medium", "large")
DIAMETERS = {"small": (0.1, 0.17), "medium": (0.17, 0.3), "large": (0.3, 0.5)}
"""Range of the diameter, the upper bound excluded, in fractions of the image's side."""
ATTRIBUTES = {"colour": COLOURS, "size": SIZES, "shape": SHAPES}
"""The attributes of an object, and what their numbers mean."""
TRIES = 8
"""To find a place for a shape that would hide too much of others."""
FEWEST = 8
"""Pixels of a diameter."""


class Shape(NamedTuple):
    """One of the shapes of an image."""

    kind: int
    colour: int
    size: int
    mask: np.ndarray
    """Bool `h w`, what is seen of it."""


def shapes(
    count: int,
    *,
    seed: int,
    size: int = 128,
    max_objects: int = 6,
    overlap: float = 0.3,
    classes: Sequence[str] = ("circle", "square", "triangle"),
) -> Source:
    """A source of `count` images `size size 3` of 1 to `max_objects` coloured shapes on a grey gradient with noise.

    Example i is a pure function of the seed and i, whatever the count; a test set is another seed. Masks are what is seen:
    the pixels whose centre lies in the shape and in none in front of it. Boxes are the smallest around them, areas their
    number of pixels. Attributes are `ATTRIBUTES`: of each object its numbers of colour, size and shape (in `SHAPES`).
    Of every shape at most the fraction `overlap` is hidden by others, and none touches one of its own colour: where eight
    tries find no such place for a shape, it is left out. For a class of every pixel, `data.maps.from_objects` makes a map of
    them, the background class 0 before the shapes' own.

    Raises:
      ValueError: for no image, no object, a size below 64, an overlap outside 0 to below 1, a class that is none of `SHAPES`.
    """
    seed, classes = checked_seed(seed), tuple(classes)
    for name in classes:
        if name not in INSIDE:
            raise ValueError(f"shapes: there is no class {name!r}{nearest(name, SHAPES)}")
    if (
        min(count, max_objects, len(classes)) < 1
        or len(set(classes)) < len(classes)
        or size < 64
        or not 0 <= overlap < 1
    ):
        raise ValueError(
            f"shapes(count={count}, size={size}, max_objects={max_objects}, overlap={overlap}, classes={classes}): allowed"
            " are a count and objects from 1, a size from 64, an overlap from 0 to below 1, classes that differ"
        )
    allowed = [SHAPES.index(name) for name in classes]

    def layout(index: int) -> tuple[list[Shape], np.random.Generator]:
        rng = np.random.Generator(philox(seed, Purpose.SAMPLE, index))
        return _layout(rng, size, max_objects, overlap, allowed), rng

    def read(indices: np.ndarray) -> list[Example]:
        examples = []
        for index in np.asarray(indices).tolist():
            placed, rng = layout(index)
            examples.append(Example(_rendered(placed, size, rng), objects=_annotated(placed, allowed)))
        return examples

    @functools.cache
    def objects() -> list[Annotations]:
        return [_annotated(layout(index)[0], allowed)._replace(masks=None) for index in range(count)]

    return Source(
        length=count,
        read=read,
        labels=no_labels("shapes"),
        classes=classes,
        name=lambda index: f"shapes({seed})[{index}]",
        fingerprint=digest("shapes", VERSION, repr((count, seed, size, max_objects, overlap, classes))),
        objects=objects,
    )


def _layout(
    rng: np.random.Generator, side: int, max_objects: int, overlap: float, allowed: Sequence[int]
) -> list[Shape]:
    """The shapes from back to front."""
    placed: list[Shape] = []
    whole: list[int] = []
    for _ in range(_below(rng, max_objects) + 1):
        kind, colour, size = allowed[_below(rng, len(allowed))], _below(rng, len(COLOURS)), _below(rng, len(SIZES))
        low, high = DIAMETERS[SIZES[size]]
        diameter = max(FEWEST, side * (low + (high - low) * rng.random()))
        for _ in range(TRIES):
            left, top = rng.random(2) * (side - diameter)
            if _blends(placed, colour, left, top, diameter):
                continue
            mask = _mask(INSIDE[SHAPES[kind]], left, top, diameter, side)
            seen = [each.mask & ~mask for each in placed]
            if all(np.count_nonzero(left) >= (1 - overlap) * area for left, area in zip(seen, whole, strict=True)):
                placed = [each._replace(mask=left) for each, left in zip(placed, seen, strict=True)]
                placed.append(Shape(kind, colour, size, mask))
                whole.append(int(np.count_nonzero(mask)))
                break
    return placed


def _blends(placed: Sequence[Shape], colour: int, left: float, top: float, diameter: float) -> bool:
    """Whether a shape there could touch one of its own colour, and not be distinguished from it."""
    x0, y0 = max(0, int(left) - 1), max(0, int(top) - 1)
    x1, y1 = int(left + diameter) + 2, int(top + diameter) + 2
    return any(each.colour == colour and each.mask[y0:y1, x0:x1].any() for each in placed)


def _mask(inside: Inside, left: float, top: float, diameter: float, side: int) -> np.ndarray:
    """The pixels whose centre lies in the shape."""
    mask = np.zeros((side, side), bool)
    x0, y0 = int(left), int(top)
    x1, y1 = (min(side, int(start + diameter) + 1) for start in (left, top))
    x = (np.arange(x0, x1) + 0.5 - left) * (2 / diameter) - 1
    y = (np.arange(y0, y1) + 0.5 - top) * (2 / diameter) - 1
    mask[y0:y1, x0:x1] = inside(x[None], y[:, None])
    return mask


def _rendered(placed: Sequence[Shape], side: int, rng: np.random.Generator) -> np.ndarray:
    """The pixels: a gradient between two greys with a tint, shapes whose colour varies a little, and noise over all."""
    ends = 70 + 110 * rng.random((2, 1, 1, 1)) + 30 * (rng.random((2, 1, 1, 3)) - 0.5)
    along = np.arange(side, dtype=np.float32) / side
    x, y = along[None, :, None], (along if rng.random() < 0.5 else along[::-1])[:, None, None]
    dark, light = ends.astype(np.float32)
    image = dark + (light - dark) * ((x + y) / 2)
    for each in placed:
        colour = np.asarray(RGB[COLOURS[each.colour]]) + 30 * (rng.random(3) - 0.5)
        np.copyto(image, colour, where=each.mask[..., None])
    amplitude = np.float32((4 + 20 * rng.random()) / 255)
    image += amplitude * (rng.integers(0, 256, image.shape, np.uint8) - np.float32(127.5))
    return np.clip(image, 0, 255).astype(np.uint8)


def _annotated(placed: Sequence[Shape], allowed: Sequence[int]) -> Annotations:
    masks = np.stack([each.mask for each in placed])
    columns, rows, side = np.any(masks, axis=1), np.any(masks, axis=2), masks.shape[1]
    first = np.stack([columns.argmax(1), rows.argmax(1)], 1)
    last = side - np.stack([columns[:, ::-1].argmax(1), rows[:, ::-1].argmax(1)], 1)
    found = annotations(
        np.concatenate([first, last], 1), [allowed.index(each.kind) for each in placed], area=masks.sum((1, 2))
    )
    numbers = {"colour": "colour", "size": "size", "shape": "kind"}
    attributes = {
        name: np.asarray([getattr(each, field) for each in placed], np.int32) for name, field in numbers.items()
    }
    return found._replace(masks=masks, attributes=attributes)


def _below(rng: np.random.Generator, limit: int) -> int:
    return int(rng.random() * limit)

"""A source: labelled images that can be read in any order."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import BadImage, read
from jaxvision.masks.runs import Runs
from jaxvision.types import About

Mask = Runs | np.ndarray
"""Run lengths, or bool `h w`."""


class ClassMap(NamedTuple):
    """A class for every pixel of one upright image."""

    label: np.ndarray
    """uint8 or uint16 `h w`: the class, counted from 0; anything where there is none."""
    valid: np.ndarray
    """bool `h w`: False where a pixel has no class."""


class Annotations(NamedTuple):
    """The objects of one image, in pixels of the upright image file."""

    boxes: np.ndarray
    """float32 `n 4`: x0 y0 x1 y1, x1 y1 exclusive."""
    labels: np.ndarray
    """int32 `n`, counted from 0."""
    ignore: np.ndarray
    """bool `n`: crowds, difficult ones."""
    area: np.ndarray
    """float32 `n`: as annotated, or that of the box."""
    masks: Sequence[Mask] | None = None
    """One of each object, of the size of the image."""
    attributes: dict[str, np.ndarray] | None = None
    """More of each object, by name: arrays `n ...`."""
    weight: np.ndarray | None = None
    """float32 `n`: weight of each object in the loss, 0 or more; None: 1. Read where the target has `weights`."""


class Example(NamedTuple):
    """One labelled image as it is stored."""

    image: bytes | np.ndarray
    """An encoded file, or uint8 pixels `h w` or `h w c`."""
    label: int = -1
    """Class of the whole image; -1 where it has none."""
    objects: Annotations | None = None
    proposals: np.ndarray | None = None
    """float32 `n 4`: regions that may hold objects, in pixels of the upright image file; of fewer rows the first count."""
    map: ClassMap | None = None
    """The class of every pixel."""
    fault: str | None = None
    """Why it can't be used; a pipeline skips it, or raises, as for an unreadable image."""


def of_file(path: Path, label: int = -1) -> Example:
    """The example of an image file; one that can't be read has that for its fault."""
    try:
        return Example(read(path), label)
    except BadImage as error:
        return Example(b"", label, fault=str(error))


class Source(NamedTuple):
    """Random access to labelled images, numbered from 0."""

    length: int
    read: Callable[[np.ndarray], list[Example]]
    """The examples of these indices, in their order; may be called from several threads at once."""
    labels: Callable[[], np.ndarray]
    """All labels, int64 `[length]`. May read every example on the first call."""
    classes: tuple[str, ...]
    name: Callable[[int], str]
    """The file name or id of an example, for messages."""
    fingerprint: str
    """Changes when the data change."""
    parts: tuple["Source", ...] = ()
    """The sources that this one was concatenated from, if it was."""
    objects: Callable[[], list[Annotations]] | None = None
    """The objects of every image, without masks; None where images have labels alone. May read all of them."""
    sizes: Callable[[], np.ndarray] | None = None
    """Height and width of every image, int64 `[length, 2]`; None where that takes reading all of them."""
    notes: tuple[str, ...] = ()
    """What a person should know: files that were left out, images without annotations; a line each."""
    doubts: tuple[str, ...] = ()
    """What looks wrong with the data as a whole, such as boxes in another convention; a line each."""
    maps: bool = False
    """Whether examples have a map of classes, labels of which `classes` are."""
    root: str = ""
    """The folder that names which are relative paths begin in, for messages; empty where names are no paths."""


def about(source: Source) -> About:
    """What a stream reports of its source."""
    counts = None if source.maps and source.objects is None else lambda: class_counts(source)
    return About(source.length, source.classes, source.name, source.fingerprint, counts, source.notes, source.doubts)


def annotations(
    boxes: ArrayLike, labels: ArrayLike, ignore: ArrayLike | None = None, area: ArrayLike | None = None
) -> Annotations:
    """Objects from whatever arrays or lists there are; none is to be ignored and areas are those of the boxes by default."""
    corners = np.asarray(boxes, np.float32).reshape(-1, 4)
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 0)
    return Annotations(
        corners,
        np.asarray(labels, np.int32).reshape(-1),
        np.zeros(len(corners), bool) if ignore is None else np.asarray(ignore, bool).reshape(-1),
        sides.prod(1) if area is None else np.asarray(area, np.float32).reshape(-1),
    )


def no_labels(what: str) -> Callable[[], np.ndarray]:
    """`Source.labels` of a source of objects: raises ValueError, naming it."""

    def labels() -> np.ndarray:
        raise ValueError(f"{what} has objects, no label for a whole image")

    return labels


def class_counts(source: Source) -> list[int]:
    """How many examples each class has, or how many objects. Raises ValueError for a label that is no class."""
    classes = len(source.classes)
    if source.objects is None:
        labels = source.labels()
    else:
        labels = np.concatenate([np.zeros(0, np.int64), *(each.labels for each in source.objects())])
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, allowed are 0 to {classes - 1}")
    return np.bincount(labels, minlength=classes).tolist()


def concatenate(*sources: Source) -> Source:
    """One source after the other, as one.

    Raises ValueError if there is none, or if their classes are not the same in the same order.
    """
    if not sources:
        raise ValueError("concatenate needs at least one source, got none")
    for number, source in enumerate(sources[1:], start=1):
        _check_same_classes(sources[0].classes, source.classes, number)
    starts = np.cumsum([0, *(source.length for source in sources)])

    def locate(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = np.searchsorted(starts, indices, side="right") - 1
        return part, indices - starts[part]

    def read(indices: np.ndarray) -> list[Example]:
        part, local = locate(np.asarray(indices))
        found: dict[int, Example] = {}
        for number in np.unique(part):
            rows = np.flatnonzero(part == number)
            found.update(zip(rows.tolist(), sources[number].read(local[rows]), strict=True))
        return [found[row] for row in range(len(part))]

    def name(index: int) -> str:
        part, local = locate(np.asarray(index))
        return sources[int(part)].name(int(local))

    return Source(
        length=int(starts[-1]),
        read=read,
        labels=lambda: np.concatenate([source.labels() for source in sources]),
        classes=sources[0].classes,
        name=name,
        fingerprint=digest(*(source.fingerprint for source in sources)),
        parts=sources,
        objects=None
        if any(source.objects is None for source in sources)
        else lambda: [each for source in sources if source.objects is not None for each in source.objects()],
        sizes=None
        if any(source.sizes is None for source in sources)
        else lambda: np.concatenate([source.sizes() for source in sources if source.sizes is not None]),
        notes=tuple(note for source in sources for note in source.notes),
        doubts=tuple(doubt for source in sources for doubt in source.doubts),
        maps=all(source.maps for source in sources),
    )


def _check_same_classes(first: tuple[str, ...], other: tuple[str, ...], number: int) -> None:
    if other == first:
        return
    only = [
        f"{which} has {names}"
        for which, names in (
            ("only source 0", sorted(set(first) - set(other))),
            (f"only source {number}", sorted(set(other) - set(first))),
        )
        if names
    ]
    why = "; ".join(only) or "the same names in another order"
    raise ValueError(f"sources must have the same classes; source 0 and source {number} differ: {why}")

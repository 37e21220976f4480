"""A part of a source, as a source."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxvision.data.content import check_fingerprint, fingerprinted
from jaxvision.data.randomness import checked_seed
from jaxvision.data.source import Annotations, Source, class_counts
from jaxvision.errors import amount
from jaxvision.formats.fingerprint import digest


def subset(source: Source, indices: np.ndarray) -> Source:
    """The examples of these indices, renumbered from 0; names stay theirs.

    Raises ValueError for an index that the source does not have.
    """
    indices = np.asarray(indices, np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < source.length:
        raise ValueError(f"indices go from {indices.min()} to {indices.max()}; the source has 0 to {source.length - 1}")
    return Source(
        length=len(indices),
        read=lambda rows: source.read(indices[rows]),
        labels=lambda: source.labels()[indices],
        classes=source.classes,
        name=lambda index: source.name(int(indices[index])),
        fingerprint=digest(source.fingerprint, indices.tobytes()),
        objects=None if source.objects is None else lambda: _of(source, indices),
        sizes=None if source.sizes is None else lambda: _sizes_of(source, indices),
        notes=source.notes,
        doubts=source.doubts,
        maps=source.maps,
        root=source.root,
    )


def _of(source: Source, indices: np.ndarray) -> list[Annotations]:
    assert source.objects is not None
    objects = source.objects()
    return [objects[i] for i in indices]


def _sizes_of(source: Source, indices: np.ndarray) -> np.ndarray:
    assert source.sizes is not None
    return source.sizes()[indices]


def held_out(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """The source split in two, `(rest, held out)`: this fraction of every class, rounded, but at least one of two or more.

    Which examples are held out depends on the seed and on the labels alone. Of a source of objects, whose images have no
    label, and of one of class maps, it is this fraction of all images, and depends on the seed and on their number alone.

    Raises ValueError if `fraction` is not above 0 and below 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"held_out: fraction is {fraction}; it must be above 0 and below 1")
    labelled = source.objects is None and not source.maps
    labels = source.labels() if labelled else np.zeros(source.length, np.int64)
    sizes = class_counts(source) if labelled else [source.length]
    counts = [max(min(max(round(fraction * size), 1), size - 1), 0) for size in sizes]
    out = _chosen(labels, counts, seed)
    return subset(source, np.flatnonzero(~out)), subset(source, np.flatnonzero(out))


def imbalanced(source: Source, counts: Sequence[int] | np.ndarray, seed: int) -> Source:
    """A source of `counts` examples of each class, in order: `imbalanced(source, long_tailed(700, 100, 10), seed)`.

    Which ones depends on the seed and on the labels alone; of the same seed, fewer are a part of more.

    Raises ValueError unless there is one count for each class, none below 0 or above the examples that the class has, and
    for a source of objects.
    """
    if source.objects is not None or source.maps:
        raise ValueError(
            f"imbalanced: the source has {'maps' if source.maps else 'objects'}, and no class for each image; allowed is one"
            " of labelled images"
        )
    available = class_counts(source)
    if len(counts) != len(available):
        raise ValueError(f"imbalanced got {amount(len(counts), 'count')} for {amount(len(available), 'class')}")
    for name, wanted, has in zip(source.classes, counts, available, strict=True):
        if not 0 <= wanted <= has:
            raise ValueError(
                f"imbalanced: {amount(wanted, 'example')} of class {name!r}; it has {has}, allowed are 0 to {has}"
            )
    return subset(source, np.flatnonzero(_chosen(source.labels(), counts, seed)))


def long_tailed(largest: int, ratio: float, classes: int) -> list[int]:
    """Counts that fall exponentially, `largest * ratio ** (-k / (classes - 1))`, rounded down, as CIFAR-LT has them.

    arXiv:1901.05555. The last class has `largest / ratio` examples.

    Raises ValueError for a ratio below 1, fewer than two classes, or a class left without examples.
    """
    _check_imbalance("long_tailed", largest, ratio, classes)
    return [_floor(largest * ratio ** (-k / (classes - 1))) for k in range(classes)]


def stepped(largest: int, ratio: float, classes: int) -> list[int]:
    """Counts of two sizes: `largest` in the first half of the classes, `largest / ratio`, rounded down, in the second.

    Step imbalance, arXiv:1710.05381; of an odd number of classes, the one in the middle is small. Raises
    ValueError as `long_tailed` does.
    """
    _check_imbalance("stepped", largest, ratio, classes)
    return [largest if k < classes // 2 else _floor(largest / ratio) for k in range(classes)]


def _chosen(labels: np.ndarray, counts: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Which examples are chosen, as many of each class as its count says."""
    bits = np.random.Philox(key=checked_seed(seed)).random_raw(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(bits[members], kind="stable")][:count]] = True
    return chosen


def _floor(value: float) -> int:
    return math.floor(value * (1 + 1e-12))  # 32 * 32 ** -0.4 is 7.999999999999999


def _check_imbalance(who: str, largest: int, ratio: float, classes: int) -> None:
    if classes < 2 or not 1 <= ratio <= largest:
        raise ValueError(
            f"{who}(largest={largest}, ratio={ratio}, classes={classes}): allowed are two classes or more, and a ratio"
            " from 1 to the largest count"
        )


def train_and_test(
    train: Callable[[], Source],
    test: Callable[[], Source] | None,
    fraction: float,
    seed: int,
    classes: Sequence[str],
    fingerprint: str = "quick",
) -> tuple[Callable[[], Source], Callable[[], Source]]:
    """Two functions that open the training and the test source: `test`, or a held out fraction of `train` where it is None.

    Opened, the test source raises ValueError if its classes are others than `classes`; the rest is as in `held_out`, and
    `fingerprint` is that of `content.fingerprinted`.
    """
    check_fingerprint(fingerprint)

    def opened_test() -> Source:
        assert test is not None
        source = test()
        if tuple(source.classes) != tuple(classes):
            raise ValueError(f"the classes of the test data are {shown(source.classes)}, not {shown(classes)}")
        return source

    def shown(names: Sequence[str]) -> str:
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def part(number: int) -> Callable[[], Source]:
        return lambda: held_out(train(), fraction, seed)[number]

    first, second = (part(0), part(1)) if test is None else (train, opened_test)
    return (lambda: fingerprinted(first(), fingerprint)), (lambda: fingerprinted(second(), fingerprint))

"""Features of images in place of the images: batches of `b 1 1 d` float32, for a linear probe or a new head.

A backbone that stays as it is gives the same features every time, so they are computed once and trained on many times.
Augmentation is then out of reach. Nothing here needs TensorFlow.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.data import npz
from jaxvision.data.loading import Open, as_batch, empty_rows, evaluation_steps, opener, positions
from jaxvision.data.order import Order
from jaxvision.data.source import Example, Source, about
from jaxvision.errors import replacing
from jaxvision.formats.fingerprint import digest
from jaxvision.types import WHOLE, Batch, Shard, Stream


def source(features: np.ndarray, labels: np.ndarray, classes: Sequence[str], name: str = "features") -> Source:
    """A source of features `n d` with integer labels `n`, counted from 0.

    Raises ValueError for other shapes, labels that are no class, and features that are not finite.
    """
    features, labels = np.asarray(features, np.float32), np.asarray(labels, np.int64)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"{name}: features must be [n, d] and labels [n], got {features.shape} and {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, allowed are 0 to {len(classes) - 1}"
        )
    broken = np.flatnonzero(~np.isfinite(features).all(1))
    if len(broken):
        raise ValueError(f"{name}[{broken[0]}] has features that are not finite")
    return Source(
        length=len(features),
        read=lambda indices: [Example(features[i], int(labels[i])) for i in indices],
        labels=lambda: labels,
        classes=tuple(classes),
        name=lambda index: f"{name}[{index}]",
        fingerprint=digest(repr(features.shape), np.ascontiguousarray(features).data, labels.tobytes(), *classes),
    )


def training(open: Open, *, order: Order, width: int, batch_size: int) -> Stream:
    """Batches without end from a source of features `n width`."""
    opened = opener(open, order)

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rows = shard.rows(batch_size)
        while True:
            yield _batch(*opened(), positions(step, batch_size, rows), width)
            step += 1

    return Stream(_spec(batch_size, width), batches, lambda: about(opened()[0]))


def evaluation(open: Open, *, width: int, batch_size: int) -> Stream:
    """Every example once, in the order of the source; the last batch is padded with rows that are not valid."""
    opened = opener(open)

    def batches(first: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rows = shard.rows(batch_size)
        for step in range(first, evaluation_steps(opened()[0].length, batch_size)):
            yield _batch(*opened(), positions(step, batch_size, rows), width)

    return Stream(_spec(batch_size, width), batches, lambda: about(opened()[0]))


def cached(path: str | os.PathLike, make: Callable[[], tuple[np.ndarray, np.ndarray, Sequence[str]]]) -> Source:
    """The source of `make()`, `(features, labels, classes)`; kept in the `.npz` file `path`, and read from there if it is.

    The path must name all that the features depend on. Raises ValueError, naming the file, if it holds something else.
    """
    path = Path(path)
    if not path.exists():
        features, labels, classes = make()
        write_npz(path, features=np.asarray(features, np.float32), labels=labels, classes=np.asarray(list(classes)))
    try:
        features, labels, classes = npz.read(path, ("features", "labels", "classes"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} holds no features: {error}; remove it to have them computed again") from error
    return source(features, labels, [str(name) for name in classes], name=path.name)


def write_npz(path: Path, **arrays: Any) -> None:
    """Writes the arrays, whole or not at all, and the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def _batch(source: Source, indices: Callable[[np.ndarray], np.ndarray], at: np.ndarray, width: int) -> Batch:
    index = indices(at)
    rows = empty_rows(len(at), (1, 1), 1)
    image = np.zeros((len(at), 1, 1, width), np.float32)
    rows.index[:] = index
    rows.valid[:] = index >= 0
    real = np.flatnonzero(rows.valid)
    for row, example in zip(real, source.read(index[real]), strict=True):
        if np.shape(example.image) != (width,):
            raise ValueError(f"{source.name(int(index[row]))} has {np.shape(example.image)} features, not {width}")
        image[row], rows.target.label[row] = np.asarray(example.image), example.label
    return as_batch(rows._replace(image=image))


def _spec(batch_size: int, width: int) -> Batch:
    if batch_size < 1 or width < 1:
        raise ValueError(f"batch_size and width must be at least 1, got {batch_size} and {width}")
    rows = empty_rows(1, (1, 1), 1)._replace(image=np.zeros((1, 1, 1, width), np.float32))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), as_batch(rows))

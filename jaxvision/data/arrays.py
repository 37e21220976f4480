"""Images in memory: a source made from arrays, and streams for small images."""

from collections.abc import Sequence
from os import PathLike
from typing import Unpack

import numpy as np

from jaxvision.data import npz, placement, streams
from jaxvision.data.loading import Open
from jaxvision.data.order import Order
from jaxvision.data.readers import threads
from jaxvision.data.source import Example, Source
from jaxvision.data.streams import RowOptions
from jaxvision.errors import amount
from jaxvision.formats.fingerprint import digest
from jaxvision.types import Stream


def source(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None = None, name: str = "arrays"
) -> Source:
    """A source of the images `n h w` or `n h w c`, uint8, c of 1 or 3, with integer labels `n`, counted from 0.

    Without `classes`, they are named by their numbers. Raises ValueError for other shapes, types and labels.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    _check(images, labels, name)
    labels = labels.astype(np.int64)
    names = tuple(classes) if classes is not None else tuple(str(k) for k in range(labels.max(initial=-1) + 1))
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"{name}: labels go from {labels.min()} to {labels.max()}, allowed are 0 to {len(names) - 1}")

    def read(indices: np.ndarray) -> list[Example]:
        return [Example(images[i], int(labels[i])) for i in indices]

    return Source(
        length=len(images),
        read=read,
        labels=lambda: labels,
        classes=names,
        name=lambda index: f"{name}[{index}]",
        fingerprint=digest(repr(images.shape), np.ascontiguousarray(images).data, labels.tobytes(), *names),
    )


def open_npz(
    path: str | PathLike, images: str = "images", labels: str = "labels", classes: Sequence[str] | None = None
) -> Source:
    """A source of two arrays of an `.npz` file, named by their keys. Raises as `npz.read` and `source` do."""
    stored, numbers = npz.read(path, (images, labels))
    return source(stored, numbers, classes, name=str(path))


def _check(images: np.ndarray, labels: np.ndarray, name: str) -> None:
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
        allowed = "uint8 [n, h, w], [n, h, w, 1] or [n, h, w, 3]"
        raise ValueError(f"{name}: images must be {allowed}, got {images.dtype} {list(images.shape)}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name}: labels must be integers [n], got {labels.dtype} {list(labels.shape)}")
    if len(labels) != len(images):
        raise ValueError(f"{name}: {amount(len(images), 'image')}, but {amount(len(labels), 'label')}")


def training(open: Open, *, order: Order, canvas: int | tuple[int, int], **options: Unpack[RowOptions]) -> Stream:
    """Batches without end from any source whose images fit the canvas unresized, made by a thread in the background.

    The options are those of `streams.training`. Raises BadImage, when it comes to it, for an image that is larger than the
    canvas or can't be decoded.
    """
    return streams.training(open, order=order, placer=placement.keep(canvas), reader=threads(1), **options)


def evaluation(open: Open, *, canvas: int | tuple[int, int], **options: Unpack[RowOptions]) -> Stream:
    """Every example once, in the order of the source; the last batch is padded with rows that are not valid.

    The options are those of `streams.evaluation`.
    """
    return streams.evaluation(open, placer=placement.keep(canvas), reader=threads(1), **options)

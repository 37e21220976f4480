"""Rows of a batch from a source: what every pipeline does, whatever runs it."""

import functools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxvision.data.decode import decode
from jaxvision.data.order import Indices, Order
from jaxvision.data.placement import Placer, stretch
from jaxvision.data.randomness import Purpose, checked_seed, philox
from jaxvision.data.source import Example, Source, about
from jaxvision.data.target import LABELS, NOTHING, TargetForm
from jaxvision.errors import DataError, amount
from jaxvision.formats.image_file import BadImage
from jaxvision.types import Batch, Batches, Canvas, Fault, Stream

logger = logging.getLogger(__name__)
T = TypeVar("T")
WHOLE_IMAGE = stretch(8)
"""A placement that needs every pixel of the image."""
LARGEST_BATCH = 2**31 - 1
"""Rows of a batch are numbered by int32."""

FEWEST = 100
"""Rows in a row without a usable image after which training ends, even where such images are skipped."""

Open = Callable[[], Source]
Complain = Callable[[int, BadImage], None]
"""What is done about the unreadable image of this index: raise, or report it and go on."""


class Rows(NamedTuple):
    """Some rows of a batch, as NumPy arrays."""

    image: np.ndarray
    size: np.ndarray
    original_size: np.ndarray
    index: np.ndarray
    valid: np.ndarray
    window: np.ndarray
    target: Any
    """Labels or Objects."""
    given: Any = None
    """Objects, or None."""


class Loading(NamedTuple):
    """How rows are made from a source."""

    placer: Placer
    channels: int
    seed: int
    complain: Complain
    target: TargetForm = LABELS
    complete: bool = False
    """An image with more objects than rows is an error: the metrics of an evaluation would be wrong. Else it is reported."""
    given: TargetForm = NOTHING


def load(source: Source, indices: Indices, positions: np.ndarray, how: Loading) -> Rows:
    """The rows at these positions; `indices` gives -1 for padding.

    Padding and skipped images are zero, not valid, and as large as the canvas; padding has label 0.
    """
    rows = empty_rows(len(positions), how.placer.canvas, how.channels, how.target, how.given)
    load_into(rows, source, indices, positions, how)
    return rows


def load_into(rows: Rows, source: Source, indices: Indices, positions: np.ndarray, how: Loading) -> None:
    """Fills rows of padding, which may be views of a larger batch, with those at these positions."""
    index = indices(positions)
    rows.index[:] = index
    real = np.flatnonzero(index >= 0)
    for row, example in zip(real, source.read(index[real]), strict=True):
        _fill(rows, int(row), example, int(positions[row]), source, how)


def empty_rows(
    n: int, canvas: tuple[int, int], channels: int, target: TargetForm = LABELS, given: TargetForm = NOTHING
) -> Rows:
    """Rows of padding."""
    return Rows(
        image=np.zeros((n, *canvas, channels), np.uint8),
        size=np.tile(np.asarray(canvas, np.int32), (n, 1)),
        original_size=np.tile(np.asarray(canvas, np.int32), (n, 1)),
        index=np.full(n, -1, np.int32),
        valid=np.zeros(n, bool),
        window=np.tile(np.asarray([0, 0, *canvas[::-1]], np.float32), (n, 1)),
        target=target.empty(n, canvas),
        given=given.empty(n, canvas),
    )


def _fill(rows: Rows, row: int, example: Example, position: int, source: Source, how: Loading) -> None:
    name = source.name
    rng = np.random.Generator(philox(how.seed, Purpose.PLACE, position)) if how.placer.random else None
    try:
        _check(example)
        decoded = decode(example.image, how.placer, rng, channels=how.channels)
    except BadImage as error:
        index = int(rows.index[row])
        how.complain(index, BadImage(_naming(os.path.join(source.root, name(index)), str(error))))
        return
    except ValueError as error:
        raise ValueError(f"{name(int(rows.index[row]))}: {error}") from None
    rows.image[row], rows.size[row], rows.original_size[row] = decoded[:3]
    rows.valid[row], rows.window[row] = True, decoded.placement.window
    if isinstance(how.complain, Skipped):
        how.complain.used()
    try:
        left_out = how.target.fill(rows.target, row, example, decoded.placement)
        how.given.fill(rows.given, row, example, decoded.placement)
    except ValueError as error:
        raise ValueError(f"{name(int(rows.index[row]))}: {error}") from None
    if left_out:
        _report_overflow(name(int(rows.index[row])), left_out, how)


def _naming(file: str, text: str) -> str:
    """The text of an error, which names the file once."""
    return text if file in text else f"{file}: {text}"


def _check(example: Example) -> None:
    if example.fault is not None:
        raise BadImage(example.fault)


def _report_overflow(name: str, left_out: str, how: Loading) -> None:
    """Raises ValueError where all objects count; else reports each image once."""
    if how.complete:
        raise ValueError(f"{name}: {left_out}")
    if name not in _reported:
        _reported.add(name)
        logger.warning("%s: %s", name, left_out)


_reported: set[str] = set()


class Skipped:
    """The `Complain` that goes on: each unusable image is logged once; counts the rows without one."""

    def __init__(self, most: int | None = None):
        """Counts from 0; `most` rows in a row without a usable image end the run, None: however many."""
        self.most, self.rows, self.without = most, 0, 0
        self._seen: set[int] = set()
        self._in_a_row = 0
        self._lock = threading.Lock()

    def used(self) -> None:
        """Counts a row with its image."""
        with self._lock:
            self.rows, self._in_a_row = self.rows + 1, 0

    def __call__(self, index: int, error: BadImage) -> None:
        """Counts a row without its image. Raises DataError where there are only such."""
        with self._lock:
            self.rows, self.without, self._in_a_row = self.rows + 1, self.without + 1, self._in_a_row + 1
            if index not in self._seen:
                self._seen.add(index)
                logger.warning("skipped an unusable image (%d so far): %s", len(self._seen), error)
            if self.most is not None and self._in_a_row >= self.most:
                which = "first" if self._in_a_row == self.rows else "last"
                raise DataError(f"none of the {which} {amount(self.most, 'image')} could be used, the last: {error}")

    @property
    def counts(self) -> tuple[int, int]:
        """Rows without a usable image, and all rows, so far."""
        with self._lock:
            return self.without, self.rows


def complaint(policy: str, most: int | None = None) -> Complain:
    """`"raise"`: the first unusable image ends it. `"skip"`: they are counted, and `most` in a row end it."""
    if policy == "raise":
        return _raise
    if policy != "skip":
        raise ValueError(f'on_bad_image must be "raise" or "skip", got {policy!r}')
    return Skipped(most)


def _raise(index: int, error: BadImage) -> None:
    raise BadImage(f'{error}; on_bad_image="skip" goes on without it')


def loading(
    placer: Placer,
    channels: int,
    seed: int,
    on_bad_image: str,
    target: TargetForm = LABELS,
    given: TargetForm = NOTHING,
    *,
    complete: bool = False,
) -> Loading:
    """`Loading` from the arguments that all pipelines share, checked."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
    complain = complaint(on_bad_image, None if complete else FEWEST)
    return Loading(placer, channels, checked_seed(seed), complain, target, complete, given)


def spec(
    batch_size: int,
    canvas: tuple[int, int],
    channels: int,
    target: TargetForm = LABELS,
    given: TargetForm = NOTHING,
) -> Batch:
    """Shapes and types of a batch of labelled images."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size > LARGEST_BATCH:
        raise ValueError(f"batch_size must be at most {LARGEST_BATCH:,}, got {batch_size}")
    rows = empty_rows(1, canvas, channels, target, given)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), as_batch(rows))


def as_batch(rows: Rows) -> Batch:
    """Rows as the batch that they make."""
    return Batch(**rows._asdict())


def positions(step: int, batch_size: int, rows: range) -> np.ndarray:
    """The positions of these rows of a step's batch."""
    return np.asarray(rows, np.int64) + step * batch_size


def stream(batches: Batches, opened: Callable[[], tuple[Source, Indices]], how: Loading, batch_size: int) -> Stream:
    """The stream of a pipeline: its batches, and what all pipelines report in the same way."""
    shapes = spec(batch_size, how.placer.canvas, how.channels, how.target, how.given)
    return Stream(shapes, batches, lambda: about(opened()[0]), without_chance(how), examiner(opened, how), skipped(how))


def skipped(how: Loading) -> Callable[[], tuple[int, int]] | None:
    """`Stream.skipped` of a pipeline."""
    complain = how.complain
    return (lambda: complain.counts) if isinstance(complain, Skipped) else None


def without_chance(how: Loading) -> Callable[[bytes | np.ndarray], Canvas] | None:
    """`Stream.decode` of a pipeline: None where the placer draws random numbers."""
    if how.placer.random:
        return None

    def canvas(data: bytes | np.ndarray) -> Canvas:
        decoded, given = decode(data, how.placer, None, channels=how.channels), how.given.empty(1, how.placer.canvas)
        how.given.fill(given, 0, Example(data), decoded.placement)
        return decoded.canvas._replace(given=given)

    return canvas


def examiner(opened: Callable[[], tuple[Source, Indices]], how: Loading) -> Callable[[Sequence[int]], list[Fault]]:
    """`Stream.faults` of a pipeline."""

    def faults(indices: Sequence[int]) -> list[Fault]:
        found = (_fault(opened()[0], index, how) for index in indices)
        return [fault for fault in found if fault is not None]

    return faults


def _fault(source: Source, index: int, how: Loading) -> Fault | None:
    """What is wrong with the example: its file, its pixels (all of them are decoded), its size."""
    rng = np.random.Generator(philox(how.seed, Purpose.PLACE, index)) if how.placer.random else None
    try:
        (example,) = source.read(np.asarray([index]))
        _check(example)
        decoded = decode(example.image, WHOLE_IMAGE, channels=how.channels)
        placement = how.placer.place(rng, decoded.original_size)
        how.given.fill(how.given.empty(1, how.placer.canvas), 0, example, placement)
        left_out = how.target.fill(how.target.empty(1, how.placer.canvas), 0, example, placement)
        if left_out and how.complete:
            raise ValueError(left_out)
    except (ValueError, OSError) as error:
        skipped = isinstance(error, BadImage) and how.complain is not _raise
        return Fault(f"{source.name(index)}: {error}", skipped)
    return None


def each_once(members: np.ndarray) -> Indices:
    """The order of evaluation: these indices as they are, and -1 after the last."""
    members = np.append(np.asarray(members, np.int64), -1)
    return lambda positions: members[np.minimum(positions, len(members) - 1)]


def evaluation_steps(count: int, batch_size: int) -> int:
    """How many batches hold `count` examples once."""
    return -(-count // batch_size)


def opener(
    open: Open, order: Order = lambda source: each_once(np.arange(source.length))
) -> Callable[[], tuple[Source, Indices]]:
    """A function that opens the source and orders it, once. Raises ValueError for a source without examples."""

    def opened() -> tuple[Source, Indices]:
        source = open()
        if source.length < 1:
            raise ValueError("the source has no examples")
        return source, order(source)

    return once(opened)


def once(make: Callable[[], T]) -> Callable[[], T]:
    """`make`, called at most once, even from several threads; a call that raised is made again."""
    lock, made = threading.Lock(), functools.cache(make)

    def get() -> T:
        with lock:
            return made()

    return get

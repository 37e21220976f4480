"""A few canvases: an image goes to the one of the nearest aspect, and all images of a batch have the same.

A canvas for wide images and one for tall ones have less padding than one that holds both. The step is compiled once for
each, so the network must take any canvas.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Unpack

import numpy as np

from jaxvision.data import streams
from jaxvision.data.loading import Open, evaluation_steps, once
from jaxvision.data.order import EPOCHS_KEPT, Indices, Order
from jaxvision.data.placement import Placer
from jaxvision.data.randomness import Purpose, checked_seed, permutation
from jaxvision.data.readers import Reader
from jaxvision.data.source import Source, about
from jaxvision.data.streams import THREADS, RowOptions
from jaxvision.data.subset import subset
from jaxvision.formats.image_file import Size, upright_size
from jaxvision.types import WHOLE, Batch, Canvas, Fault, Shard, Stream

BLOCK = 256


class BucketStep(NamedTuple):
    """Whose turn a step is: a bucket, and the number of the step among those of the bucket."""

    bucket: int
    step: int


def training(
    open: Open,
    *,
    order: Order,
    placers: Sequence[Placer],
    seed: int = 0,
    reader: Reader = THREADS,
    **options: Unpack[RowOptions],
) -> Stream:
    """Batches without end as `streams.training` gives them, each on the canvas of one of the placers.

    Whose turn a step is, is a function of the seed and the step; of n steps, n the number of images, a bucket has as many
    as it has images. In a bucket, the order is the given one, of its images alone. The stream announces the largest canvas
    and begins with it, so that a step that does not fit into memory shows at once.

    The options are those of `streams.training`.

    Raises:
      ValueError: for less than two canvases that differ; with the first batch, for one that is nearest to no image.
    """
    canvases = _canvases(placers)
    seed, source = checked_seed(seed), once(open)
    bucket = once(lambda: _every_one_used(nearest_canvas(image_sizes(source()), canvases), canvases))
    parts = [
        streams.training(
            source,
            order=_within(order, bucket, k),
            placer=placer,
            seed=seed,
            reader=reader,
            **options,
        )
        for k, placer in enumerate(placers)
    ]
    largest = _largest(canvases)
    turns = once(lambda: turn_of(bucket(), seed, largest))

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        running: dict[int, Iterator[Batch]] = {}
        while True:
            turn = turns()(step)
            if turn.bucket not in running:
                running[turn.bucket] = parts[turn.bucket].batches(turn.step, shard)
            yield next(running[turn.bucket])
            step += 1

    return Stream(
        parts[largest].spec, batches, lambda: about(source()), None, _examiner(parts, bucket), _skipped(parts)
    )


def evaluation(
    open: Open,
    *,
    placers: Sequence[Placer],
    reader: Reader = THREADS,
    **options: Unpack[RowOptions],
) -> Stream:
    """Every example once, on the canvas of one of the placers: all of the first one, then all of the next one, ...

    The last batch of each is padded. What a detector finds depends a little on its canvas, since the coarse anchors of a
    pyramid do: so it should be that of training. The stream announces the largest one. The options are those of
    `streams.evaluation`.

    Raises:
      ValueError: for less than two canvases that differ.
    """
    canvases, source = _canvases(placers), once(open)
    bucket = once(lambda: nearest_canvas(image_sizes(source()), canvases))
    parts = [
        streams.evaluation(
            source,
            placer=placer,
            among=lambda _, k=k: np.flatnonzero(bucket() == k),
            reader=reader,
            **options,
        )
        for k, placer in enumerate(placers)
    ]

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        for count, part in zip(np.bincount(bucket(), minlength=len(parts)), parts, strict=True):
            steps = evaluation_steps(int(count), options["batch_size"])
            if step < steps:
                yield from part.batches(step, shard)
            step = max(step - steps, 0)

    def decode(data: bytes | np.ndarray) -> Canvas:
        size = data.shape[:2] if isinstance(data, np.ndarray) else upright_size(data) or (1, 1)
        decode_bucket = parts[int(nearest_canvas(np.asarray([size]), canvases)[0])].decode
        assert decode_bucket is not None
        return decode_bucket(data)

    able = all(part.decode for part in parts)
    spec = parts[_largest(canvases)].spec
    return Stream(
        spec, batches, lambda: about(source()), decode if able else None, _examiner(parts, bucket), _skipped(parts)
    )


def _canvases(placers: Sequence[Placer]) -> list[Size]:
    """Those of the placers, two or more that differ."""
    canvases = [placer.canvas for placer in placers]
    if len(canvases) < 2 or len(set(canvases)) < len(canvases):
        raise ValueError(f"buckets need two canvases or more that differ, got {canvases}")
    return canvases


def _largest(canvases: Sequence[Size]) -> int:
    return max(range(len(canvases)), key=lambda k: canvases[k][0] * canvases[k][1])


def _examiner(parts: Sequence[Stream], bucket: Callable[[], np.ndarray]) -> Callable[[Sequence[int]], list[Fault]]:
    def faults(indices: Sequence[int]) -> list[Fault]:
        whole = (parts[bucket()[index]].faults for index in indices)
        return [fault for index, find in zip(indices, whole, strict=True) if find for fault in find([index])]

    return faults


def _skipped(parts: Sequence[Stream]) -> Callable[[], tuple[int, int]] | None:
    """`Stream.skipped` of all buckets together."""
    counters = [part.skipped for part in parts if part.skipped is not None]
    if not counters:
        return None
    return lambda: (sum(count()[0] for count in counters), sum(count()[1] for count in counters))


def image_sizes(source: Source) -> np.ndarray:
    """Height and width of every image, int64 `[length, 2]`; reads all images of a source that does not know them."""
    if source.sizes is not None:
        return source.sizes()
    sizes = []
    for start in range(0, source.length, BLOCK):
        for example in source.read(np.arange(start, min(start + BLOCK, source.length))):
            image = example.image
            sizes.append(image.shape[:2] if isinstance(image, np.ndarray) else upright_size(image) or (1, 1))
    return np.asarray(sizes, np.int64)


def nearest_canvas(sizes: np.ndarray, canvases: Sequence[Size]) -> np.ndarray:
    """The number of the canvas of the nearest aspect for each image, by the logarithm, int64 `[n]`."""
    aspect = np.log(sizes[:, 0] / sizes[:, 1])
    of_canvas = np.log([height / width for height, width in canvases])
    return np.abs(aspect[:, None] - of_canvas).argmin(1)


def _every_one_used(nearest: np.ndarray, canvases: Sequence[Size]) -> np.ndarray:
    """Raises ValueError if a canvas has no image."""
    for canvas, count in zip(canvases, np.bincount(nearest, minlength=len(canvases)), strict=True):
        if not count:
            raise ValueError(
                f"no image is nearest to the canvas {canvas[0]}x{canvas[1]} (height x width): leave it out"
            )
    return nearest


def turn_of(bucket: np.ndarray, seed: int, first: int) -> Callable[[int], BucketStep]:
    """Whose turn each step is; the very first one is that of the bucket `first`."""
    n, counts = len(bucket), np.bincount(bucket)

    @functools.lru_cache(maxsize=EPOCHS_KEPT)
    def cycle(number: int) -> tuple[np.ndarray, np.ndarray]:
        shuffled = bucket[permutation(seed, Purpose.INTERLEAVE, number, n)]
        if number == 0:
            at = int(np.argmax(shuffled == first))
            shuffled[[0, at]] = shuffled[[at, 0]]
        rank = np.empty(n, np.int64)
        rank[np.argsort(shuffled, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
        return shuffled, number * counts[shuffled] + rank

    def turn(step: int) -> BucketStep:
        number, place = divmod(step, n)
        shuffled, steps = cycle(number)
        return BucketStep(int(shuffled[place]), int(steps[place]))

    return turn


def _within(order: Order, bucket: Callable[[], np.ndarray], number: int) -> Order:
    """The order of the images of one bucket, by their index in the whole source."""

    def within(source: Source) -> Indices:
        members = np.flatnonzero(bucket() == number)
        inner = order(subset(source, members))
        return lambda positions: members[inner(positions)]

    return within

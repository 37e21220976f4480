"""Which example stands at which position: pure functions of `(seed, position)`.

An order, given a source of n examples, maps int64 positions (0, 1, 2, ... without end) to indices of the source.
Position p lies in epoch `p // n`. Nothing is remembered between calls (the last few epochs are cached), so that a run can
go on from any position.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxvision.data.randomness import Purpose, checked_seed, permutation, philox
from jaxvision.data.source import Source
from jaxvision.errors import amount

Indices = Callable[[np.ndarray], np.ndarray]
"""Positions to indices of the source, vectorised."""
Order = Callable[[Source], Indices]

EPOCHS_KEPT = 4


def sequential() -> Order:
    """The order of the source, again and again."""

    def order(source: Source) -> Indices:
        n = _some(source)
        return lambda positions: np.asarray(positions, np.int64) % n

    return order


def shuffled(seed: int) -> Order:
    """Every example once an epoch, every epoch in another order: epoch e is a permutation keyed by `(seed, e)`."""
    seed = checked_seed(seed)

    def order(source: Source) -> Indices:
        n = _some(source)
        return _by_epoch(n, lambda epoch: permutation(seed, Purpose.SHUFFLE, epoch, n))

    return order


def repeated(seed: int, times: int, apart: int) -> Order:
    """Repeated augmentation (arXiv:1901.09335): the first examples of each epoch's permutation, each `times` times.

    An epoch is as long as the source and so shows 1 / `times` of it, as DeiT has it. Blocks of `apart` examples come `times`
    times one after the other: with `apart = batch_size // times` copies come in one batch, and never beside one another.
    Raises ValueError for less than 1 of either.
    """
    seed = checked_seed(seed)
    if times < 1 or apart < 1:
        raise ValueError(f"repeated(times={times}, apart={apart}): allowed are 1 or more")

    def order(source: Source) -> Indices:
        n = _some(source)
        block, place = np.divmod(np.arange(n), times * apart)
        ranks = block * apart + place % apart
        return _by_epoch(n, lambda epoch: permutation(seed, Purpose.SHUFFLE, epoch, n)[ranks])

    return order


def weighted(weights: Sequence[float] | np.ndarray, seed: int) -> Order:
    """Oversampling: n draws an epoch, of which example i, of normalised weight w, gets `floor(n w)` or `ceil(n w)`.

    Systematic resampling: n evenly spaced points with one random offset, dropped on the cumulative weights; then a
    permutation. Raises ValueError for weights that are negative, not finite, all zero, or not one an example.
    """
    seed = checked_seed(seed)
    weights = _checked_weights(weights)

    def order(source: Source) -> Indices:
        if len(weights) != _some(source):
            raise ValueError(f"weighted got {amount(len(weights), 'weight')} for {amount(source.length, 'example')}")
        return _resampled(weights, seed)

    return order


def balanced(seed: int, power: float = 1.0) -> Order:
    """Oversampling to equal frequencies: every class that occurs gets the same number of draws an epoch, within rounding.

    A `power` below 1 stops on the way there: the frequency of a class of n examples is proportional to `n ** (1 - power)`.
    0.5 is square-root sampling, 0 leaves it as it is (arXiv:1910.09217, whose q is 1 - power). Raises ValueError for a
    power outside 0 to 1.
    """
    seed = checked_seed(seed)
    if not 0 <= power <= 1:
        raise ValueError(f"balanced(power={power}): allowed is 0 to 1")

    def order(source: Source) -> Indices:
        _some(source)
        _, which, counts = np.unique(source.labels(), return_inverse=True, return_counts=True)
        return _resampled(1.0 / counts[which] ** power, seed)

    return order


def mixture(weights: Sequence[float], orders: Sequence[Order], seed: int) -> Order:
    """Draws from the parts of a concatenated source, each in its own order.

    An epoch is as long as the whole source, and holds the same number of draws from a part every time: its fraction by
    weight, rounded by the largest remainder. The k-th draw from a part, counted over all epochs, is position k of that
    part's order. Raises ValueError unless there is one weight and one order for each part.
    """
    seed = checked_seed(seed)
    fractions = _checked_weights(weights)

    def order(source: Source) -> Indices:
        parts = source.parts
        if not (len(parts) == len(fractions) == len(orders)):
            raise ValueError(
                f"mixture got {len(fractions)} weights and {len(orders)} orders for a source of {len(parts)} parts"
                " (a source gets its parts from `concatenate`)"
            )
        _some(source)
        return _mixed([each(part) for each, part in zip(orders, parts, strict=True)], parts, fractions, seed)

    return order


def _mixed(inner: list[Indices], parts: tuple[Source, ...], fractions: np.ndarray, seed: int) -> Indices:
    n = sum(part.length for part in parts)
    quotas = _quotas(n, fractions)
    starts = np.cumsum([0, *(part.length for part in parts)])
    part_of_draw = np.repeat(np.arange(len(parts)), quotas)
    number_of_draw = np.arange(n) - np.repeat(np.cumsum(quotas) - quotas, quotas)

    def epoch(number: int) -> np.ndarray:
        part = part_of_draw[permutation(seed, Purpose.INTERLEAVE, number, n)]
        # Sorted by part, then by place: the draws of each part are counted in the order in which they stand.
        rank = np.empty(n, np.int64)
        rank[np.argsort(part, kind="stable")] = number_of_draw
        running = number * quotas[part] + rank
        index = np.empty(n, np.int64)
        for which, indices in enumerate(inner):
            rows = np.flatnonzero(part == which)
            index[rows] = starts[which] + indices(running[rows])
        return index

    return _by_epoch(n, epoch)


def _resampled(weights: np.ndarray, seed: int) -> Indices:
    n = len(weights)
    ends = np.cumsum(weights)
    ends = ends / ends[-1] * n

    def epoch(number: int) -> np.ndarray:
        # 20 bits, half a step from 0 and 1: rounding in `ends` can't move a point over the end of a whole weight.
        offset = (int(philox(seed, Purpose.OVERSAMPLE, number).random_raw()) >> 44) + 0.5
        points = np.arange(n) + offset / 2**20
        sampled = np.searchsorted(ends, points, side="right")
        return sampled[permutation(seed, Purpose.SHUFFLE, number, n)]

    return _by_epoch(n, epoch)


def _by_epoch(n: int, epoch: Callable[[int], np.ndarray]) -> Indices:
    kept = functools.lru_cache(maxsize=EPOCHS_KEPT)(epoch)

    def indices(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions, np.int64)
        number, offset = np.divmod(positions, n)
        index = np.empty(positions.shape, np.int64)
        for each in np.unique(number):
            here = number == each
            index[here] = kept(int(each))[offset[here]]
        return index

    return indices


def _quotas(n: int, weights: np.ndarray) -> np.ndarray:
    exact = n * weights / weights.sum()
    quotas = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: n - quotas.sum()]] += 1
    return quotas


def _checked_weights(weights: Sequence[float] | np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise ValueError(f"weights must be one row of finite numbers, none negative, not all 0; got {weights}")
    return weights


def _some(source: Source) -> int:
    if source.length < 1:
        raise ValueError("an order needs a source with at least one example, got one with none")
    return source.length

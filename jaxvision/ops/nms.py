"""Non-maximum suppression (NMS) of one image's boxes at fixed width: what is kept is a mask, nothing changes its shape.

Rows that are not `valid` are never kept and remove nothing. Of equal scores the earlier row goes first.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.options import FINITE, allowed

NMS = Callable[[Float[Array, "n 4"], Float[Array, "n"], Bool[Array, "n"], Int[Array, "n"] | None], Float[Array, "n"]]
"""`(boxes, scores, valid, labels) -> scores`: what each box keeps of its score, 0 or more; REMOVED where it is not valid or
is removed. Boxes of different labels leave each other alone; None: all compete. See `greedy`, and `ops.other_nms`."""
REMOVED = -1
"""The score of a box that is removed."""


class Sizes(NamedTuple):
    """Numbers of boxes that are compared at once; they change the time it takes, not what is kept."""

    whole: int
    """The most boxes that are settled at once, all pairs of them; more are taken by blocks."""
    block: int
    """The boxes of a block: rounds of a long chain of removals are as cheap as a block is small."""
    strip: int
    """The boxes behind a block that are compared with it at once: whole blocks."""


SIZES = {False: Sizes(1024, 128, 512), True: Sizes(256, 128, 128)}
"""Sizes where all boxes compete, and where they have labels, so that most pairs are of different ones."""
SMALL_SIZES = {False: Sizes(256, 32, 128), True: Sizes(256, 32, 64)}
"""Sizes as above for a CPU, where a round of a loop costs little beside the pairs that it compares."""
MANY = 4096
"""Boxes that all compete, more than which are compared by the larger sizes on a CPU too."""


Greedy = Callable[
    [Float[Array, "n 4"], Float[Array, "n"], Bool[Array, "n"], float | int, Int[Array, "n"] | None], Bool[Array, "n"]
]
"""`(boxes, scores, valid, threshold, labels) -> kept`, as `nms`."""
_OPERATOR: ContextVar[Greedy | None] = ContextVar("_OPERATOR", default=None)


@contextmanager
def computed_by(operator: Greedy) -> Iterator[None]:
    """Inside this block programs that are traced compute `nms` by this operator: one of ONNX, say, for an export."""
    token = _OPERATOR.set(operator)
    try:
        yield
    finally:
        _OPERATOR.reset(token)


@allowed(threshold=FINITE)
def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    threshold: float | int,
    labels: Int[Array, "n"] | None = None,
) -> Bool[Array, "n"]:
    """The boxes that greedy NMS keeps: from the best score down, each whose IoU with none kept before is too high.

    Exact for every threshold: the mask is the one fixed point of "kept is who has no such IoU with a better one that is
    kept", which is reached from above in as many rounds as the longest chain of removals has links, not in n. A chain of all
    boxes, each of which removes the next, is the worst: n rounds.

    Args:
      boxes: `x0 y0 x1 y1`.
      scores: of them.
      valid: which of them there are.
      threshold: an IoU above it removes (torchvision's strict `>`).
      labels: boxes of different labels leave each other alone; None: all compete.
    """
    if operator := _OPERATOR.get():
        return operator(boxes, scores, valid, threshold, labels)
    n, by_label = len(boxes), labels is not None
    small = jax.default_backend() == "cpu" and (by_label or n <= MANY)
    sizes = (SMALL_SIZES if small else SIZES)[by_label]
    keys = jnp.where(valid, -scores, jnp.inf), jnp.arange(n)
    if labels is not None and n > sizes.whole:
        order = jax.lax.sort((labels, *keys), num_keys=2)[-1]
    else:
        order = jax.lax.sort(keys, num_keys=1)[-1]
    rows = _Rows(boxes[order].T, jnp.zeros_like(order) if labels is None else labels[order])
    settle = _at_once if n <= sizes.whole else partial(_by_block, sizes)
    return jnp.zeros(n, bool).at[order].set(settle(rows, valid[order], threshold))


@allowed(iou=FINITE)
def greedy(iou: float = 0.5) -> NMS:
    """NMS that removes every box of a higher IoU than this with a better one that is kept, see `nms`."""
    return lambda boxes, scores, valid, labels: jnp.where(nms(boxes, scores, valid, iou, labels), scores, REMOVED)


class _Rows(NamedTuple):
    """Boxes in order of their scores; a row a side, so that loops over pairs of them vectorise."""

    sides: Float[Array, "4 n"]
    label: Int[Array, "n"]


def _removes(a: _Rows, b: _Rows, threshold: float | int) -> Bool[Array, "n m"]:
    """Whether a box of `a`, if it is kept, removes one of `b` behind it."""
    return (pairwise(iou, a.sides.T, b.sides.T) > threshold) & (a.label[:, None] == b.label[None])


def _settle(removes: Bool[Array, "n n"], alive: Bool[Array, "n"]) -> Bool[Array, "n"]:
    """The greedy choice among boxes in order of their scores."""
    before = jnp.triu(removes, 1)

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        new = alive & ~(before & kept[:, None]).any(0)
        return new, (new != kept).any()

    return jax.lax.while_loop(lambda state: state[1], again, (alive, alive.any()))[0]


def _at_once(rows: _Rows, valid: Bool[Array, "n"], threshold: float | int) -> Bool[Array, "n"]:
    """Greedy NMS of a few boxes: all pairs of them at once."""
    return _settle(_removes(rows, rows, threshold), valid)


def _by_block(sizes: Sizes, rows: _Rows, valid: Bool[Array, "n"], threshold: float | int) -> Bool[Array, "n"]:
    """Greedy NMS of many boxes in order of their labels: block after block, each first cleared of what earlier blocks remove.

    A block is compared with strips of the boxes behind it, as far as its last label goes; under `vmap` as far as any image's.
    """
    n, block_size, strip = len(valid), sizes.block, sizes.strip
    padding = 0, -n % strip
    rows = _Rows(jnp.pad(rows.sides, ((0, 0), padding)), jnp.pad(rows.label, padding, "edge"))
    ends = jnp.searchsorted(rows.label, rows.label[block_size - 1 :: block_size], side="right")
    reached = -(-ends // strip)  # strips, as far as each block's last label goes

    def part(start: Array, length: int) -> _Rows:
        return _Rows(*(jax.lax.dynamic_slice_in_dim(each, start, length, axis=-1) for each in rows))

    def block(number: Array, alive: Array) -> Array:
        start = number * block_size
        current = part(start, block_size)
        kept = _settle(_removes(current, current, threshold), jax.lax.dynamic_slice_in_dim(alive, start, block_size))

        def cleared(number: Array, state: tuple[Array, _Rows]) -> tuple[Array, _Rows]:
            alive, others = state  # carried: XLA on CPU is several times slower where it slices anew for each pair
            first = number * strip
            hit = (_removes(current, others, threshold) & kept[:, None]).any(0)
            hit &= jnp.arange(strip, dtype=first.dtype) + first >= start + block_size
            before = jax.lax.dynamic_slice_in_dim(alive, first, strip)
            alive = jax.lax.dynamic_update_slice_in_dim(alive, before & ~hit, first, axis=0)
            return alive, part(first + strip, strip)

        first = (start + block_size) // strip
        alive = jax.lax.dynamic_update_slice_in_dim(alive, kept, start, axis=0)
        return jax.lax.fori_loop(first, reached[number], cleared, (alive, part(first * strip, strip)))[0]

    return jax.lax.fori_loop(0, -(-n // block_size), block, jnp.pad(valid, padding))[:n]

"""Which object each prediction or anchor of one image is responsible for, and which of them are trained on.

A match is the number of an object, or BACKGROUND, or IGNORED. Objects that are not `valid` match nothing.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.top_k import top_k
from jaxvision.types import Key

BACKGROUND = -1
IGNORED = -2
"""Neither an object nor background: trained on as neither."""

Match = Int[Array, "a"]


def by_threshold(
    overlap: Float[Array, "g a"], valid: Bool[Array, "g"], *, high: float, low: float, low_quality: bool = False
) -> Match:
    """Each anchor to the object it overlaps best, from `high` on; below `low` to background (arXiv:1506.01497).

    Args:
      overlap: of objects and anchors.
      valid: which objects there are.
      high: from this overlap on it is that object's; between the two it is ignored.
      low: below it is background.
      low_quality: an anchor that no other overlaps an object better than is that of its own best object in any case, as in
        region proposals. (So torchvision has it: its own best one, which may be another.)
    """
    overlap = jnp.where(valid[:, None], overlap, -1)
    best, which = overlap.max(0), overlap.argmax(0).astype(jnp.int32)
    match = jnp.where(best < low, BACKGROUND, jnp.where(best < high, IGNORED, which))
    if low_quality:
        restored = ((overlap == overlap.max(1, keepdims=True)) & valid[:, None]).any(0)
        match = jnp.where(restored, which, match)
    return match


def bipartite(overlap: Float[Array, "g a"], valid: Bool[Array, "g"], *, threshold: float) -> Match:
    """SSD's matching (arXiv:1512.02325, section 2.2): every object gets its best anchor, further ones by the threshold.

    Where two objects have the same best anchor, the later one gets it, as in torchvision.
    """
    match = by_threshold(overlap, valid, high=threshold, low=threshold)
    best = jnp.where(valid, overlap.argmax(1), overlap.shape[1])
    number = jnp.arange(overlap.shape[0], dtype=jnp.int32)
    claimed = jnp.full(overlap.shape[1], BACKGROUND, jnp.int32).at[best].max(number, mode="drop")
    return jnp.where(claimed >= 0, claimed, match)


def hungarian(cost: Float[Array, "p g"], valid: Bool[Array, "g"]) -> Match:
    """The assignment of predictions to objects, one to one, of the least cost in all (arXiv:2005.12872).

    Of `p` predictions each gets an object or background; of more objects than predictions the first have one. Objects that
    are not `valid` come last and cost nothing: a large constant would take from the costs of the others the digits that
    they need for themselves.
    """
    order = jnp.argsort(~valid, stable=True)[: len(cost)]
    real = valid[order]
    predictions, places = optax.assignment.hungarian_algorithm(jnp.where(real[None], cost[:, order], 0))
    objects = jnp.where(real, order, BACKGROUND).astype(jnp.int32)
    return jnp.full(len(cost), BACKGROUND, jnp.int32).at[predictions].set(objects[places])


def sample(
    key: Key, positive: Bool[Array, "a"], negative: Bool[Array, "a"], *, count: int, share: float
) -> tuple[Int[Array, "{count}"], Bool[Array, "{count}"]]:
    """A random sample of `count` anchors, at most the given share of them positive, the rest negative (arXiv:1506.01497).

    Returns:
      Their indices, positive ones first, and which of the rows there are: fewer where negatives run out.
    """
    priority = jax.random.uniform(key, positive.shape)
    wanted = jnp.minimum(positive.sum(), int(count * share))
    rank = jnp.where(positive, priority, -1)
    rank_of = jnp.zeros_like(rank, jnp.int32).at[jnp.argsort(-rank)].set(jnp.arange(len(rank), dtype=jnp.int32))
    chosen = positive & (rank_of < wanted)
    order = jnp.where(chosen, 2 + priority, jnp.where(negative & ~positive, priority, -1))
    best, index = top_k(order, min(count, len(order)))
    padding = count - len(index)
    return jnp.pad(index.astype(jnp.int32), (0, padding)), jnp.pad(best >= 0, (0, padding))

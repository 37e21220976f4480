"""Which object each prediction or anchor of one image is responsible for, and which of them are trained on.

A match is the number of an object, or BACKGROUND, or IGNORED. Objects that are not `valid` match nothing.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.options import COUNT, FRACTION, allowed
from jaxvision.ops.top_k import top_k
from jaxvision.types import Key

BACKGROUND = -1
IGNORED = -2
"""Neither an object nor background: trained on as neither."""

Match = Int[Array, "a"]


@allowed(high=FRACTION, low=FRACTION)
def by_threshold(
    iou: Float[Array, "g a"], valid: Bool[Array, "g"], *, high: float, low: float, low_quality: bool = False
) -> Match:
    """Each anchor to the object of the highest IoU, from `high` on; below `low` to background (arXiv:1506.01497).

    Args:
      iou: of objects and anchors.
      valid: which objects there are.
      high: from this IoU on it is that object's; between the two it is ignored.
      low: below it is background.
      low_quality: an anchor whose IoU with an object no other exceeds is that of its own best object in any case, as in
        region proposals. (So torchvision has it: its own best one, which may be another.)
    """
    iou = jnp.where(valid[:, None], iou, -1)
    best, which = iou.max(0), iou.argmax(0).astype(jnp.int32)
    match = jnp.where(best < low, BACKGROUND, jnp.where(best < high, IGNORED, which))
    if low_quality:
        first = jnp.arange(iou.shape[1])[None] == iou.argmax(1)[:, None]  # one at least, however `iou` is rounded
        best_of_object = (((iou >= iou.max(1, keepdims=True)) | first) & valid[:, None]).any(0)
        match = jnp.where(best_of_object, which, match)
    return match


@allowed(threshold=FRACTION)
def bipartite(iou: Float[Array, "g a"], valid: Bool[Array, "g"], *, threshold: float) -> Match:
    """SSD's matching (arXiv:1512.02325, section 2.2): every object gets its best anchor, further ones by the threshold.

    Where two objects have the same best anchor, the later one gets it, as in torchvision.
    """
    match = by_threshold(iou, valid, high=threshold, low=threshold)
    best = jnp.where(valid, iou.argmax(1), iou.shape[1])
    number = jnp.arange(iou.shape[0], dtype=jnp.int32)
    claimed = jnp.full(iou.shape[1], BACKGROUND, jnp.int32).at[best].max(number, mode="drop")
    return jnp.where(claimed >= 0, claimed, match)


def greedy(iou: Float[Array, "g a"], valid: Bool[Array, "g"]) -> Match:
    """An anchor for every object of its own, the pair of the highest IoU first; all others are background.

    As in YOLACT's code. Of equal IoUs the first object and the first anchor; of more objects than anchors as many have one.
    """
    objects = jnp.arange(len(iou), dtype=jnp.int32)
    # The others take one anchor less than there are objects, so that no object needs more candidates than these.
    left, anchors = top_k(jnp.where(valid[:, None], iou, -1), min(iou.shape))

    def pair(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        left, match = state
        number = left.max(1).argmax()
        place = left[number].argmax()
        anchor = anchors[number, place]
        claimed = jnp.where(left[number, place] >= 0, anchor, iou.shape[1])
        taken = (anchors == anchor) | (objects == number)[:, None]
        return jnp.where(taken, -1, left), match.at[claimed].set(number.astype(jnp.int32), mode="drop")

    return jax.lax.fori_loop(0, len(iou), pair, (left, jnp.full(iou.shape[1], BACKGROUND, jnp.int32)))[1]


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


@allowed(count=COUNT, positive_fraction=FRACTION)
def sample(
    key: Key, positive: Bool[Array, "a"], negative: Bool[Array, "a"], *, count: int, positive_fraction: float
) -> tuple[Int[Array, "{count}"], Bool[Array, "{count}"]]:
    """A random sample of `count` anchors, at most this fraction of them positive, the rest negative (arXiv:1506.01497).

    Returns:
      Their indices, positive ones first, and which of the rows there are: fewer where negatives run out.
    """
    priority = jax.random.uniform(key, positive.shape)
    wanted = jnp.minimum(positive.sum(), int(count * positive_fraction))
    rank = jnp.where(positive, priority, -1)
    rank_of = jnp.zeros_like(rank, jnp.int32).at[jnp.argsort(-rank)].set(jnp.arange(len(rank), dtype=jnp.int32))
    chosen = positive & (rank_of < wanted)
    order = jnp.where(chosen, 2 + priority, jnp.where(negative & ~positive, priority, -1))
    best, index = top_k(order, min(count, len(order)))
    padding = count - len(index)
    return jnp.pad(index.astype(jnp.int32), (0, padding)), jnp.pad(best >= 0, (0, padding))

"""Magnitude pruning while training: the smallest weights of each chosen array become 0 and stay so (arXiv:1710.01878).

`optax.chain(optax.adamw(rate), pruned(0.8, ".*/kernel", begin=100, end=400))`; the mask is in the optimizer's state, and so
in each checkpoint. `globally=True` is global pruning: the smallest weights of all chosen arrays, wherever they are (the
"global magnitude pruning" of arXiv:2003.03033). Averaged weights keep the zeros with `keeping_zeros(average,
optimize.matching(".*/kernel"))` of `trust.lighter.pruned`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Int, Shaped

from jaxvision.optimize.patterns import check_matches, first_match, names
from jaxvision.types import Params, Scalar


class Pruned(struct.PyTreeNode):
    """State of `pruned`."""

    count: Scalar
    """Steps done."""
    kept: dict[str, Bool[Array, "..."]]
    """Which weights are not pruned, by the name of their array."""


def pruned(
    sparsity: float,
    *chosen: str,
    begin: int,
    end: int,
    every: int = 10,
    initial: float = 0.0,
    globally: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Pruning to a fraction of zeros in each array whose name one of the patterns matches; last in a chain.

    From step `begin` to `end` the fraction rises as `sparsity + (initial - sparsity) * (1 - progress) ** 3`. At each step
    that is due, the weights with the smallest absolute values before it become 0; none of them comes back. Between these
    steps and after `end` the others train.

    Args:
      sparsity: fraction of zeros in the end, at least 0 and less than 1; of n weights `round(sparsity * n)` are 0.
      chosen: patterns of names of arrays.
      begin: first step that prunes, counted from 0.
      end: last step that prunes; `begin` for all at once.
      every: steps from one pruning to the next.
      initial: fraction of zeros at `begin`.
      globally: whether the fraction is of all chosen arrays together (global pruning), in place of each one's; inside
        `optimize.by_group`, of those of the group. An array may then end with zeros alone. The step's plan holds the sizes
        and the order of all these weights at once.

    Raises:
      ValueError: for values that are not allowed; in its `init`, for a pattern that matches no array, with the nearest names.
    """
    fractions = cubic(sparsity, begin, end, every, initial)

    def init(params: Params) -> Any:
        arrays = by_name(params, chosen, "pruned")
        return Pruned(jnp.int32(0), {name: jnp.ones(x.shape, bool) for name, x in arrays.items()})

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        del extra
        if params is None:
            raise ValueError("pruned: update needs the parameters, update(updates, state, params)")
        weights = by_name(params, chosen, "pruned")
        step = state.count
        due = (step >= begin) & (step <= end) & (((step - begin) % every == 0) | (step == end))
        row = jnp.clip(-(-(step - begin) // every), 0, len(fractions) - 1)

        def still_kept(kept: Mapping[str, Array]) -> Mapping[str, Array]:
            zeros = jnp.asarray(_counts(fractions, sum(x.size for x in kept.values())))[row]
            return jax.lax.cond(due, lambda: without_smallest(weights, zeros, kept), lambda: kept)

        kept = {name: x for group in _groups(state.kept, globally) for name, x in still_kept(group).items()}
        masked = lambda name, u: _ending_at_zero(u, weights[name], kept[name]) if name in kept else u
        updates = jax.tree.map(masked, names(updates), updates)
        return updates, state.replace(count=state.count + 1, kept=kept)

    return optax.GradientTransformationExtraArgs(init, update)


def _ending_at_zero(update: Array, weights: Array, kept: Array) -> Array:
    """The update, and exactly the negative weight where that is not kept."""
    return jnp.where(kept, update.astype(weights.dtype), -weights)


def cubic(sparsity: float, begin: int, end: int, every: int = 10, initial: float = 0.0) -> np.ndarray:
    """The fraction of zeros after each step that prunes: `begin`, then every `every`-th, and `end`.

    Raises:
      ValueError: as `pruned` does.
    """
    check_sparsity(sparsity, "sparsity")
    if not 0 <= initial <= sparsity:
        raise ValueError(f"pruned: initial is {initial}; it must be at least 0 and at most the sparsity, {sparsity}")
    if not 0 <= begin <= end or every < 1:
        raise ValueError(
            f"pruned: begin is {begin}, end {end} and every {every}; "
            "begin must be at least 0 and at most end, every at least 1"
        )
    steps = np.unique([*range(begin, end, every), end])
    progress = (steps - begin) / (end - begin) if end > begin else np.ones(1)
    return sparsity + (initial - sparsity) * (1 - progress) ** 3


def check_sparsity(sparsity: float, name: str) -> None:
    """Raises ValueError for a fraction of zeros outside [0, 1)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"{name} is {sparsity}; it must be at least 0 and less than 1")


def without_smallest(
    weights: Mapping[str, Shaped[Array, "..."]], zeros: Int[Array, ""] | int, kept: Mapping[str, Bool[Array, "..."]]
) -> dict[str, Bool[Array, "..."]]:
    """Which weights of the arrays in `kept` stay when the `zeros` smallest of all are left out.

    Ties go by the order of the arrays, then by index; those that were not kept go first.
    """
    size = jnp.concatenate([jnp.where(mask, jnp.abs(weights[name]), -1).reshape(-1) for name, mask in kept.items()])
    order = jnp.argsort(size, stable=True)
    rank = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.arange(len(order), dtype=jnp.int32))
    parts = jnp.split(rank >= zeros, np.cumsum([x.size for x in kept.values()])[:-1])
    return {name: part.reshape(x.shape) for (name, x), part in zip(kept.items(), parts, strict=True)}


def pruned_once(params: Params, sparsity: float, *chosen: str, globally: bool = False) -> Params:
    """The parameters with the smallest weights of each chosen array, or of all (`globally`), at 0: one step of `pruned`.

    Raises:
      ValueError: for a sparsity outside [0, 1), and a pattern that matches no array, with the nearest names.
    """
    check_sparsity(sparsity, "sparsity")
    arrays, kept = by_name(params, chosen, "pruned_once"), {}
    for group in _groups({name: jnp.ones(x.shape, bool) for name, x in arrays.items()}, globally):
        zeros = int(_counts(np.asarray([sparsity]), sum(x.size for x in group.values()))[0])
        kept |= without_smallest(arrays, zeros, group)
    return jax.tree.map(lambda name, x: jnp.where(kept[name], x, 0) if name in kept else x, names(params), params)


def fraction_of_zeros(params: Params, *chosen: str) -> float:
    """The fraction of exact zeros among all weights of the arrays that one of the patterns matches.

    Raises:
      ValueError: for a pattern that matches no array.
    """
    arrays = by_name(params, chosen, "fraction_of_zeros").values()
    return float(sum(int((x == 0).sum()) for x in arrays) / sum(x.size for x in arrays))


def by_name(params: Params, chosen: tuple[str, ...], who: str) -> Mapping[str, Any]:
    """The arrays whose names one of the patterns matches. Raises ValueError, led by `who`, for a pattern of none."""
    every = dict(zip(jax.tree.leaves(names(params)), jax.tree.leaves(params), strict=True))
    if not chosen:
        raise ValueError(f"{who}: no pattern is given; '.*kernel' is all kernels")
    for pattern in chosen:
        check_matches(pattern, every, who)
    return {name: every[name] for name in first_match(every, chosen)}


def _groups(kept: Mapping[str, Array], globally: bool) -> list[Mapping[str, Array]]:
    """The arrays whose weights compete: all of them, by name, or each alone."""
    return [dict(sorted(kept.items()))] if globally else [{name: x} for name, x in kept.items()]


def _counts(fractions: np.ndarray, size: int) -> np.ndarray:
    """The number of zeros among this many weights, of each fraction."""
    return np.round(fractions * size).astype(np.int32)

"""Judging a map: does hiding what it marks lower the score, does it point at the object, does it depend on the network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxvision.errors import ConfigError
from jaxvision.trust.explain.masking import responses
from jaxvision.trust.explain.scores import Score
from jaxvision.types import Variables

Map = Float[np.ndarray, "h w"]


class Curve(NamedTuple):
    """The score as more and more pixels are hidden, or shown."""

    fraction: Float[np.ndarray, "n"]
    """Fraction of the pixels that are hidden, or shown."""
    score: Float[np.ndarray, "n"]

    @property
    def area(self) -> float:
        """The area under the curve: the mean score, by trapezia."""
        return float(np.trapezoid(self.score, self.fraction))


def deletion(
    score: Score, image: Float[Array, "h w c"], map: Map, baseline: Array | float = 0.0, steps: int = 32
) -> Curve:
    """The score as pixels become the baseline, those of the highest values first (arXiv:1806.07421): low is good."""
    return _curve(score, image, _most_important(map, steps, hidden=True), baseline)


def insertion(
    score: Score, image: Float[Array, "h w c"], map: Map, baseline: Array | float = 0.0, steps: int = 32
) -> Curve:
    """The score as the image appears on the baseline, pixels of the highest values first: high is good."""
    return _curve(score, image, _most_important(map, steps, hidden=False), baseline)


def _most_important(map: Map, steps: int, *, hidden: bool) -> Float[np.ndarray, "n h w"]:
    """Masks in which 0, 1, ... `steps` parts of the pixels are hidden, or visible; of equal values the first pixel."""
    rank = np.empty(map.size, int)
    rank[np.argsort(-map.ravel(), kind="stable")] = np.arange(map.size)
    counts = np.round(np.linspace(0, map.size, steps + 1)).astype(int)
    chosen = rank.reshape(1, *map.shape) < counts[:, None, None]
    return (~chosen if hidden else chosen).astype(np.float32)


def _curve(score: Score, image: Array, visible: Float[np.ndarray, "n h w"], baseline: Array | float) -> Curve:
    return Curve(np.linspace(0, 1, len(visible)), responses(score, image, visible, baseline).astype(np.float64))


def points_inside(map: Map, mask: Bool[np.ndarray, "h w"]) -> bool:
    """Pointing game: whether the highest value, the first of equal ones, lies in the object (arXiv:1608.00507)."""
    return bool(mask.reshape(-1)[np.argmax(map)])


def energy_inside(map: Map, mask: Bool[np.ndarray, "h w"]) -> float:
    """The part of the positive values that lies in the mask, 0 to 1 (arXiv:1910.01279); NaN of a map without any."""
    positive = np.maximum(map, 0)
    return float(positive[mask].sum() / positive.sum()) if positive.sum() else float("nan")


def inside(box: Float[np.ndarray, "4"], shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels whose centres lie in a box."""
    y, x = (np.arange(side) + 0.5 for side in shape)
    return ((box[1] <= y) & (y < box[3]))[:, None] & ((box[0] <= x) & (x < box[2]))[None]


def completeness(
    score: Score, images: Float[Array, "b h w c"], attribution: Float[Array, "b h w c"], baseline: Array | float = 0.0
) -> Float[Array, "b"]:
    """By how much an attribution's sum misses the difference of the scores of image and baseline, as a fraction of it."""
    difference = score(images) - score(jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape))
    return jnp.abs(attribution.sum((1, 2, 3)) - difference) / jnp.abs(difference)


def randomised(variables: Variables, seed: int) -> Variables:
    """Variables with random parameters in place of the trained ones (arXiv:1810.03292): the same values, shuffled.

    Each array keeps its mean and spread, so that the network's activations keep their sizes; the collections, such as
    BatchNorm's statistics, stay as they are, and averaged variables are left out. On the host: nothing is compiled.
    """
    random = np.random.default_rng(seed)
    shuffled = lambda leaf: jnp.asarray(random.permutation(np.asarray(leaf).ravel()).reshape(leaf.shape))
    rest = {name: value for name, value in variables.items() if name not in ("params", "ema")}
    return {**rest, "params": jax.tree.map(shuffled, variables["params"])}


def rank_correlation(a: Map, b: Map) -> float:
    """Spearman's correlation of two maps' values, equal ones having their mean rank; NaN where a map is constant."""
    x, y = (_ranks(each.ravel()) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    length = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / length) if length else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


ALIKE = 0.5
"""Rank correlation from which on a method is said to explain an untrained network as well as the trained one."""


def verdict(method: str, correlation: float) -> str:
    """What the test with randomised parameters says of a method, in a line."""
    if np.isnan(correlation):
        return f"{method}: with randomised parameters the map is constant: it depends on what was learned"
    if correlation >= ALIKE:
        return f"{method} explains an untrained network as well as the trained one: rank correlation {correlation:.2f}"
    return f"{method} depends on what was learned: rank correlation {correlation:.2f} with randomised parameters"


class NoAttributionError(ConfigError):
    """A map of zeros, or with values that are not finite: of this image, others may have one."""


def check_nonzero(map: Map, what: str) -> Map:
    """The map, if it says anything.

    Raises:
      NoAttributionError: for a map of zeros, or with values that are not finite.
    """
    if not np.isfinite(map).all():
        raise NoAttributionError(
            f"the attribution of {what} is not finite: the network's output is not, for this image"
        )
    if not np.any(map):
        raise NoAttributionError(
            f"the attribution of {what} is zero everywhere: the score does not change with what the method looks at"
            " (a score saturated at 1, a layer behind it, a side of a box cut at the border); try another method or --layer="
        )
    return map

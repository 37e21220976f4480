"""Scores to explain: the raw score of a class, for a whole image or for the pixels of a region."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from jaxvision.errors import ConfigError, amount, nearest
from jaxvision.types import Batch, ClassScores, PixelScores, Task, Variables

Score = Callable[[Float[Array, "b h w c"]], Float[Array, "b"]]
"""`images -> scores`: pixels 0-255, as floats; each image has one score.

Those made here are `jax.tree_util.Partial`, whose arguments (variables, batch, class) are values that change, so that the
next image, class or detection needs no other compilation.
"""


def partial(score: Score) -> Partial:
    """A score as an argument of a compiled function."""
    return score if isinstance(score, Partial) else Partial(score)


@jax.jit
def _values(score: Partial, images: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    return score(images)


def values(score: Score, images: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    """The scores of images, compiled."""
    return _values(partial(score), images)


def shown(batch: Batch, images: Float[Array, "n h w c"]) -> Batch:
    """The first image of a batch `n` times, with other pixels."""
    repeat = lambda x: jnp.broadcast_to(jnp.asarray(x)[:1], (len(images), *x.shape[1:]))
    return jax.tree.map(repeat, batch.replace(image=None, target=None)).replace(image=images)


def of_class(task: Task, variables: Variables, batch: Batch, label: int) -> Score:
    """The logit of a class, before softmax: what a classifier's maps explain.

    Args:
      task: whose prediction is `ClassScores`.
      variables: of its network.
      batch: whose first image is explained; sizes and what is given beside the pixels are taken from it.
      label: the class.
    """
    return Partial(_logit(task), variables, batch, label)


@cache
def _logit(task: Task) -> Callable[..., Array]:
    return lambda variables, batch, label, images: task.predict(variables, shown(batch, images)).logits[:, label]


def probability(task: Task, variables: Variables, batch: Batch, label: int) -> Score:
    """The probability of a class, by softmax: what a user of the classifier sees; arguments as those of `of_class`."""
    return Partial(_softmax(task), variables, batch, label)


@cache
def _softmax(task: Task) -> Callable[..., Array]:
    def score(variables: Variables, batch: Batch, label: int, images: Float[Array, "b h w c"]) -> Float[Array, "b"]:
        return jax.nn.softmax(task.predict(variables, shown(batch, images)).logits)[:, label]

    return score


def of_region(task: Task, variables: Variables, batch: Batch, label: int, region: Bool[Array, "y x"]) -> Score:
    """The sum of a class's logits over the cells of a region: Grad-CAM of it is Seg-Grad-CAM (arXiv:2002.11434).

    Args:
      task: whose prediction is `PixelScores`.
      variables: of its network.
      batch: whose first image is explained.
      label: the class.
      region: cells of the map of logits: those of the class, see `predicted_region`, or any others.
    """
    return Partial(_region_sum(task), variables, batch, label, jnp.asarray(region))


@cache
def _region_sum(task: Task) -> Callable[..., Array]:
    def score(
        variables: Variables, batch: Batch, label: int, region: Bool[Array, "y x"], images: Float[Array, "b h w c"]
    ) -> Float[Array, "b"]:
        logits = task.predict(variables, shown(batch, images)).logits[..., label]
        return jnp.where(region[None], logits, 0).sum((1, 2))

    return score


def predicted_region(prediction: PixelScores, label: int) -> Bool[Array, "y x"]:
    """The cells of the first image's map of logits whose best class this is.

    Raises:
      ConfigError: if there is none.
    """
    region = prediction.logits[0].argmax(-1) == label
    if not region.any():
        raise ConfigError(f"no pixel of the image is predicted to be of class {label}; there is no region to explain")
    return region


def class_number(name: str | None, classes: tuple[str, ...], prediction: ClassScores | PixelScores) -> int:
    """The number of the class of this name; without one, the best of the image, or the class of most of its pixels.

    Raises:
      ConfigError: if there is no such class.
    """
    if name is not None:
        if name not in classes:
            raise ConfigError(
                f"there is no class {name!r} among {amount(len(classes), 'class')}{nearest(name, classes)}"
            )
        return classes.index(name)
    best = prediction.logits[0].argmax(-1)
    return int(best) if best.ndim == 0 else int(jnp.bincount(best.reshape(-1)).argmax())

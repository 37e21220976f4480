"""Maps by what a score does when part of the image is hidden: no gradient, any network."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxvision.trust.explain.scores import Score, partial, values

Visible = Float[np.ndarray, "n h w"]
"""Which part of each pixel is visible in each of `n` images, 0 to 1; the rest is that of the baseline."""


def responses(
    score: Score,
    image: Float[Array, "h w c"],
    visible: Visible,
    baseline: Float[Array, "*hw c"] | float = 0.0,
    at_once: int = 16,
) -> Float[np.ndarray, "n"]:
    """The score of one image under every mask, `at_once` together; compiled once."""
    baseline = jnp.broadcast_to(jnp.asarray(baseline, image.dtype), image.shape)
    under = lambda part: _masked(partial(score), image, baseline, jnp.asarray(part, image.dtype))
    return np.concatenate([np.asarray(under(part)) for part in _parts(visible, at_once)])[: len(visible)]


@jax.jit
def _masked(
    score: Partial, image: Float[Array, "h w c"], baseline: Float[Array, "h w c"], masks: Float[Array, "n h w"]
) -> Float[Array, "n"]:
    shown = masks[..., None]
    return score(image[None] * shown + baseline[None] * (1 - shown))


def _parts(masks: Visible, size: int) -> Iterator[Visible]:
    """The masks, `size` at a time; the last are repeated to as many."""
    for first in range(0, len(masks), size):
        part = masks[first : first + size]
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])


def occlusion(
    score: Score,
    image: Float[Array, "h w c"],
    window: int,
    stride: int,
    baseline: Float[Array, "*hw c"] | float = 0.0,
    at_once: int = 16,
) -> Float[np.ndarray, "h w"]:
    """What the score loses when a square is hidden, as the mean of the squares on each pixel (arXiv:1311.2901).

    Squares at the right and lower border are cut by it, where the stride does not divide what is left.
    """
    visible = np.stack(list(_windows(image.shape[:2], window, stride)))
    loss = float(values(score, image[None])[0]) - responses(score, image, visible, baseline, at_once)
    hidden = 1 - visible
    return (loss[:, None, None] * hidden).sum(0) / np.maximum(hidden.sum(0), 1)


def _windows(shape: tuple[int, ...], window: int, stride: int) -> Iterator[np.ndarray]:
    starts = [range(0, max(side - window, 0) + (-max(side - window, 0)) % stride + 1, stride) for side in shape]
    for top in starts[0]:
        for left in starts[1]:
            mask = np.ones(shape)
            mask[top : top + window, left : left + window] = 0
            yield mask


def random_masks(
    random: np.random.Generator, count: int, shape: tuple[int, int], grid: int = 8, visible: float = 0.5
) -> Visible:
    """Masks of RISE (arXiv:1806.07421): random grids, enlarged (bilinear) to one cell more than the image, and moved.

    Args:
      random: draws grids and offsets.
      count: how many masks.
      shape: height and width of the image.
      grid: cells of a side.
      visible: probability of a cell to be visible.
    """
    cells = [-(-side // grid) for side in shape]
    large = tuple((grid + 1) * cell for cell in cells)
    grids = (random.random((count, grid, grid)) < visible).astype(np.float32)
    top, left = (random.integers(0, cell, count) for cell in cells)
    enlarged = np.asarray(jax.image.resize(grids, (count, *large), "bilinear"))
    cut = [x[t : t + shape[0], l : l + shape[1]] for x, t, l in zip(enlarged, top, left, strict=True)]
    return np.stack(cut)


def rise(
    score: Score,
    image: Float[Array, "h w c"],
    visible: Visible,
    baseline: Float[Array, "*hw c"] | float = 0.0,
    at_once: int = 16,
) -> Float[np.ndarray, "h w"]:
    """The mean score of the masks, each weighted by how visible the pixel is in it (arXiv:1806.07421, equation 6).

    With `detections.similarity` as the score it is D-RISE (arXiv:2006.03204).
    """
    found = responses(score, image, visible, baseline, at_once)
    return np.tensordot(found, visible, 1) / (len(visible) * visible.mean())

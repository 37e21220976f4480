"""Maps by the gradient of a score for the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxvision.trust.explain.scores import Score, partial
from jaxvision.types import Key

Attribution = Float[Array, "b h w c"]
"""What each value of each pixel adds to the score, or how much the score changes with it."""


def gradient(score: Score, images: Float[Array, "b h w c"]) -> Attribution:
    """The gradient of each image's score for its pixels."""
    return _gradient(partial(score), images)


@jax.jit
def _gradient(score: Partial, images: Float[Array, "b h w c"]) -> Attribution:
    return jax.grad(lambda x: score(x).sum())(images)


def saliency(score: Score, images: Float[Array, "b h w c"]) -> Attribution:
    """The gradient's absolute value (arXiv:1312.6034)."""
    return jnp.abs(gradient(score, images))


def smooth_grad(
    score: Score, images: Float[Array, "b h w c"], key: Key, samples: int = 32, noise: float = 0.15
) -> Attribution:
    """The absolute value of the mean gradient under noise (arXiv:1706.03825).

    Args:
      score: to explain.
      images: pixels 0-255.
      key: of the noise.
      samples: how many noisy images.
      noise: its standard deviation, as a fraction of each image's range of values.
    """
    deviation = noise * jnp.ptp(images, axis=(1, 2, 3), keepdims=True)

    def one(key: Key) -> Attribution:
        return gradient(score, images + deviation * jax.random.normal(key, images.shape, images.dtype))

    return jnp.abs(sum(map(one, jax.random.split(key, samples))) / samples)


def integrated_gradients(
    score: Score, images: Float[Array, "b h w c"], baseline: Float[Array, "b h w c"] | float = 0.0, steps: int = 50
) -> Attribution:
    """The gradient's integral on the straight way from a baseline, by Gauss-Legendre quadrature (arXiv:1703.01365).

    The values of an image add up to the difference between its score and the baseline's, see `judging.completeness`.

    Args:
      score: to explain.
      images: pixels 0-255.
      baseline: images that show nothing; black ones unless others are given.
      steps: places on the way.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    way = images - baseline
    places, weights = (jnp.asarray(x / 2, images.dtype) for x in (nodes + 1, weights))
    each = zip(places, weights, strict=True)
    return way * sum(weight * gradient(score, baseline + place * way) for place, weight in each)

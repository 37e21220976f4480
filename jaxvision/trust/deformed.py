"""Streams whose images are deformed, and their targets with them: turned, scaled, sheared, seen at an angle, bent.

Not of ImageNet-C: the amounts are ours. How boxes, masks and maps follow is `augment.warp`'s and `elastic`'s.
"""

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.augment import targets
from jaxvision.augment.warp import warped
from jaxvision.errors import DataError, raised_as
from jaxvision.ops import homography
from jaxvision.trust import elastic
from jaxvision.trust.corruptions import ELASTIC, generator
from jaxvision.types import WHOLE, Batch, Shard, Stream

AMOUNTS: Mapping[str, tuple[float, ...]] = {
    "rotation": (5, 10, 15, 20, 30),
    "scale": (1.1, 1.2, 1.35, 1.5, 2),
    "shear": (0.05, 0.1, 0.15, 0.2, 0.3),
    "perspective": (0.1, 0.2, 0.3, 0.4, 0.5),
    ELASTIC: (0.02, 0.035, 0.05, 0.065, 0.08),
}
"""By severity: degrees, either way; a factor, larger or smaller; pixels by which columns lean per pixel, either way; the
fraction of width and height by which corners move inwards at most, twice over; of the shorter side, by which knots move."""

Numbers = Float[Array, "*n 2"]
"""From -1 to 1: each image's chance, `4 2`, or `6 6 2` for the knots of `elastic`."""


def deformed(stream: Stream, name: str, severity: int, seed: int) -> Stream:
    """The stream, each image deformed about its centre, its targets with it.

    Random numbers are a function of `(seed, index of the example, name, severity)`. What comes in from outside repeats the
    border.

    Raises:
      DataError: from `batches`, for targets that can't be moved: masks that were cut out at their boxes don't turn or bend.
    """
    amount = AMOUNTS[name][severity - 1]

    @jax.jit
    def moved(batch: Batch, numbers: Float[Array, "b *n 2"]) -> Batch:
        if name == ELASTIC:
            return elastic.bent(batch, numbers * amount, name)
        matrices = jax.vmap(lambda chance, size: MOTIONS[name](amount, chance, size))(numbers, batch.size)
        return warped(batch, matrices, name, "nearest", "bilinear")

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        for batch in stream.batches(step, shard):
            chances = [_numbers(seed, int(index), name, severity) for index in np.asarray(batch.index)]
            with raised_as(DataError):
                if name != "scale":
                    targets.check_upright(batch, name)
                found = jax.device_get(moved(batch, np.stack(chances)))
            yield found

    return stream._replace(batches=batches, decode=None)


def _numbers(seed: int, index: int, name: str, severity: int) -> np.ndarray:
    shape = (elastic.KNOTS, elastic.KNOTS, 2) if name == ELASTIC else (4, 2)
    if index < 0:
        return np.zeros(shape, np.float32)
    return generator(seed, index, name, severity).uniform(-1, 1, shape).astype(np.float32)


def _sign(chance: Numbers) -> Array:
    return jnp.where(chance[0, 0] < 0, -1.0, 1.0)


def _rotation(amount: float, chance: Numbers, size: Int[Array, "2"]) -> homography.Matrix:
    return homography.about_centre(homography.rotation(_sign(chance) * amount), size)


def _scale(amount: float, chance: Numbers, size: Int[Array, "2"]) -> homography.Matrix:
    factor = jnp.where(_sign(chance) < 0, 1 / amount, amount)
    return homography.about_centre(homography.zoom(factor, factor), size)


def _shear(amount: float, chance: Numbers, size: Int[Array, "2"]) -> homography.Matrix:
    return homography.about_centre(homography.shear(_sign(chance) * amount, 0), size)


def _perspective(amount: float, chance: Numbers, size: Int[Array, "2"]) -> homography.Matrix:
    corners = jnp.asarray([[0, 0], [1, 0], [1, 1], [0, 1]], jnp.float32)
    inwards = jnp.abs(chance) * amount / 2
    full = jnp.maximum(size, 1)
    return homography.onto((corners + (1 - 2 * corners) * inwards) * full[None, ::-1].astype(jnp.float32), full)


MOTIONS: Mapping[str, Callable[[float, Numbers, Int[Array, "2"]], homography.Matrix]] = {
    "rotation": _rotation,
    "scale": _scale,
    "shear": _shear,
    "perspective": _perspective,
}

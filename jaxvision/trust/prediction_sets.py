"""Classifiers whose predictions come with a conformal set: the classes that hold the true one with a wanted probability.

The threshold (`conformal`) is an array of the variables, in the collection `conformal`, and kept with a run. The uniform
random number of an image, which the exact coverage needs, is a hash of its pixels: an image has the same set each time.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxvision.ops.pixels import inside
from jaxvision.types import Batch, ClassScores, Key, LossOutput, Prediction, Scalar, Task, Variables

COLLECTION = "conformal"


def with_sets(task: Task) -> Task:
    """The task of a classifier, its predictions with `members`; every class is one until a run has a threshold.

    Raises:
      TypeError: in `predict`, for predictions of another kind.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return {**task.init(key, batch), COLLECTION: {"threshold": jnp.asarray(jnp.inf, jnp.float32)}}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        return task.loss(_without(variables), batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        found = task.predict(_without(variables), batch)
        if not isinstance(found, ClassScores):
            raise TypeError(f"with_sets needs predictions to be ClassScores, got {type(found).__name__}")
        scored = scores(found.logits, hashed(jnp.asarray(batch.image), jnp.asarray(batch.size)))
        return found.replace(members=scored <= variables[COLLECTION]["threshold"])

    return Task(init, loss, predict)


def _without(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != COLLECTION}


def scores(logits: Float[Array, "b k"], uniform: Float[Array, "b"]) -> Float[Array, "b k"]:
    """The score of every class, as `conformal.scores`, in float32."""
    p = jax.nn.softmax(logits.astype(jnp.float32))
    order = jnp.argsort(-p, axis=1, stable=True)
    ranked = jnp.take_along_axis(p, order, 1)
    ranked = jnp.cumsum(ranked, 1) - ranked + uniform[:, None] * ranked
    return jnp.take_along_axis(ranked, jnp.argsort(order, axis=1, stable=True), 1)


def hashed(image: Array, size: Int[Array, "b 2"]) -> Float[Array, "b"]:
    """A number from 0 to below 1 for each image, by the whole parts of its pixels; what is outside `size` is not read."""
    rows, columns, channels = (jnp.arange(n, dtype=jnp.uint32) for n in image.shape[1:])
    place = (
        rows[:, None, None] * np.uint32(65599)
        + columns[None, :, None] * np.uint32(4099)
        + channels[None, None]
        + np.uint32(1)
    )
    shown: Bool[Array, "b h w"] = jax.vmap(inside, (0, None, None))(size, *image.shape[1:3])
    levels = jnp.where(shown[..., None], image, 0).astype(jnp.uint32)
    total = jnp.sum(levels * _mixed(place)[None], (1, 2, 3), dtype=jnp.uint32)
    return (_mixed(total) >> np.uint32(8)).astype(jnp.float32) / np.float32(2**24)


def _mixed(number: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """The last step of MurmurHash3: every bit changes with each of the number's."""
    number = (number ^ (number >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    number = (number ^ (number >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return number ^ (number >> np.uint32(16))

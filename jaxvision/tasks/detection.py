"""What detectors share: their input, the objects they are trained on, and their output from the scores of many boxes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.ops import boxes, pixels
from jaxvision.ops.selection import Selection
from jaxvision.types import Batch, Detections, Objects

AT_ONCE = 8
"""Images whose NMS runs together: memory grows with classes times `pre_nms_top_k` squared of each."""


def images(batch: Batch, mean: float | Sequence[float], std: float | Sequence[float], dtype) -> Float[Array, "b h w c"]:
    """Normalised pixels; 0 outside the content."""
    return jax.vmap(lambda image, size: pixels.normalise(image, size, mean, std, dtype))(batch.image, batch.size)


def trained_on(objects: Objects) -> Bool[Array, "*b n"]:
    """Which objects are targets: those that are there, have an area, and are not to be ignored."""
    return objects.valid & ~objects.ignore & (boxes.area(objects.boxes) > 0)


def weights(objects: Objects) -> Float[Array, "*b n"]:
    """Weight of each object in the loss: 1 unless the target says otherwise."""
    return jnp.ones_like(objects.boxes[..., 0]) if objects.weight is None else objects.weight


def targets(batch: Batch) -> Objects:
    """The objects of the valid images of a batch.

    Raises:
      TypeError: if the target is something else.
    """
    if not isinstance(batch.target, Objects):
        raise TypeError(f"a detector needs batch.target to be Objects, got {type(batch.target).__name__}")
    return batch.target.replace(valid=batch.target.valid & batch.valid[:, None])


def detections(one: Callable[..., Selection], *each: Array) -> Detections:
    """The detections of every image of a batch, `one` giving those of one from the rows of `each`.

    Images that are looked at together are taken from all over the batch: so, of one that is split over all devices, each
    device has its own at every turn.
    """
    count = len(each[0])
    together = _together(count, jax.device_count())
    turns = [x.reshape(together, count // together, *x.shape[1:]).swapaxes(0, 1) for x in each]
    found = jax.lax.map(lambda rows: jax.vmap(one)(*rows), tuple(turns))
    found = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(count, *x.shape[2:]), found)
    return Detections(found.boxes, found.labels, found.scores, found.valid, index=found.index)


def _together(count: int, devices: int) -> int:
    """How many images of a batch at a time: one a device at least, if the batch can be split over them."""
    if count % devices:
        return _together(count, 1)
    most = max(AT_ONCE // devices, 1)
    return devices * max(n for n in range(1, most + 1) if count // devices % n == 0)

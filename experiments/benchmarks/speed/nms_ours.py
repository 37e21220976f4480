"""Side of jaxvision in the benchmark `nms`."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.speed.boxes import clusters
from experiments.benchmarks.speed.contest import Work
from jaxvision.ops import nms as ops


def nms(count: int) -> Work:
    """NMS at an IoU of 0.5; the outcome is which boxes are kept."""
    boxes, scores = map(jnp.asarray, clusters(count))
    call = jax.jit(lambda boxes, scores, valid: ops.nms(boxes, scores, valid, 0.5))
    valid = jnp.ones(count, bool)

    def run(units: int) -> None:
        for _ in range(units):
            call(boxes, scores, valid).block_until_ready()

    return Work(run, lambda: np.flatnonzero(call(boxes, scores, valid)).tolist())

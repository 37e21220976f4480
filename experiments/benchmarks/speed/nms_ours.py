"""Sides of jaxvision in the benchmark `nms`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.speed.boxes import FORMS, classed
from experiments.benchmarks.speed.contest import Work
from jaxvision.ops import nms as ops


def nms(count: int, form: str = "clusters") -> Work:
    """NMS at an IoU of 0.5; the outcome is which boxes are kept."""
    boxes, scores = map(jnp.asarray, FORMS[form](count))
    return _work(boxes, scores, None)


def class_wise(count: int) -> Work:
    """NMS of boxes of the same class alone."""
    boxes, scores, labels = map(jnp.asarray, classed(count))
    return _work(boxes, scores, labels.astype(jnp.int32))


def _work(boxes: jax.Array, scores: jax.Array, labels: jax.Array | None) -> Work:
    call = jax.jit(lambda boxes, scores, valid, labels: ops.nms(boxes, scores, valid, 0.5, labels))
    once = partial(call, boxes, scores, jnp.ones(len(boxes), bool), labels)

    def run(units: int) -> None:
        for _ in range(units):
            once().block_until_ready()

    return Work(run, lambda: np.flatnonzero(once()).tolist())

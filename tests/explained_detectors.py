"""Small detectors whose scores are not saturated, and an image with a detection. Not a test itself."""

import functools

import jax
import jax.numpy as jnp
from detectors import EVERY, make_batch, variables_of

from jaxvision.trust.explain import detections

WEAKER = {"retinanet": 0.3}
"""Factors of the kernels, with which no score is 1 to the last bit; 0.6 for the others."""


@functools.cache
def detector(name):
    """The task, its variables, a batch of one image, and the first detection of it, in float64."""
    batch = make_batch(counts=(3,)).replace(target=None)
    task = EVERY[name](jnp.float64)
    weaker = lambda path, x: WEAKER.get(name, 0.6) * x if path[-1].key == "kernel" else x
    variables = jax.tree_util.tree_map_with_path(weaker, variables_of(task, batch, seed=2))
    found = jax.jit(task.predict)(variables, batch)
    return task, variables, batch, detections.detected(found, 1)

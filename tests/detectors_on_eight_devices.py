"""How far losses, gradients and detections on eight devices are from those on one, as JSON. Started by a test."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from detectors import EVERY, loss_and_gradient, make_batch, variables_of

from jaxvision import parallel


def error(make):
    task, batch = make(jnp.float64), make_batch((3, 1, 0, 5, 2, 2, 4, 0))
    variables = variables_of(task, batch)
    step = jax.jit(lambda variables, batch: (loss_and_gradient(task)(variables, batch), task.predict(variables, batch)))
    mesh = parallel.device_mesh(1)
    spread = parallel.placer(mesh)(jax.device_get(batch))
    copied = jax.device_put(variables, parallel.replicated(mesh))
    assert len(spread.image.sharding.device_set) == 8
    results = (jax.device_get(step(*each)) for each in ((copied, spread), (variables, batch)))
    found, expected = ([np.float64(leaf) for leaf in jax.tree.leaves(each)] for each in results)
    return max(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)) for a, b in zip(found, expected, strict=True))


json.dump({name: float(error(make)) for name, make in EVERY.items()}, sys.stdout)

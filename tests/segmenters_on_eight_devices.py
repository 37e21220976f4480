"""How far losses, gradients and scores on eight devices are from those on one, and how many bytes they move, as JSON.

Of every semantic segmenter also a batch whose second half is not valid, from the first half alone on one device. Started by
a test.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from detectors import loss_and_gradient, variables_of
from segmenters import EVERY, make_batch

from jaxvision.run import devices


def compared(name):
    task, batch = EVERY[name](jnp.float64), make_batch(16)
    variables = variables_of(task, batch)
    step = jax.jit(lambda variables, batch: (loss_and_gradient(task)(variables, batch), task.predict(variables, batch)))
    mesh = devices.device_mesh(1)
    spread = devices.placer(mesh)(jax.device_get(batch))
    copied = jax.device_put(variables, devices.replicated(mesh))
    assert len(spread.image.sharding.device_set) == 8
    compiled = step.lower(copied, spread).compile()
    exchanged = devices.collectives(compiled.as_text() or "")
    moved = sum(each.bytes for each in exchanged if each.kind != "all-reduce")
    half, alone = batch.replace(valid=batch.index < 8), jax.tree.map(lambda x: x[:8], batch)
    of_half = compiled(copied, devices.placer(mesh)(jax.device_get(half)))
    return {
        "error": largest_difference(compiled(copied, spread), step(variables, batch)),
        "half_error": largest_difference(of_half, step(variables, alone)),
        "moved": moved,
    }


def largest_difference(found, expected):
    """From 1 on relative to what is expected, of as many rows as that has."""
    found, expected = (map(np.float64, jax.tree.leaves(jax.device_get(each))) for each in (found, expected))
    pairs = ((a[tuple(map(slice, b.shape))], b) for a, b in zip(found, expected, strict=True))
    return float(max(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)) for a, b in pairs))


json.dump({name: compared(name) for name in sys.argv[1:] or EVERY}, sys.stdout)

"""How far losses, gradients and detections on eight devices are from those on one, and how many bytes they move, as JSON.

Of every detector also a batch whose second half is not valid, from the first half alone on one device. Started by a test.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from detectors import EVERY, LIVE, loss_and_gradient, make_batch, variables_of

from jaxvision.run import devices

CHOSEN = ("ssd", "yolov3_tiny", "yolox", "faster_rcnn", "mask_rcnn", "detr")
"""One detector of every way to assign objects."""


def compared(name):
    task, batch = EVERY[name](jnp.float64, **LIVE[name]), make_batch((3, 1, 0, 5, 2, 2, 4, 0) * 3)
    variables = variables_of(task, batch)
    step = jax.jit(lambda variables, batch: (loss_and_gradient(task)(variables, batch), task.predict(variables, batch)))
    mesh = devices.device_mesh(1)
    spread = devices.placer(mesh)(jax.device_get(batch))
    copied = jax.device_put(variables, devices.replicated(mesh))
    assert len(spread.image.sharding.device_set) == 8
    compiled = step.lower(copied, spread).compile()
    exchanged = devices.collectives(compiled.as_text() or "")
    moved = sum(each.bytes for each in exchanged if each.kind != "all-reduce")
    half, alone = batch.replace(valid=batch.index < 12), jax.tree.map(lambda x: x[:12], batch)
    of_half = compiled(copied, devices.placer(mesh)(jax.device_get(half)))
    whole = largest_difference(compiled(copied, spread), step(variables, batch))
    return {"error": whole, "half_error": largest_difference(of_half, step(variables, alone)), "moved": moved}


def half_compared(name):
    """Loss, gradient and statistics of a batch of which half is not valid, on eight devices."""
    task, batch = EVERY[name](jnp.float64, **LIVE[name]), make_batch((3, 1, 0, 5, 2, 2, 4, 0) * 2)
    variables, step, mesh = variables_of(task, batch), jax.jit(loss_and_gradient(task)), devices.device_mesh(1)
    half, alone = batch.replace(valid=batch.index < 8), jax.tree.map(lambda x: x[:8], batch)
    spread = devices.placer(mesh)(jax.device_get(half))
    assert len(spread.image.sharding.device_set) == 8
    found = step(jax.device_put(variables, devices.replicated(mesh)), spread)
    return {"half_error": largest_difference(found, step(variables, alone))}


def largest_difference(found, expected):
    """From 1 on relative to what is expected, of as many rows as that has."""
    found, expected = (map(np.float64, jax.tree.leaves(jax.device_get(each))) for each in (found, expected))
    pairs = ((a[tuple(map(slice, b.shape))], b) for a, b in zip(found, expected, strict=True))
    return float(max(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)) for a, b in pairs))


json.dump(
    {name: compared(name) if name in CHOSEN else half_compared(name) for name in sys.argv[1:] or EVERY}, sys.stdout
)

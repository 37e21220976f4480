"""How far losses, gradients and detections on eight devices are from those on one, and how many bytes they move, as JSON.

Of every detector a batch whose second half is not valid: of those not chosen the loss, from the first half alone on one
device. Started by a test.
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
    """Loss, gradient, statistics and detections; the same program has both batches."""
    task, batch, variables = given(name)
    step = jax.jit(lambda variables, batch: (loss_and_gradient(task)(variables, batch), task.predict(variables, batch)))
    copied, spread = on_eight(variables, batch)
    compiled = step.lower(copied, spread).compile()
    exchanged = devices.collectives(compiled.as_text() or "")
    moved = sum(each.bytes for each in exchanged if each.kind != "all-reduce")
    whole, half = (
        largest_difference(compiled(*on_eight(variables, each)), step(variables, each))
        for each in (batch, batch.replace(valid=batch.index < 8))
    )
    return {"error": whole, "half_error": half, "moved": moved}


def half_compared(name):
    """Loss and statistics of a batch of which half is not valid, on eight devices."""
    task, batch, variables = given(name)
    loss, alone = jax.jit(lambda *inputs: task.loss(*inputs, jax.random.key(0))), jax.tree.map(lambda x: x[:8], batch)
    found = loss(*on_eight(variables, batch.replace(valid=batch.index < 8)))
    return {"half_error": largest_difference(found, loss(variables, alone))}


def given(name):
    task, batch = EVERY[name](jnp.float64, **LIVE[name]), make_batch((3, 1, 0, 5, 2, 2, 4, 0) * 2)
    return task, batch, variables_of(task, batch)


def on_eight(variables, batch):
    """Variables on every device, and a batch that is split over them."""
    mesh = devices.device_mesh(1)
    spread = devices.placer(mesh)(jax.device_get(batch))
    assert len(spread.image.sharding.device_set) == 8
    return jax.device_put(variables, devices.replicated(mesh)), spread


def largest_difference(found, expected):
    """From 1 on relative to what is expected, of as many rows as that has."""
    found, expected = (map(np.float64, jax.tree.leaves(jax.device_get(each))) for each in (found, expected))
    pairs = ((a[tuple(map(slice, b.shape))], b) for a, b in zip(found, expected, strict=True))
    return float(max(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)) for a, b in pairs))


json.dump(
    {name: compared(name) if name in CHOSEN else half_compared(name) for name in sys.argv[1:] or EVERY}, sys.stdout
)

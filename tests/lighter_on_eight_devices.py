"""How far predictions of folded tasks, and of one in 8-bit numbers, on eight devices are from those on one, as JSON.

Not a test itself: started with eight simulated devices.
"""

import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from detectors import make_batch, small_ssd

from jaxvision.nn.cnn import SmallCNN
from jaxvision.run import devices
from jaxvision.tasks.classification import classification
from jaxvision.trust.lighter.folding import folded
from jaxvision.types import Labels


def difference(task, variables, batch):
    mesh = devices.device_mesh(1)
    one = jax.jit(task.predict)(variables, batch)
    spread = devices.placer(mesh)(jax.device_get(batch))
    assert len(spread.image.sharding.device_set) == 8
    eight = jax.jit(task.predict)(jax.device_put(variables, devices.replicated(mesh)), spread)
    pairs = zip(*map(jax.tree.leaves, (one, eight)), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)


objects = make_batch((3, 1, 0, 5, 2, 2, 1, 0), dtype=np.float64).replace(target=None)
labelled = objects.replace(target=Labels(jnp.arange(8) % 3))
classifier = classification(SmallCNN(3, (4, 8), 1, dtype=jnp.float64), dtype=jnp.float64)
found = {}
for name, task, batch in (("classifier", classifier, labelled), ("detector", small_ssd(jnp.float64), objects)):
    found[name] = difference(folded(task), folded(task).init(jax.random.key(0), batch), batch)
if all(map(importlib.util.find_spec, ("jax2onnx", "onnx", "onnxruntime"))):
    from eight_bits import small

    task, variables, batch = small(rows=8)
    found["int8"] = difference(task, variables, batch)
json.dump(found, sys.stdout)

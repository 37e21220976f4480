"""How far predictions of calibrated tasks on eight devices are from those on one, as JSON.

Not a test itself: started with eight simulated devices.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from detectors import make_batch, small_ssd
from flax import linen as nn

from jaxvision.run import devices
from jaxvision.tasks.classification import classification
from jaxvision.trust.calibrated import COLLECTION, calibrated, steps
from jaxvision.types import Labels


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3)(x.mean((1, 2)))


def difference(task, batch):
    variables = task.init(jax.random.key(0), batch)
    numbers = {name: each**2 for name, each in variables[COLLECTION].items()}
    variables, mesh = {**variables, COLLECTION: numbers}, devices.device_mesh(1)
    one = jax.jit(task.predict)(variables, batch)
    spread = devices.placer(mesh)(jax.device_get(batch))
    assert len(spread.image.sharding.device_set) == 8
    eight = jax.jit(task.predict)(jax.device_put(variables, devices.replicated(mesh)), spread)
    pairs = zip(*map(jax.tree.leaves, (one, eight)), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)


objects = make_batch((3, 1, 0, 5, 2, 2, 1, 0), dtype=np.float64).replace(target=None)
labelled = objects.replace(target=Labels(jnp.arange(8) % 3))
found = {
    "classifier": difference(calibrated(classification(Linear(), dtype=jnp.float64), steps(5, 3)), labelled),
    "detector": difference(calibrated(small_ssd(jnp.float64), steps(5)), objects),
}
json.dump(found, sys.stdout)

"""How far two steps and a prediction of lighter tasks on eight devices are from those on one, as JSON.

Not a test itself: started with eight simulated devices.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from detectors import make_batch, small_ssd

from jaxvision import optimize, train
from jaxvision.nn.cnn import SmallCNN
from jaxvision.run import devices
from jaxvision.tasks.classification import classification
from jaxvision.tasks.distillation import taught
from jaxvision.trust.lighter.channels import narrowed
from jaxvision.trust.lighter.quantised import quantised
from jaxvision.types import Labels

SGD = optax.sgd(1e-2)


def difference(task, batch, optimizer=SGD):
    mesh, batch = devices.device_mesh(1), jax.device_get(batch)
    spread = devices.placer(mesh)(batch)
    assert len(spread.image.sharding.device_set) == 8
    state = train.init_state(task, optimizer, jax.random.key(0), jax.eval_shape(lambda: batch))
    step = jax.jit(train.make_train_step(task, optimizer))

    def after(state, batch):
        for _ in range(2):
            state, metrics = step(state, batch)
        found = jax.jit(task.predict)(state.current, batch.replace(target=None))
        return jax.device_get((state.replace(key=0), metrics, found))

    one, eight = after(state, batch), after(jax.device_put(state, devices.replicated(mesh)), spread)
    pairs = zip(*map(jax.tree.leaves, (one, eight)), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)


objects = make_batch((3, 1, 0, 5, 2, 2, 1, 0), dtype=np.float64)
labelled = objects.replace(target=Labels(jnp.arange(8) % 3))
network = classification(
    SmallCNN(3, (4, 6), depth=1, dropout=0.0, dtype=jnp.float64), mean=127.0, std=64.0, dtype=jnp.float64
)
detector = small_ssd(jnp.float64)
pruned = optax.chain(optax.sgd(1e-2), optimize.pruned(0.8, ".*kernel", begin=0, end=1, every=1))
globally = optax.chain(optax.sgd(1e-2), optimize.pruned(0.8, ".*kernel", begin=0, end=1, every=1, globally=True))
teacher = jax.jit(detector.init)(jax.random.key(1), objects)
found = {
    "pruned": difference(network, labelled, pruned),
    "pruned globally": difference(network, labelled, globally),
    "quantised": difference(quantised(network), labelled),
    "narrowed": difference(narrowed(network, {"": {"channels": ((2,), (3,))}}), labelled),
    "taught": difference(taught(detector, detector, teacher), objects),
}
json.dump(found, sys.stdout)

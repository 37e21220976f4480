"""What four devices exchange for the largest values of rows, as JSON. Not a test itself: started with simulated devices."""

import json
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxvision.ops.top_k import top_k
from jaxvision.run import devices

devices.keep_compilations()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
MESH = devices.device_mesh(1)
VALUES = np.random.default_rng(0).permutation(8 * 400).reshape(8, 400).astype(np.float32)


def facts(function, spec):
    sharding = NamedSharding(MESH, spec)
    compiled = jax.jit(jax.vmap(lambda row: function(row, 30)), in_shardings=sharding).lower(VALUES).compile()
    best, index = compiled(jax.device_put(VALUES, sharding))
    order = np.argsort(-VALUES, 1)[:, :30]
    return {
        "exchanged": [each.kind for each in devices.collectives(compiled.as_text())],
        "equal": bool((index == order).all() and (best == np.take_along_axis(VALUES, order, 1)).all()),
        "split": best.sharding.shard_shape(best.shape) == (2, 30),
    }


batch, row = PartitionSpec(devices.AXES), PartitionSpec(None, devices.AXES)
found = {"batch": facts(top_k, batch), "row": facts(top_k, row), "lax": facts(jax.lax.top_k, batch)}
json.dump(found, sys.stdout)

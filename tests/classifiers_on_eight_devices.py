"""How far a batch of which half is not valid is, on eight devices, from the valid half alone on one, as JSON.

Of the classifiers that are named on the command line. Not a test itself: started with eight simulated devices.
"""

import json
import sys

import jax
import numpy as np
from classifiers import NETWORKS, compared, half_valid, task_of
from detectors import variables_of

from jaxvision.gradient import mean_gradient
from jaxvision.run import devices

ON_ONE = ("inception",)
"""On one device alone: eight copies of its wide layers take minutes, and they are those of GoogLeNet."""


def errors(name):
    task, (both, alone) = task_of(name), half_valid(NETWORKS[name][1], 16)
    variables, key, mesh = variables_of(task, alone), jax.random.key(1), devices.device_mesh(1)
    step = jax.jit(mean_gradient(task.loss))
    expected = compared(step(variables, alone, key))
    if name in ON_ONE:
        found = {"one": largest_difference(compared(step(variables, both, key), 2), expected)}
    else:
        spread, everywhere = devices.placer(mesh)(jax.device_get(both)), devices.replicated(mesh)
        assert len(spread.image.sharding.device_set) == 8
        on_eight = step(jax.device_put(variables, everywhere), spread, jax.device_put(key, everywhere))
        found = {"eight": largest_difference(compared(on_eight, 2), expected)}
    changed = jax.tree.map(
        lambda new, old: bool((new != old).any()), expected[2], {"batch_stats": variables["batch_stats"]}
    )
    return found | {"statistics": all(jax.tree.leaves(changed))}


def largest_difference(found, expected):
    """As a part of the largest value of each array, 1 at least."""
    pairs = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b), initial=1)) for a, b in pairs)


json.dump({name: errors(name) for name in sys.argv[1:]}, sys.stdout)

"""The law of `valid` in networks with batch normalisation: examples that are not valid are as if they were not there.

Detectors have it among their laws, in `test_detectors.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import NETWORKS, compared, half_valid, task_of
from detectors import variables_of
from equalities import equalities
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.gradient import accumulate, mean_gradient
from jaxvision.tasks.classification import classification

pytestmark = pytest.mark.usefixtures("float64")
QUICK = ("small_cnn", "resnet")


def assert_close(found, expected):
    """To 1e-9 of the largest value of each array, 1 at least."""
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=1e-9 * np.max(np.abs(theirs), initial=1))


def check(task, side):
    both, alone = half_valid(side)
    variables, step = variables_of(task, alone), jax.jit(mean_gradient(task.loss))
    (_, out), _ = expected = step(variables, alone, jax.random.key(1))
    assert_close(compared(step(variables, both, jax.random.key(1)), every=2), compared(expected))
    statistics = jax.tree.leaves(out.collections["batch_stats"])
    assert all((a != b).any() for a, b in zip(statistics, jax.tree.leaves(variables["batch_stats"]), strict=True))


@pytest.mark.parametrize("name", QUICK)
def test_the_valid_half_of_a_batch_computes_what_it_does_alone(name):
    check(task_of(name), NETWORKS[name][1])


@pytest.mark.slow
def test_so_it_does_in_every_network_on_eight_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, Path(__file__).parent / "classifiers_on_eight_devices.py", *NETWORKS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == set(NETWORKS)
    assert {name for name, each in found.items() if "eight" not in each} == {"inception"}
    errors = [each["one"] if name == "inception" else each["eight"] for name, each in found.items()]
    assert max(errors) < 1e-9, found
    assert all(each["statistics"] for each in found.values()), found


def test_so_it_does_in_a_network_of_ones_own_with_the_layer_of_flax(tiny_net):
    check(classification(tiny_net(dtype=jnp.float64), dtype=jnp.float64), 16)


@pytest.mark.parametrize("name", QUICK)
def test_no_float_has_to_equal_another(name):
    task, (both, _) = task_of(name), half_valid(NETWORKS[name][1])
    variables = jax.eval_shape(task.init, jax.random.key(0), both)
    assert not equalities(mean_gradient(task.loss), variables, both, jax.random.key(1))


@pytest.mark.parametrize("flax", [True, False])
def test_a_batch_without_a_valid_example_changes_nothing(tiny_net, flax):
    network = tiny_net(dtype=jnp.float64) if flax else NETWORKS["small_cnn"][0]()
    task, (batch, _) = classification(network, dtype=jnp.float64), half_valid(16)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    batch = batch.replace(valid=jnp.zeros(8, bool))
    (loss, out), gradient = jax.jit(mean_gradient(task.loss))(variables, batch, jax.random.key(1))
    assert loss == 0
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(gradient))
    jax.tree.map(assert_array_equal, out.collections, {"batch_stats": variables["batch_stats"]})


def test_a_micro_batch_without_a_valid_example_leaves_the_statistics_to_the_others():
    task, (both, alone) = classification(NETWORKS["small_cnn"][0](), dtype=jnp.float64), half_valid(16)
    variables = jax.jit(task.init)(jax.random.key(0), alone)
    (_, found), halved = jax.jit(accumulate(2)(task.loss))(variables, both, jax.random.key(1))
    (_, expected), gradient = jax.jit(mean_gradient(task.loss))(variables, alone, jax.random.key(1))
    assert_close(found.collections, expected.collections)
    assert_close(halved, jax.tree.map(lambda x: x / 2, gradient))

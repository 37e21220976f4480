"""A state that is saved is a copy: training may give its own arrays away at once."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxvision.experiment import Keep
from jaxvision.run import devices
from jaxvision.run.checkpoint import Checkpoints
from jaxvision.run.copies import copied

GIVEN_AWAY = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 + 7, tree), donate_argnums=0)


def state() -> dict:
    """Arrays of several types, one of them on all devices in parts."""
    mesh = devices.device_mesh()
    parts = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    split = jax.device_put(jnp.arange(8.0 * mesh.size).reshape(-1, 8), parts)
    return {"split": split, "half": jnp.ones((3, 4), jnp.bfloat16), "step": jnp.int32(5)}


def test_a_copy_is_where_the_original_was_and_outlives_it():
    original = state()
    expected = jax.tree.map(np.asarray, original)
    copy = copied(original)
    assert jax.tree.map(lambda a, b: a.sharding == b.sharding, copy, original) == dict.fromkeys(original, True)
    GIVEN_AWAY(original)
    jax.tree.map(np.testing.assert_array_equal, copy, expected)


def test_what_was_saved_is_what_was_there_then(tmp_path):
    original = state()
    expected = jax.tree.map(np.asarray, original)
    with Checkpoints(tmp_path / "checkpoints", Keep(latest=2)) as checkpoints:
        for step in (1, 2):  # the first is also read back
            given = jax.tree.map(jnp.asarray, state())
            checkpoints.save(step, given, {}, None)
            GIVEN_AWAY(given)
        assert checkpoints.steps == [1, 2]
        jax.tree.map(np.testing.assert_array_equal, checkpoints.load(2, original).state, expected)


def test_keys_are_copied_too():
    key = jax.random.key(3)
    np.testing.assert_array_equal(jax.random.key_data(copied(key)), jax.random.key_data(key))

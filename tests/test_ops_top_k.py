"""The largest values: those of NumPy's stable sort, with any batch axes, and where the rows are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from jaxvision.ops.top_k import top_k

HERE = Path(__file__).parent


def sorted_rows(values, count):
    index = np.argsort(-values, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(values, index, -1), index


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([(7,), (3, 7), (2, 3, 7)]), st.integers(0, 7))
def test_it_is_a_stable_sort(seed, shape, count):
    values = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)
    best, index = sorted_rows(values, count)
    for found in (top_k(jnp.asarray(values), count), jax.jit(top_k, static_argnums=1)(values, count)):
        assert_array_equal(found[0], best)
        assert_array_equal(found[1], index)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16])
def test_vmap_over_any_axis_is_more_rows(dtype):
    values = np.random.default_rng(0).integers(-9, 9, (5, 4, 3)).astype(dtype)
    twice = jax.vmap(jax.vmap(lambda row: top_k(row, 2)), in_axes=1)
    best, index = sorted_rows(values.swapaxes(0, 1).astype(np.float32), 2)
    found = twice(jnp.asarray(values))
    assert found[0].dtype == dtype
    assert_array_equal(np.float32(found[0]), best)
    assert_array_equal(found[1], index)


def test_it_has_no_gradient_and_may_stand_in_a_loss():
    def loss(row):
        best, index = top_k(row, 2)
        return row[index].sum() + best.sum()

    rows = jnp.asarray([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]])
    gradient = jax.grad(lambda rows: jax.vmap(jax.checkpoint(loss))(rows).sum())(rows)
    assert_array_equal(gradient, [[0, 1, 1], [1, 0, 1]])


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="k argument to top_k must be no larger"):
        top_k(jnp.ones(3), 4)


def on_four_devices(cache):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    command = [sys.executable, HERE / "top_k_on_four_devices.py"]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def programs(cache):
    return {path.name for path in cache.rglob("*-cache")}


def test_a_split_batch_stays_split_and_its_program_is_kept(tmp_path):
    facts, kept = on_four_devices(tmp_path), programs(tmp_path)
    assert facts["batch"] == {"exchanged": [], "equal": True, "split": True}
    assert facts["row"]["equal"], "a row that is split is gathered"
    assert facts["row"]["exchanged"] != []
    assert facts["lax"]["exchanged"] != [], "XLA splits the batch by itself now: `ops.top_k` is no longer needed"
    assert on_four_devices(tmp_path) == facts
    assert programs(tmp_path) == kept != set(), "compiled again in another process"

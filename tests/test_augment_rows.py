import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.augment import augmix, policy, randaugment, trivialaugment
from jaxvision.augment.rows import each_row, stored
from jaxvision.types import Batch


def make_batch(dtype=jnp.uint8, sizes=((9, 11), (12, 8), (12, 14), (0, 0))):
    image = np.random.default_rng(0).integers(0, 256, (len(sizes), 12, 14, 3))
    size, index = jnp.asarray(sizes, jnp.int32), jnp.arange(len(sizes), dtype=jnp.int32)
    return Batch(jnp.asarray(image, dtype), size, size, index, index >= 0)


def test_row_after_row_equals_all_at_once():
    def change(branch, values):
        return jax.lax.switch(branch, [lambda x: x + 1, lambda x: x[::-1], lambda x: x * x.sum()], values)

    branches = jnp.int32([2, 0, 1, 1, 2])
    values = jnp.asarray(np.random.default_rng(0).random((5, 4)), jnp.float32)
    expected = [[v + 1, v[::-1], v * v.sum()][b] for b, v in zip(branches, np.asarray(values), strict=True)]
    for every in (each_row, jax.jit(each_row, static_argnums=0)):
        np.testing.assert_allclose(every(change, branches, values), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_what_is_stored_is_the_same(dtype):
    batch = make_batch(dtype)
    result = jax.jit(stored)(batch)
    assert result.image.dtype == dtype
    jax.tree.map(np.testing.assert_array_equal, result, batch)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [randaugment(2, 15), trivialaugment(), augmix()])
def test_a_policy_is_the_same_on_accelerators(augment, monkeypatch):
    """There all rows are computed at once."""
    batch, key = make_batch(sizes=[(12, 14), (9, 11)] * 16), jax.random.key(0)
    one_by_one = jax.jit(augment)(key, jnp.int32(0), batch).image
    monkeypatch.setattr(policy, "each_row", lambda change, *arrays: jax.vmap(change)(*arrays))
    at_once = jax.jit(lambda *given: augment(*given))(key, jnp.int32(0), batch).image
    off = np.abs(np.asarray(one_by_one).astype(int) - np.asarray(at_once))
    assert np.mean(off > 1) < 2e-3  # a level on the border between two steps of an operation may go either way

"""Settled values are what they were, under every transformation; XLA keeps them, so that a chain is not computed anew."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxvision.nn.settled import settled

X = jnp.asarray(np.random.RandomState(0).standard_normal((3, 4)), jnp.float32)


def wave(x):
    return (settled(jnp.sin(x)) ** 2).sum()


def test_nothing_changes_under_any_transformation():
    assert_allclose(jax.jit(wave)(X), (np.sin(X) ** 2).sum(), rtol=1e-6)
    gradient = np.sin(2 * X)
    for found in (jax.grad(wave)(X), jax.vmap(jax.grad(wave))(X), jax.grad(jax.checkpoint(wave))(X)):
        assert_allclose(found, gradient, atol=1e-6)
    assert_allclose(jax.jvp(jax.grad(wave), (X,), (X,))[1], 2 * np.cos(2 * X) * X, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_not_finite_stays_so(dtype):
    x = jnp.asarray([jnp.inf, -jnp.inf, jnp.nan, -0.0, 1.5], dtype)
    found = jax.jit(settled)(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(x, np.float32))
    assert np.signbit(np.asarray(found, np.float32))[3]


def normalized(x):
    deviation = x - x.mean(-1, keepdims=True)
    return deviation * jax.lax.rsqrt(jnp.square(deviation).mean(-1, keepdims=True) + 1e-6)


def arithmetic(join, blocks: int) -> int:
    """Instructions of the compiled gradient of a residual network."""

    def network(x, weights):
        for weight in weights:
            x = join(x + normalized(x) @ weight)
        return x.sum()

    gradient = jax.jit(jax.grad(network, argnums=1))
    compiled = gradient.lower(jnp.ones((64, 64)), list(jnp.ones((blocks, 64, 64)))).compile()
    return len(re.findall(r" (?:add|multiply|subtract)\(", compiled.as_text()))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices fuse as they like")
def test_twice_the_blocks_are_twice_the_arithmetic():
    assert arithmetic(settled, 16) < 2.5 * arithmetic(settled, 8)
    assert arithmetic(lambda x: x, 16) > 1.2 * arithmetic(settled, 16)  # else XLA has mended it, and `settled` can go

"""Stress of the types, 7: accumulation over micro-batches as a value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import train
from jaxvision.gradient import accumulate, mean_gradient
from jaxvision.tasks.classification import classification
from jaxvision.types import LossOutput


def test_micro_batches_equal_one_batch(float64, tiny_net, colour_batch, train_steps):
    task = classification(tiny_net(norm=False, dtype=jnp.float64), dtype=jnp.float64)
    batch = colour_batch(12)
    state, losses = train_steps(task, batch, steps=5, average=train.exponential_average(0.9))
    for k in (1, 4):
        split, split_losses = train_steps(
            task, batch, steps=5, average=train.exponential_average(0.9), gradient=accumulate(k)
        )
        np.testing.assert_allclose(split_losses, losses, rtol=1e-9)
        for a, b in zip(jax.tree.leaves(split.averaged), jax.tree.leaves(state.averaged), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_scanned_equals_unrolled_and_examples_keep_their_order(monkeypatch, tiny_net, colour_batch, train_steps):
    task, batch = classification(tiny_net()), jax.tree.map(jnp.asarray, colour_batch())
    state, _ = train_steps(task, batch, steps=2)
    found = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found.append(jax.jit(accumulate(3)(task.loss))(state.variables, batch, jax.random.key(0)))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    plain = classification(tiny_net(norm=False))
    state, _ = train_steps(plain, batch, steps=1)
    whole, parts = (
        jax.jit(gradient(plain.loss))(state.variables, batch, jax.random.key(0))[0][1].example_loss
        for gradient in (mean_gradient, accumulate(3))
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_every_micro_batch_has_random_numbers_of_its_own(colour_batch):
    def loss(variables, batch, key):
        drawn = variables["params"] * jax.random.uniform(key, batch.valid.shape)
        return drawn.mean(), LossOutput({}, {}, drawn)

    batch = jax.tree.map(jnp.asarray, colour_batch(12))
    (_, out), _ = jax.jit(accumulate(2)(loss))({"params": jnp.float32(1)}, batch, jax.random.key(0))
    assert len(np.unique(np.asarray(out.example_loss))) == 12


def test_a_batch_that_does_not_divide_is_refused(tiny_net, colour_batch, train_steps):
    with pytest.raises(ValueError, match="a batch of 12 examples can't be split into 5"):
        train_steps(classification(tiny_net()), colour_batch(), steps=1, gradient=accumulate(5))
    with pytest.raises(ValueError, match="k is 0"):
        accumulate(0)

"""Stress of the types, 6: differentially private SGD (arXiv:1607.00133) as a value."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.gradient import mean_gradient, per_example
from jaxvision.tasks.classification import classification


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def test_per_example_clips_each_example_as_a_loop_does(tiny_net, colour_batch, train_steps):
    task, batch = classification(tiny_net(norm=False)), jax.tree.map(jnp.asarray, colour_batch(6))
    state, _ = train_steps(task, batch, steps=1)
    key, expected, norms, clip = jax.random.key(3), 0.0, [], 3.0
    gradient_of = jax.jit(mean_gradient(task.loss))
    for i in range(6):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], batch)
        gradient = flat(gradient_of(state.variables, one, key)[1])
        norms.append(np.linalg.norm(gradient))
        expected = expected + gradient * min(1, clip / norms[-1])
    assert min(norms) < clip < max(norms)
    (loss, out), found = jax.jit(per_example(clip)(task.loss))(state.variables, batch, key)
    np.testing.assert_allclose(flat(found), expected / 6, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(loss, np.asarray(out.example_loss).mean(), rtol=1e-6)


def test_noise_has_the_promised_size(tiny_net, colour_batch, train_steps):
    task, batch = classification(tiny_net(norm=False, width=64)), jax.tree.map(jnp.asarray, colour_batch(6))
    state, _ = train_steps(task, batch, steps=1)
    quiet, noisy = (
        flat(jax.jit(per_example(0.5, noise=noise)(task.loss))(state.variables, batch, jax.random.key(3))[1])
        for noise in (0.0, 2.0)
    )
    np.testing.assert_allclose((noisy - quiet).std(), 2.0 * 0.5 / 6, rtol=0.1)


def test_it_trains_through_the_one_step(tiny_net, colour_batch, train_steps):
    options = {"gradient": per_example(1.0, 0.1), "optimizer": optax.sgd(0.5)}
    _, losses = train_steps(classification(tiny_net(norm=False)), colour_batch(), steps=60, **options)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("clip", "noise"), [(0, 0), (-1, 0), (1, -1)])
def test_bad_arguments_are_named(clip, noise):
    with pytest.raises(ValueError, match=f"clip is {clip} and noise is {noise}"):
        per_example(clip, noise)

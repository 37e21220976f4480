"""Stress of the types, 1: a classifier."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.tasks.classification import classification


def test_a_classifier_learns(tiny_net, colour_batch, train_steps):
    task, batch = classification(tiny_net()), colour_batch()
    state, losses = train_steps(task, batch, steps=60)
    assert losses[-1] < 0.2 * losses[0]
    scores = jax.jit(task.predict)(state.averaged, jax.tree.map(jnp.asarray, batch.replace(target=None)))
    np.testing.assert_array_equal(scores.logits.argmax(-1), batch.target.label)


def test_canvas_padding_and_invalid_examples_change_nothing(tiny_net, colour_batch, train_steps, strict_gradient):
    task, batch = classification(tiny_net(norm=False)), colour_batch()
    size = batch.size.copy()
    size[:] = (10, 12)
    batch = batch.replace(size=size)
    state, _ = train_steps(task, batch, steps=1)
    loss, grads = strict_gradient(task, state.variables, batch)

    noise = batch.image.copy()
    noise[:, 10:] = 255 - noise[:, 10:]
    noise[:, :, 12:] = 255 - noise[:, :, 12:]
    noisy_loss, noisy_grads = strict_gradient(task, state.variables, batch.replace(image=noise))
    assert noisy_loss == loss
    jax.tree.map(np.testing.assert_array_equal, noisy_grads, grads)

    three = jax.tree.map(lambda x: x[:3], batch)
    padded = jax.tree.map(lambda x: x[:4], batch).replace(valid=np.array([True, True, True, False]))
    loss_3, grads_3 = strict_gradient(task, state.variables, three)
    loss_4, grads_4 = strict_gradient(task, state.variables, padded)
    np.testing.assert_allclose(loss_4, loss_3, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), grads_4, grads_3)


def test_the_loss_of_one_example_is_optax_cross_entropy(tiny_net, colour_batch, train_steps):
    task, batch = classification(tiny_net(norm=False), label_smoothing=0.1), colour_batch(1)
    state, _ = train_steps(task, batch, steps=1)
    logits = np.asarray(task.predict(state.averaged, jax.tree.map(jnp.asarray, batch)).logits, np.float64)[0]
    target = np.array([1 - 0.1 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    expected = -(target * (logits - np.log(np.exp(logits).sum()))).sum()
    loss, out = task.loss(state.variables, jax.tree.map(jnp.asarray, batch), jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(out.example_loss, [expected], rtol=1e-5)

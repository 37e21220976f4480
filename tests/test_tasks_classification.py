import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import train
from jaxvision.tasks.classification import classification


@pytest.mark.parametrize("label", [-1, 3, 7])
def test_a_label_that_the_network_does_not_have_is_never_learned_in_silence(
    tiny_net, colour_batch, train_steps, strict_gradient, label
):
    task, batch = classification(tiny_net(norm=False)), colour_batch(6)
    state, _ = train_steps(task, batch, steps=1)
    labels = batch.target.label.copy()
    labels[4] = label
    wrong = batch.replace(target=batch.target.replace(label=labels))
    assert np.isnan(strict_gradient(task, state.variables, wrong)[0])
    assert train.example_finite(task)(state, wrong) == [True] * 4 + [False, True]

    weight = np.float32([1, 1, 1, 1, 0, 1])
    unlabelled = wrong.replace(target=wrong.target.replace(weight=weight))
    four = batch.replace(valid=np.array([True] * 4 + [False, True]))
    loss, grads = strict_gradient(task, state.variables, unlabelled)
    expected_loss, expected = strict_gradient(task, state.variables, four)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, expected)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))

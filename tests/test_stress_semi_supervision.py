"""Stress of the types, 3: semi-supervision as in FixMatch (arXiv:2001.07685), with an EMA teacher and two views.

`given` holds the strongly augmented view; a label of weight 0 is no label.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import train
from jaxvision.tasks.classification import classification, loss_terms, weighted_mean
from jaxvision.tasks.forward import forward_training
from jaxvision.types import LossOutput, Task


def semi_supervised(network, threshold=0.6) -> Task:
    plain = classification(network)

    def loss(variables, batch, key):
        view = as_floats(batch.given)
        logits, collections = forward_training(network, variables, view, valid=batch.valid, key=key)
        supervised = weighted_mean(loss_terms(logits, batch.target), batch.target.weight)
        taught = plain.predict({**variables, **variables["ema"]}, batch).logits
        probs = jax.lax.stop_gradient(jax.nn.softmax(taught))
        sure = jnp.logical_and(probs.max(-1) > threshold, batch.target.weight == 0)
        terms = optax.softmax_cross_entropy_with_integer_labels(logits, probs.argmax(-1))
        return supervised + weighted_mean(terms, sure.astype(terms.dtype)), LossOutput(
            {"sure": sure.mean(dtype=terms.dtype)}, collections, terms
        )

    return Task(plain.init, loss, plain.predict)


def as_floats(image):
    return (image.astype(jnp.float32) - 120) / 60


@pytest.mark.slow
def test_the_teacher_labels_what_has_no_label(tiny_net, colour_batch, train_steps, strict_gradient):
    batch = colour_batch(24)
    weight = (np.arange(24) < 6).astype(np.float32)
    wrong = np.where(weight > 0, batch.target.label, 0).astype(np.int32)
    batch = batch.replace(target=batch.target.replace(label=wrong, weight=weight), given=batch.image[:, :, ::-1])
    task = semi_supervised(tiny_net(norm=False))
    state, _ = train_steps(task, batch, steps=80, average=train.exponential_average(0.8))
    scores = jax.jit(task.predict)(state.averaged, jax.tree.map(jnp.asarray, batch))
    np.testing.assert_array_equal(scores.logits.argmax(-1), np.arange(24) % 3)
    assert np.isfinite(strict_gradient(task, state.variables, batch)[0])

    unlabelled = jax.tree.map(lambda x: x[6:], batch)
    _, grads = strict_gradient(task, state.variables, unlabelled)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 0

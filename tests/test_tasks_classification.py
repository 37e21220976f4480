import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxvision import train
from jaxvision.ops import losses
from jaxvision.tasks.classification import classification, taught


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


def variables_and_logits(tiny_net, batch):
    task = classification(tiny_net(norm=False))
    variables = task.init(jax.random.key(0), jax.tree.map(jnp.asarray, batch))
    return variables, np.asarray(task.predict(variables, jax.tree.map(jnp.asarray, batch)).logits, np.float64)


def test_a_loss_of_its_own_takes_the_place_of_the_cross_entropy(tiny_net, colour_batch, strict_gradient):
    batch = colour_batch(6)
    variables, logits = variables_and_logits(tiny_net, batch)
    weights = losses.inverse_frequency([4, 1, 1])
    task = classification(tiny_net(norm=False), loss=losses.class_weighted(losses.focal(2.0), weights))
    loss, grads = strict_gradient(task, variables, batch)
    log_probs = log_softmax(logits, -1)[np.arange(6), batch.target.label]
    expected = np.mean(-((1 - np.exp(log_probs)) ** 2) * log_probs * weights[batch.target.label])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))

    wrong = batch.replace(target=batch.target.replace(label=batch.target.label + np.int32([0, 0, 0, 0, 0, 9])))
    assert np.isnan(strict_gradient(task, variables, wrong)[0])


def test_a_loss_of_its_own_is_not_smoothed(tiny_net):
    with pytest.raises(ValueError, match=r"label_smoothing=0.1 smooths the default cross-entropy"):
        classification(tiny_net(), loss=losses.hinge, label_smoothing=0.1)


def test_a_student_follows_its_teacher_without_labels(tiny_net, colour_batch, train_steps):
    batch = colour_batch()
    teacher = classification(tiny_net(width=16))
    learned, _ = train_steps(teacher, batch, steps=40)
    fixed = {name: value for name, value in learned.variables.items() if name != "ema"}
    student = classification(tiny_net(width=4, norm=False), loss=losses.distillation(2.0, share=1.0))
    unknown = batch.replace(target=batch.target.replace(label=np.zeros(12, np.int32)))
    task = taught(student, teacher, fixed)
    state, values = train_steps(task, unknown, steps=80)
    assert values[-1] < 0.3 * values[0]
    jax.tree.map(np.testing.assert_array_equal, state.collections["teacher"], fixed)
    scores = task.predict(state.variables, jax.tree.map(jnp.asarray, batch)).logits
    np.testing.assert_array_equal(scores.argmax(-1), batch.target.label)

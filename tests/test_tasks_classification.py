import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax

from jaxvision import train
from jaxvision.ops import losses
from jaxvision.tasks.classification import classification, example_weight, taught, weighted_mean


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_the_network_does_not_have_is_never_learned_in_silence(
    tiny_net, colour_batch, train_steps, strict_gradient, label
):
    task, batch = classification(tiny_net(norm=False)), colour_batch(6)
    state, _ = train_steps(task, batch, steps=0)
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
    task, batch = classification(tiny_net(norm=False)), jax.tree.map(jnp.asarray, batch)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    return variables, np.asarray(jax.jit(task.predict)(variables, batch).logits, np.float64)


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


class ThreeHeads(nn.Module):
    """Logits that are pooled pixels times a matrix; training adds those of two auxiliary heads."""

    @nn.compact
    def __call__(self, x, *, train):
        x = x.mean((1, 2))
        own, *others = (nn.Dense(3, name=name)(x) for name in ("own", "first", "second"))
        return (own, *others) if train else own


def head_losses(params, pixels, labels):
    """The cross-entropy of every example and head, by NumPy."""
    means = ((pixels / 255 - [0.5, 0.4, 0.3]) / 0.2).mean((1, 2))
    heads = {name: jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), head) for name, head in params.items()}
    logits = {name: means @ head["kernel"] + head["bias"] for name, head in heads.items()}
    return {name: -log_softmax(each, -1)[np.arange(len(labels)), labels] for name, each in logits.items()}


def test_the_mean_is_over_the_examples_with_a_weight_and_those_that_are_not_valid_have_none(colour_batch):
    values, weight = jnp.float32([3, 5, 7, 90]), jnp.float32([2, 0.5, 0, 4])
    batch = colour_batch(4).replace(valid=jnp.array([True, True, True, False]))
    batch = batch.replace(target=batch.target.replace(weight=weight))
    np.testing.assert_array_equal(example_weight(batch), [2, 0.5, 0, 0])
    assert float(weighted_mean(values, example_weight(batch))) == (2 * 3 + 0.5 * 5) / 2
    assert float(weighted_mean(values[:1], weight[:1])) == 2 * 3  # a weight of 2 counts double in a batch of one, too
    assert float(weighted_mean(values, jnp.zeros(4))) == 0


def test_auxiliary_heads_add_their_weighted_loss(colour_batch, strict_gradient):
    scale = {"mean": [127.5, 102.0, 76.5], "std": [51.0, 51.0, 51.0]}
    task, batch = classification(ThreeHeads(), auxiliary=0.3, **scale), colour_batch(5)
    batch = batch.replace(valid=np.array([True] * 4 + [False]))
    arrays = jax.tree.map(jnp.asarray, batch)
    variables = jax.jit(task.init)(jax.random.key(0), arrays)
    terms = head_losses(variables["params"], batch.image.astype(np.float64), batch.target.label)
    expected = terms["own"] + 0.3 * (terms["first"] + terms["second"])
    loss, grads = strict_gradient(task, variables, batch)
    np.testing.assert_allclose(loss, expected[:4].mean(), rtol=1e-5)
    assert all(np.abs(head["kernel"]).max() > 0 for head in grads.values())
    output = jax.jit(task.loss)(variables, arrays, jax.random.key(1))[1]
    np.testing.assert_allclose(output.example_loss, [*expected[:4], 0], rtol=1e-5)
    best = jax.jit(task.predict)(variables, arrays).logits.argmax(-1)
    np.testing.assert_allclose(output.metrics["accuracy"], np.mean(best[:4] == batch.target.label[:4]))

    one = jax.tree.map(lambda leaf: leaf[1:2], batch)
    np.testing.assert_allclose(strict_gradient(task, variables, one)[0], expected[1], rtol=1e-5)
    wide = [
        batch.replace(image=np.pad(batch.image, ((0, 0), (0, 3), (0, 5), (0, 0)), constant_values=value))
        for value in (9, 200)
    ]
    first, second = (strict_gradient(task, variables, each) for each in wide)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_auxiliary_heads_and_their_weight_need_each_other(tiny_net, colour_batch, strict_gradient):
    for network, auxiliary, message in (
        (ThreeHeads(), None, r"the network has 2 auxiliary heads: classification needs their weight, auxiliary="),
        (tiny_net(norm=False), 0.4, r"auxiliary=0.4 weighs auxiliary heads; the network has none"),
    ):
        task, batch = classification(network, auxiliary=auxiliary), jax.tree.map(jnp.asarray, colour_batch(2))
        variables = jax.eval_shape(lambda: task.init(jax.random.key(0), batch))  # noqa: B023
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(task.loss, variables, batch, jax.random.key(0))


def test_a_loss_of_its_own_is_not_smoothed(tiny_net):
    with pytest.raises(ValueError, match=r"label_smoothing=0.1 smooths the default cross-entropy"):
        classification(tiny_net(), loss=losses.hinge, label_smoothing=0.1)


def test_a_student_learns_the_probabilities_of_its_teacher(tiny_net, colour_batch, strict_gradient):
    batch = colour_batch(6)
    variables, logits = variables_and_logits(tiny_net, batch)
    fixed = jax.tree.map(lambda leaf: -2 * leaf, variables)
    teacher = classification(tiny_net(norm=False))
    student = classification(tiny_net(norm=False), loss=losses.distillation(2.0, alpha=1.0))
    task = taught(student, teacher, fixed)
    loss, grads = strict_gradient(task, {**variables, "teacher": fixed}, batch)
    scores = jax.jit(teacher.predict)(fixed, jax.tree.map(jnp.asarray, batch)).logits
    told = log_softmax(np.asarray(scores, np.float64) / 2, -1)
    np.testing.assert_allclose(
        loss, 4 * (np.exp(told) * (told - log_softmax(logits / 2, -1))).sum(-1).mean(), rtol=1e-4
    )
    assert jax.tree.structure(grads) == jax.tree.structure(variables["params"])


@pytest.mark.slow
def test_a_student_follows_its_teacher_without_labels(tiny_net, colour_batch, train_steps):
    batch = colour_batch()
    teacher = classification(tiny_net(width=16))
    learned, _ = train_steps(teacher, batch, steps=40)
    fixed = {name: value for name, value in learned.variables.items() if name != "ema"}
    student = classification(tiny_net(width=4, norm=False), loss=losses.distillation(2.0, alpha=1.0))
    unknown = batch.replace(target=batch.target.replace(label=np.zeros(12, np.int32)))
    task = taught(student, teacher, fixed)
    state, values = train_steps(task, unknown, steps=80)
    assert values[-1] < 0.3 * values[0]
    jax.tree.map(np.testing.assert_array_equal, state.collections["teacher"], fixed)
    scores = task.predict(state.variables, jax.tree.map(jnp.asarray, batch)).logits
    np.testing.assert_array_equal(scores.argmax(-1), batch.target.label)

"""Remedies for groups: group DRO against a NumPy loop of the paper's update, and sampling weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.data import order, shortcut
from jaxvision.errors import DataError
from jaxvision.tasks.classification import classification
from jaxvision.trust.group_dro import WEIGHTS, group_dro, sampling_weights
from jaxvision.types import LossOutput, Task

NUMBERS = np.array([0, 1, 1, 0, 2, 2, 0, 1, 0, 0, 1, 0])


def fixed(losses):
    """A task whose example losses are these, times a parameter of 1."""
    init = lambda key, batch: {"params": {"scale": jnp.ones(())}}
    loss = lambda variables, batch, key: (
        jnp.zeros(()),
        LossOutput(example_loss=jnp.asarray(losses, jnp.float32) * variables["params"]["scale"]),
    )
    return Task(init, loss, lambda variables, batch: variables)


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_loss_gradient_and_weights_equal_a_loop(colour_batch, adjustment):
    losses, key = np.random.default_rng(0).gamma(2, 1, 12), jax.random.key(0)
    batch = colour_batch().replace(valid=jnp.arange(12) != 3)
    batch = batch.replace(index=jnp.where(batch.valid, jnp.arange(12), -1))
    task = group_dro(fixed(losses), lambda: NUMBERS, 3, rate=0.3, adjustment=adjustment)
    variables = task.init(key, batch)
    weights = np.full(3, 1 / 3)
    for _ in range(4):
        mean = np.zeros(3)
        for group in range(3):
            members = [i for i in range(12) if NUMBERS[i] == group and i != 3]
            mean[group] = sum(losses[i] for i in members) / len(members)
            weights[group] *= np.exp(0.3 * (mean[group] + adjustment / np.sqrt((group == NUMBERS).sum())))
        weights /= weights.sum()
        (value, out), gradient = jax.value_and_grad(
            lambda params, variables=variables: task.loss({**variables, "params": params}, batch, key), has_aux=True
        )(variables["params"])
        np.testing.assert_allclose(out.collections[WEIGHTS], weights, rtol=1e-5)
        np.testing.assert_allclose([value, gradient["scale"]], (weights * mean).sum(), rtol=1e-5)
        variables = {**variables, **out.collections}
    assert WEIGHTS not in task.predict(variables, batch)


def test_a_group_that_is_not_in_the_batch_loses_weight_and_gives_no_nan(colour_batch):
    batch, key = colour_batch(), jax.random.key(0)
    numbers = np.append(np.zeros(12, int), 1)
    task = group_dro(fixed(np.ones(12)), lambda: numbers, 2, rate=1.0)
    value, out = task.loss(task.init(key, batch), batch, key)
    np.testing.assert_allclose(out.collections[WEIGHTS], np.exp([1, 0]) / np.exp([1, 0]).sum(), rtol=1e-6)
    assert np.isfinite(value)


def test_a_network_learns_with_it(colour_batch, tiny_net, train_steps, strict_gradient):
    batch = colour_batch()
    task = group_dro(classification(tiny_net()), lambda: NUMBERS, 3, rate=0.1)
    state, losses = train_steps(task, batch, steps=20)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(state.collections[WEIGHTS].sum(), 1, rtol=1e-5)
    strict_gradient(task, state.variables, batch)
    assert task.predict(state.variables, batch).logits.shape == (12, 3)


def test_weights_draw_all_groups_equally_often():
    numbers = shortcut.mark_groups(400, seed=0, betrayed=0.95)
    assert 0 < (numbers == 0).sum() < 40
    source = shortcut.marked_shapes(400, seed=0, betrayed=0.95)
    for power, fraction in ((1.0, 0.5), (0.0, (numbers == 0).mean())):
        indices = order.weighted(sampling_weights(numbers, 2, power), 3)(source)(np.arange(400))
        assert (numbers[indices] == 0).mean() == pytest.approx(fraction, abs=0.01)


def test_the_mark_is_that_of_the_class_where_its_group_says_so():
    source, numbers = shortcut.marked_shapes(40, seed=2, betrayed=0.5), shortcut.mark_groups(40, seed=2, betrayed=0.5)
    for index, example in enumerate(source.read(np.arange(40))):
        mark = shortcut.MARKS.index(tuple(example.image[0, 0].tolist()))
        assert (mark == example.label) == numbers[index]
        assert example.label == source.labels()[index]
        assert (example.image[:8, :8] == example.image[0, 0]).all()
    assert set(numbers) == {0, 1}
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        shortcut.marked_shapes(4, seed=0, betrayed=1.5)
    (large,) = shortcut.marked_shapes(1, seed=2, betrayed=1.0, mark=16).read(np.arange(1))
    assert (large.image[:16, :16] == large.image[0, 0]).all()
    assert not (large.image[:17, :17] == large.image[0, 0]).all()
    with pytest.raises(ValueError, match="allowed is 1 to 64, the side of the image"):
        shortcut.marked_shapes(4, seed=0, betrayed=1.0, mark=65)


def test_what_has_no_meaning_is_refused(colour_batch):
    batch, key = colour_batch(), jax.random.key(0)
    for options in ({"groups": 0}, {"groups": 2, "rate": 0.0}, {"groups": 2, "adjustment": -1.0}):
        with pytest.raises(ValueError, match="allowed are 1 or more"):
            group_dro(fixed(np.ones(12)), lambda: NUMBERS, **options)
    for groups, message in (
        (4, "group 3 of 4 has no example to train on"),
        (2, "2 examples of 12 to train on are in none of 2 groups"),
    ):
        task = group_dro(fixed(np.ones(12)), lambda: NUMBERS, groups)
        with pytest.raises(DataError, match=message):
            task.loss(task.init(key, batch), batch, key)
        with pytest.raises(DataError, match=message):
            sampling_weights(NUMBERS, groups)
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        sampling_weights(NUMBERS, 3, power=2.0)
    silent = Task(fixed([]).init, lambda variables, batch, key: (jnp.zeros(()), LossOutput()), lambda v, b: v)
    task = group_dro(silent, lambda: NUMBERS, 3)
    with pytest.raises(ValueError, match="one number an example"):
        task.loss(task.init(key, batch), batch, key)

"""Magnitude pruning against NumPy loops; its laws: exact zeros, averages, resuming, devices, bad values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import optimize, train
from jaxvision.optimize import pruning
from jaxvision.run import checkpoint
from jaxvision.tasks.classification import classification
from jaxvision.train import exponential_average
from jaxvision.trust.lighter.pruned import keeping_zeros


def loop(weights, gradients, rate, sparsity, begin, end, every, initial):
    """Gradient descent with the schedule and the mask of arXiv:1710.01878, one number at a time."""
    weights, mask, history = weights.copy(), np.ones(weights.size, bool), []
    for step, gradient in enumerate(gradients):
        if begin <= step <= end and ((step - begin) % every == 0 or step == end):
            progress = (step - begin) / (end - begin) if end > begin else 1.0
            target = sparsity + (initial - sparsity) * (1 - progress) ** 3
            for _ in range(round(target * weights.size) - int((~mask).sum())):
                mask[np.where(mask, np.abs(weights.ravel()), np.inf).argmin()] = False
        weights = weights - rate * gradient
        weights.ravel()[~mask] = 0
        history.append((weights.copy(), mask.reshape(weights.shape).copy()))
    return history


@pytest.mark.parametrize(
    ("sparsity", "begin", "end", "every", "initial"),
    [(0.8, 2, 14, 3, 0.0), (0.9, 0, 10, 4, 0.25), (0.5, 3, 3, 10, 0.0), (0.0, 0, 5, 1, 0.0), (0.75, 1, 12, 1, 0.5)],
)
def test_weights_and_masks_equal_a_loop(sparsity, begin, end, every, initial, float64):
    rng = np.random.default_rng(0)
    weights, other = rng.normal(size=(3, 4, 5)), rng.normal(size=4)
    weights[0, 0] = 0.25  # ties
    gradients = rng.normal(size=(20, 3, 4, 5))
    expected = loop(weights, gradients, 0.1, sparsity, begin, end, every, initial)
    cut = optimize.pruned(sparsity, "a/kernel", begin=begin, end=end, every=every, initial=initial)
    optimizer = optax.chain(optax.sgd(0.1), cut)
    params = {"a": {"kernel": jnp.asarray(weights)}, "b": {"kernel": jnp.asarray(other)}}
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for gradient, (after, mask) in zip(gradients, expected, strict=True):
        given = {"a": {"kernel": jnp.asarray(gradient)}, "b": {"kernel": jnp.ones(4)}}
        updates, state = step(given, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["a"]["kernel"], after, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(state[-1].kept["a/kernel"], mask)
        assert (np.asarray(params["a"]["kernel"])[~mask] == 0).all()
    np.testing.assert_allclose(params["b"]["kernel"], other - 2, atol=1e-12)
    assert step._cache_size() == 1
    assert int((~mask).sum()) == round(sparsity * 60)


def test_pruning_once_is_the_first_step_of_the_other():
    rng = np.random.default_rng(1)
    params = {"a": {"kernel": jnp.asarray(rng.normal(size=(7, 9)))}, "head": {"kernel": jnp.ones(3)}}
    once = pruning.pruned_once(params, 0.6, "a/.*")
    optimizer = optimize.pruned(0.6, "a/.*", begin=0, end=0)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, once, optax.apply_updates(params, updates))
    size = np.abs(np.asarray(params["a"]["kernel"]))
    np.testing.assert_array_equal(once["a"]["kernel"] == 0, size <= np.sort(size.ravel())[round(0.6 * 63) - 1])
    assert pruning.fraction_of_zeros(once, "a/.*") == pytest.approx(38 / 63)
    assert pruning.fraction_of_zeros(once, ".*kernel") == pytest.approx(38 / 66)


def test_of_all_arrays_together_the_smallest_weights_go_wherever_they_are(float64):
    rng = np.random.default_rng(2)
    small, large = 0.3 * rng.normal(size=(5, 8)), rng.normal(size=(4, 5))
    gradients = rng.normal(size=(12, 60))
    every = np.concatenate([small.ravel(), large.ravel()])
    expected = loop(every, gradients, 0.1, 0.7, 2, 9, 3, 0.1)
    cut = optimize.pruned(0.7, ".*kernel", begin=2, end=9, every=3, initial=0.1, globally=True)
    optimizer = optax.chain(optax.sgd(0.1), cut)
    params = {"a": {"kernel": jnp.asarray(small)}, "b": {"kernel": jnp.asarray(large), "bias": jnp.zeros(3)}}
    state = optimizer.init(params)
    for gradient, (after, _) in zip(gradients, expected, strict=True):
        first, second = gradient[:40].reshape(5, 8), gradient[40:].reshape(4, 5)
        given = {"a": {"kernel": jnp.asarray(first)}, "b": {"kernel": jnp.asarray(second), "bias": jnp.ones(3)}}
        updates, state = optimizer.update(given, state, params)
        params = optax.apply_updates(params, updates)
        found = np.concatenate([params[name]["kernel"].ravel() for name in ("a", "b")])
        np.testing.assert_allclose(found, after, rtol=0, atol=1e-14)
    zeros = [int((params[name]["kernel"] == 0).sum()) for name in ("a", "b")]
    assert sum(zeros) == round(0.7 * 60)
    assert zeros[0] / 40 > 0.7 > zeros[1] / 20


def test_pruning_once_takes_the_smallest_of_all_arrays_together():
    params = {"a": jnp.array([1.0, -2.0, 3.0, 4.0]), "b": jnp.array([5.0, 0.5, -6.0, 7.0, 8.0, 9.0]), "c": jnp.ones(2)}
    once = pruning.pruned_once(params, 0.5, "a|b", globally=True)
    np.testing.assert_array_equal(once["a"], np.zeros(4))
    np.testing.assert_array_equal(once["b"], [5, 0, -6, 7, 8, 9])
    np.testing.assert_array_equal(once["c"], np.ones(2))


@pytest.fixture
def task(tiny_net):
    return classification(tiny_net(), mean=100.0, std=50.0)


def optimizer():
    return optax.chain(optax.adamw(1e-2), optimize.pruned(0.8, ".*kernel", begin=4, end=12, every=2))


def test_zeros_stay_in_weights_and_averages_while_the_others_learn(task, colour_batch, train_steps):
    average = keeping_zeros(exponential_average(0.9), optimize.matching(".*kernel"))
    batch = jax.tree.map(jnp.asarray, colour_batch())
    state, losses = train_steps(task, batch, steps=40, optimizer=optimizer(), average=average)
    assert losses[-1] < losses[0] / 2
    for params in (state.params, state.averaged["params"]):
        assert pruning.fraction_of_zeros(params, ".*kernel") == pytest.approx(0.8, abs=0.01)
    jax.tree.map(lambda x, mean: np.testing.assert_array_equal(x == 0, mean == 0), state.params, state.ema["params"])
    plain, _ = train_steps(task, batch, steps=40, optimizer=optimizer(), average=exponential_average(0.9))
    assert pruning.fraction_of_zeros(plain.averaged["params"], ".*kernel") == 0  # why they are kept
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.tree.map(lambda x, y: jnp.where(x == 0, 0, y), state.params, plain.averaged["params"]),
        state.averaged["params"],
    )


def test_resuming_goes_on_with_the_mask_of_the_checkpoint(task, colour_batch, tmp_path):
    batch = jax.tree.map(jnp.asarray, colour_batch())
    average = keeping_zeros(exponential_average(0.9), optimize.matching(".*kernel"))
    spec = jax.eval_shape(lambda: batch)
    fresh = train.init_state(task, optimizer(), jax.random.key(0), spec, average=average)
    step = jax.jit(train.make_train_step(task, optimizer(), average=average))
    state = fresh
    for n in range(16):
        state, _ = step(state, batch)
        if n == 8:
            with checkpoint.Checkpoints(tmp_path / "checkpoints") as checkpoints:
                checkpoints.save(n, state, {}, None)
                again = checkpoints.newest(fresh).state
    masks = jax.tree.leaves(again.opt_state[-1].kept)
    assert 0 < sum(int((~mask).sum()) for mask in masks) < 0.8 * sum(mask.size for mask in masks)
    for _ in range(7):
        again, _ = step(again, batch)
    jax.tree.map(np.testing.assert_array_equal, state.replace(key=0), again.replace(key=0))


def test_inside_a_group_and_of_sixteen_bits(tiny_net):
    params = {"a": {"kernel": jnp.linspace(-1, 1, 30, dtype=jnp.bfloat16)}, "b": {"kernel": jnp.ones(4)}}
    group = optax.chain(optax.sgd(0.1), optimize.pruned(0.5, "a/kernel", begin=0, end=0))
    whole = optimize.by_group({"a/.*": group, ".*": optax.sgd(0.1)})
    updates, _ = whole.update(jax.tree.map(jnp.ones_like, params), whole.init(params), params)
    after = optax.apply_updates(params, updates)
    assert int((after["a"]["kernel"] == 0).sum()) == 15
    assert after["a"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimize.pruned(1.0, "a", begin=0, end=1), r"sparsity is 1.0; it must be at least 0 and less than 1"),
        (lambda: optimize.pruned(-0.1, "a", begin=0, end=1), r"sparsity is -0.1"),
        (lambda: optimize.pruned(float("nan"), "a", begin=0, end=1), r"sparsity is nan"),
        (
            lambda: optimize.pruned(0.5, "a", begin=0, end=1, initial=0.6),
            r"initial is 0.6; .* at most the sparsity, 0.5",
        ),
        (lambda: optimize.pruned(0.5, "a", begin=5, end=1), r"begin is 5, end 1 and every 10"),
        (lambda: optimize.pruned(0.5, "a", begin=0, end=1, every=0), r"every at least 1"),
        (
            lambda: optimize.pruned(0.5, "a/kernal", begin=0, end=1).init({"a": {"kernel": jnp.ones(2)}}),
            r"pruned: 'a/kernal' matches no parameter; the nearest names are a/kernel",
        ),
        (lambda: optimize.pruned(0.5, begin=0, end=1).init({"a": jnp.ones(2)}), r"no pattern is given"),
        (lambda: pruning.pruned_once({"a": jnp.ones(2)}, 1.5, "a"), r"sparsity is 1.5"),
        (lambda: pruning.fraction_of_zeros({"abc": jnp.ones(2)}, "abd"), r"nearest names are abc"),
    ],
)
def test_what_is_not_allowed_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()

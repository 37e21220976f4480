"""Weights of few bits against NumPy loops, straight-through gradients, the laws, bad values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import make_batch, small_ssd

from jaxvision import optimize
from jaxvision.errors import ConfigError
from jaxvision.gradient import mean_gradient
from jaxvision.nn.cnn import SmallCNN
from jaxvision.optimize.pruning import pruned_once
from jaxvision.tasks.classification import classification
from jaxvision.trust.lighter import quantised as lighter
from jaxvision.trust.lighter.quantised import quantised


def loop(kernel, bits):
    """Symmetric rounding, channel by channel and number by number."""
    most, result = 2 ** (bits - 1) - 1, np.zeros_like(kernel)
    for channel in range(kernel.shape[-1]):
        column = kernel[..., channel].ravel()
        scale = max(abs(x) for x in column) / most
        near = [0.0 if scale == 0 else round(x / scale) * scale for x in column]
        result[..., channel] = np.reshape(near, kernel.shape[:-1])
    return result


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounding_equals_a_loop(bits, float64):
    kernel = np.random.default_rng(bits).normal(size=(3, 3, 4, 5))
    kernel[..., 2] = 0
    params = {"conv": {"kernel": jnp.asarray(kernel), "bias": jnp.full(5, 0.123)}}
    found = lighter.rounded(params, bits)
    np.testing.assert_allclose(found["conv"]["kernel"], loop(kernel, bits), atol=1e-15)
    np.testing.assert_array_equal(found["conv"]["bias"], params["conv"]["bias"])
    numbers, scale = lighter.as_integers(params["conv"]["kernel"], bits)
    assert numbers.dtype == jnp.int8
    assert len(np.unique(numbers)) <= 2**bits - 1
    np.testing.assert_allclose(numbers * scale, loop(kernel, bits), atol=1e-15)
    again = lighter.rounded(found, bits)
    np.testing.assert_allclose(again["conv"]["kernel"], found["conv"]["kernel"], atol=1e-15)
    assert lighter.size_in_bytes(params, bits) == -(-180 * bits // 8) + 2 * 5 * 8


@pytest.fixture
def task():
    return classification(SmallCNN(3, (4, 6), dropout=0.0), mean=100.0, std=50.0)


def test_the_loss_is_of_rounded_weights_and_the_gradient_passes_to_those_before(task, colour_batch, strict_gradient):
    batch = jax.tree.map(jnp.asarray, colour_batch())
    variables = task.init(jax.random.key(0), batch)
    near = {
        **variables,
        "params": jax.tree.map(lambda x: jnp.asarray(loop(np.asarray(x), 4)) if x.ndim > 1 else x, variables["params"]),
    }
    found, expected = strict_gradient(quantised(task), variables, batch), strict_gradient(task, near, batch)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found[1], expected[1])
    assert abs(found[0] - strict_gradient(task, variables, batch)[0]) > 1e-4
    some = quantised(task, 4, "head/kernel")
    assert strict_gradient(some, variables, batch)[0] != found[0]


def check_laws(plain, batch):
    """Target, padding and compilations of a quantised task; its loss and gradient don't see padding."""
    light = quantised(plain)
    variables = jax.jit(light.init)(jax.random.key(0), batch)
    predict = jax.jit(light.predict)
    outside = jnp.arange(batch.image.shape[1])[None, :, None, None] >= batch.size[:, :1, None, None]
    spoilt = batch.replace(image=jnp.where(outside, jnp.asarray(77, batch.image.dtype), batch.image), target=None)
    one, two = predict(variables, batch.replace(target=None)), predict(variables, spoilt)
    assert predict._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, one, two)
    jax.tree.map(np.testing.assert_array_equal, one, predict(variables, batch))
    values, leaves = (jax.tree.leaves(found) for found in (one, jax.jit(plain.predict)(variables, batch)))
    assert any(not np.array_equal(a, b) for a, b in zip(values, leaves, strict=True))
    step = jax.jit(mean_gradient(light.loss))
    (loss, _), gradient = step(variables, batch, jax.random.key(0))
    (padded, _), of_padded = step(variables, spoilt.replace(target=batch.target), jax.random.key(0))
    assert loss == padded
    jax.tree.map(np.testing.assert_array_equal, gradient, of_padded)


def test_laws_of_a_quantised_classifier(task, colour_batch):
    batch = jax.tree.map(jnp.asarray, colour_batch())
    check_laws(task, batch.replace(size=batch.size.at[:, 0].set(11)))


@pytest.mark.slow
def test_laws_of_a_quantised_detector():
    check_laws(small_ssd(), make_batch(dtype=np.float32))


@pytest.mark.slow
def test_training_for_few_bits_beats_rounding_afterwards(task, colour_batch, train_steps):
    batch = jax.tree.map(jnp.asarray, colour_batch())
    loss = lambda state: float(quantised(task, 2).loss(state.current, batch, jax.random.key(0))[0])
    plain, _ = train_steps(task, batch, steps=25)
    trained, losses = train_steps(quantised(task, 2), batch, steps=25)
    assert loss(trained) < 0.5 * loss(plain)
    assert losses[-1] < 0.3 * losses[0]
    frozen = optimize.freeze(quantised(task, 2), ["stage1_.*"])
    assert np.isfinite(train_steps(frozen, batch, steps=2)[1]).all()


def test_pruned_weights_stay_zero(task, colour_batch):
    params = pruned_once(
        task.init(jax.random.key(0), jax.tree.map(jnp.asarray, colour_batch()))["params"], 0.7, ".*kernel"
    )
    for x, y in zip(*map(jax.tree.leaves, (params, lighter.rounded(params, 4))), strict=True):
        assert (np.asarray(y)[np.asarray(x) == 0] == 0).all()


def test_what_is_not_allowed_is_told(task):
    for bits in (1, 9, 4.5, "four"):
        with pytest.raises(ConfigError, match=rf"bits is {bits!r}; allowed is a whole number from 2 to 8"):
            quantised(task, bits)
    with pytest.raises(
        ConfigError, match=r"quantised: 'heed/kernel' matches no parameter; the nearest names are head/kernel"
    ):
        lighter.rounded({"head": {"kernel": jnp.ones((2, 2))}}, 4, ("heed/kernel",))

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision.metrics.thresholds import decide
from jaxvision.tasks.classification import classification
from jaxvision.tasks.thresholds import with_thresholds
from jaxvision.types import Batch, Labels

THRESHOLDS = np.array([0.7, 0.2, 0.1])


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def both():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (9, 1, 2, 3), dtype=np.uint8))
    size = jnp.full((9, 2), 2).at[:, 0].set(1)
    batch = Batch(image, size, size, jnp.arange(9), jnp.ones(9, bool), Labels(jnp.arange(9) % 3))
    task = classification(Linear(), mean=128.0, std=60.0)
    return task, with_thresholds(task, THRESHOLDS), task.init(jax.random.key(0), batch), batch


def test_it_predicts_by_probability_over_threshold(both):
    task, adjusted, variables, batch = both
    with jax.numpy_dtype_promotion("strict"):
        before = np.asarray(task.predict(variables, batch).logits, np.float64)
        after = np.asarray(adjusted.predict(variables, batch).logits, np.float64)
    probabilities = np.exp(before) / np.exp(before).sum(-1, keepdims=True)
    # Bayes: the same likelihoods under a uniform prior, where the thresholds were the prior.
    expected = probabilities / THRESHOLDS
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(after) / np.exp(after).sum(-1, keepdims=True), expected, rtol=1e-5)
    np.testing.assert_array_equal(after.argmax(-1), decide(np.log(probabilities), THRESHOLDS))
    assert (after.argmax(-1) != before.argmax(-1)).any()


@pytest.mark.slow
def test_training_is_the_same(both):
    task, adjusted, variables, batch = both
    key = jax.random.key(1)
    assert adjusted.loss(variables, batch, key)[0] == task.loss(variables, batch, key)[0]


def test_thresholds_are_checked(both):
    task, _, variables, batch = both
    for wrong in ([1.0, 0.0], [-1], [np.nan, 1.0], np.ones((1, 2))):
        with pytest.raises(ValueError, match="finite numbers above 0"):
            with_thresholds(task, wrong)
    with pytest.raises(ValueError, match="2 thresholds for logits of 3 classes"):
        with_thresholds(task, [0.5, 0.5]).predict(variables, batch)

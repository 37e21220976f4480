"""L1 and L2 penalties, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import optimize
from jaxvision.gradient import accumulate, mean_gradient
from jaxvision.optimize import penalty
from jaxvision.tasks.classification import classification

pytestmark = pytest.mark.usefixtures("float64")
L1, L2 = 0.03, 0.2


class TwoLayers(nn.Module):
    dtype: type = jnp.float64

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(2, dtype=self.dtype, param_dtype=self.dtype, name="body")(x.mean((1, 2)))
        return nn.Dense(3, dtype=self.dtype, param_dtype=self.dtype, name="head")(x)


@pytest.fixture
def task():
    task = classification(TwoLayers(), mean=100.0, std=50.0, dtype=jnp.float64)
    return task._replace(init=jax.jit(task.init))


@pytest.fixture
def batch(colour_batch):
    return jax.tree.map(jnp.asarray, colour_batch())


def named(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves(tree)}


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


@pytest.mark.parametrize(
    "gradient", [mean_gradient, pytest.param(accumulate(2), marks=pytest.mark.slow)], ids=["at once", "accumulated"]
)
def test_the_loss_and_its_gradient_have_the_penalties_of_the_kernels(task, batch, gradient):
    variables, key = task.init(jax.random.key(0), batch), jax.random.key(1)
    both = penalty.l2(penalty.l1(task, L1), L2)
    (plain, _), slope = jax.jit(gradient(task.loss))(variables, batch, key)
    (loss, out), penalised = jax.jit(gradient(both.loss))(variables, batch, key)
    weights, slope, penalised = named(variables["params"]), named(slope), named(penalised)
    kernels = [w for name, w in weights.items() if name.endswith("kernel")]
    assert len(kernels) == 2
    expected = {"l1": sum(L1 * np.abs(w).sum() for w in kernels), "l2": sum(L2 / 2 * (w**2).sum() for w in kernels)}
    for name, value in expected.items():
        np.testing.assert_allclose(out.metrics[name], value, rtol=1e-12)
    np.testing.assert_allclose(loss, plain + expected["l1"] + expected["l2"], rtol=1e-12)
    assert "accuracy" in out.metrics
    for name, w in weights.items():
        more = L1 * np.sign(w) + L2 * w if name.endswith("kernel") else 0.0
        np.testing.assert_allclose(penalised[name], slope[name] + more, rtol=1e-10, atol=1e-14, err_msg=name)


def test_prediction_and_initialisation_stay(task):
    assert penalty.l2(task, L2).predict is task.predict
    assert penalty.l2(task, L2).init is task.init


def test_a_mask_chooses_and_frozen_parameters_count_but_do_not_move(task, batch):
    chosen = penalty.l1(task, L1, mask=optimize.matching("head/.*", "body/bias"))
    variables, key = task.init(jax.random.key(0), batch), jax.random.key(1)
    variables = {"params": jax.tree.map(lambda x: x + 0.5, variables["params"])}
    counted = [w for name, w in named(variables["params"]).items() if name != "body/kernel"]
    expected = sum(L1 * np.abs(w).sum() for w in counted)
    _, out = jax.jit(chosen.loss)(variables, batch, key)
    np.testing.assert_allclose(out.metrics["l1"], expected, rtol=1e-12)
    frozen = optimize.freeze(chosen, ["head/.*"])
    _, out = jax.jit(frozen.loss)(optimize.split(variables, ["head/.*"]), batch, key)
    np.testing.assert_allclose(out.metrics["l1"], expected, rtol=1e-12)


def test_a_negative_strength_and_a_pattern_that_matches_nothing_are_refused(task, batch):
    with pytest.raises(ValueError, match=r"penalty\.l1: strength is -0\.1; it must be at least 0"):
        penalty.l1(task, -0.1)
    missing = penalty.l2(task, 0.1, mask=optimize.matching("heads/.*"))
    with pytest.raises(ValueError, match=r"'heads/\.\*' matches no parameter; the nearest names are head/"):
        jax.eval_shape(missing.loss, jax.eval_shape(task.init, jax.random.key(0), batch), batch, jax.random.key(0))


def test_it_is_computed_under_strict_promotion(batch, strict_gradient):
    with jax.enable_x64(False):
        task = penalty.l1(classification(TwoLayers(jnp.float32), mean=100.0, std=50.0), L1)
        batch = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), batch)
        loss, _ = strict_gradient(task, jax.jit(task.init)(jax.random.key(0), batch), batch)
    assert np.isfinite(loss)

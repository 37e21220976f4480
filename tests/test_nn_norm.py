"""Normalisation layers against NumPy, in training and in evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm, GroupNorm, LayerNorm, group_norm, moments, of_valid_rows

CHANNELS = 6


def data(*shape, dtype=np.float32, seed=0):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape) * 3 + 2, dtype)


@partial(jax.jit, static_argnums=0)
def trained(layer, variables, x):
    y, changed = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    return y, changed["batch_stats"]


def evaluated(layer, variables, x, **options):
    return jax.jit(lambda variables, x: layer.apply(variables, x, **options))(variables, x)


def start(layer, x):
    return jax.jit(lambda x: layer.init(jax.random.key(0), x, use_running_average=True))(x)


def with_values(layer, x):
    """Variables of the layer, all of them away from where they start."""
    variables = jax.eval_shape(lambda: start(layer, x))
    random = np.random.RandomState(5)
    return jax.tree.map(lambda leaf: jnp.asarray(random.uniform(0.5, 2, leaf.shape), leaf.dtype), variables)


@pytest.mark.parametrize("shape", [(4, 5, 3, CHANNELS), (7, CHANNELS)])
def test_training_normalises_with_the_batch_and_follows_it_unbiased(float64, shape):
    layer, x = BatchNorm(dtype=jnp.float64), data(*shape, dtype=np.float64)
    variables = with_values(layer, x)
    y, statistics = trained(layer, variables, x)
    rows = np.asarray(x).reshape(-1, CHANNELS)
    params, old = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
    whitened = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    assert_allclose(np.reshape(y, rows.shape), whitened * params["scale"] + params["bias"], rtol=1e-9)
    assert_allclose(statistics["mean"], 0.9 * old["mean"] + 0.1 * rows.mean(0), rtol=1e-12)
    assert_allclose(statistics["var"], 0.9 * old["var"] + 0.1 * rows.var(0, ddof=1), rtol=1e-12)


def test_momentum_and_epsilon_are_used(float64):
    layer, x = BatchNorm(momentum=0.5, epsilon=0.3, dtype=jnp.float64), data(9, CHANNELS, dtype=np.float64)
    y, statistics = trained(layer, start(layer, x), x)
    rows = np.asarray(x)
    assert_allclose(y, (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 0.3), rtol=1e-9, atol=1e-12)
    assert_allclose(statistics["mean"], 0.5 * rows.mean(0), rtol=1e-12)


def test_evaluation_normalises_with_the_running_statistics():
    layer, x = BatchNorm(), data(2, 3, 3, CHANNELS)
    variables = with_values(layer, x)
    params, kept = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
    y = evaluated(layer, variables, x, use_running_average=True)
    expected = (np.asarray(x) - kept["mean"]) / np.sqrt(kept["var"] + 1e-5) * params["scale"] + params["bias"]
    assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_initialising_does_not_count_as_a_batch():
    x = data(4, CHANNELS)
    variables = jax.jit(lambda: BatchNorm().init(jax.random.key(0), x, use_running_average=False))()
    assert_array_equal(variables["batch_stats"]["mean"], np.zeros(CHANNELS))
    assert_array_equal(variables["batch_stats"]["var"], np.ones(CHANNELS))


def test_one_value_a_channel_gives_no_nan_and_leaves_the_variance():
    layer, x = BatchNorm(), data(1, 1, 1, CHANNELS)
    variables = with_values(layer, x)
    gradient = jax.jit(jax.grad(lambda x: jnp.square(trained(layer, variables, x)[0]).sum()))(x)
    y, statistics = trained(layer, variables, x)
    assert_allclose(y[0, 0, 0], variables["params"]["bias"], rtol=1e-6)
    assert_array_equal(statistics["var"], variables["batch_stats"]["var"])
    assert np.isfinite(statistics["mean"]).all()
    assert_array_equal(gradient, np.zeros_like(x))


FLAX = partial(nn.BatchNorm, momentum=0.9)
"""Flax's layer, whose running variance is the biased one."""


def statistics_of_rows(rows, unbiased):
    """What a layer with a momentum of 0.9 keeps after its first batch, by NumPy."""
    return {"mean": 0.1 * rows.mean(0), "var": 0.9 + 0.1 * rows.var(0, ddof=int(unbiased))}


def masked(layer, variables, x, valid):
    with of_valid_rows(jnp.asarray(valid)):
        return trained.__wrapped__(layer, variables, x)


@pytest.mark.parametrize("make", [BatchNorm, FLAX])
@pytest.mark.parametrize(
    ("valid", "shape"),
    [((4,), (4, 5, 3)), ((4,), (4,)), ((4,), (12, 2)), ((4, 3), (4, 3, 2)), ((4, 3), (12, 2, 2)), ((4, 3), (24,))],
)
def test_in_a_batch_of_valid_rows_the_others_are_as_if_they_were_not_there(float64, make, valid, shape):
    layer, x = make(dtype=jnp.float64, epsilon=1e-5), data(*shape, CHANNELS, dtype=np.float64)
    valid = np.random.RandomState(3).permutation(np.arange(np.prod(valid)) % 2 == 0).reshape(valid)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start(layer, x))  # Flax's statistics are float32
    y, statistics = jax.jit(partial(masked, layer))(variables, x, valid)
    of_rows = np.repeat(valid.ravel(), np.prod(shape, dtype=int) // valid.size)
    rows = np.asarray(x).reshape(-1, CHANNELS)[of_rows]
    whitened = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    assert_allclose(np.reshape(y, (-1, CHANNELS))[of_rows], whitened, rtol=1e-9, atol=1e-12)
    assert np.isfinite(y).all()
    for name, expected in statistics_of_rows(rows, unbiased=make is BatchNorm).items():
        assert_allclose(statistics[name], expected, rtol=1e-12)


@pytest.mark.parametrize("make", [BatchNorm, FLAX])
def test_a_mask_of_the_network_holds_beside_that_of_valid_rows(float64, make):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            return make(dtype=jnp.float64, name="norm")(x, use_running_average=False, mask=mask)

    x, kept = data(4, 5, CHANNELS, dtype=np.float64), np.arange(20).reshape(4, 5, 1) % 3 > 0
    variables = Network().init(jax.random.key(0), x, jnp.asarray(kept))
    with of_valid_rows(jnp.array([True, False, True, True])):
        _, changed = Network().apply(variables, x, jnp.asarray(kept), mutable=["batch_stats"])
    rows = np.asarray(x)[[0, 2, 3]][kept[[0, 2, 3], :, 0]]
    assert_allclose(changed["batch_stats"]["norm"]["mean"], 0.1 * rows.mean(0), rtol=1e-12)


def test_rows_that_belong_to_no_example_are_refused():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return BatchNorm(name="norm")(x, use_running_average=False)

    x = data(6, CHANNELS)
    variables = Network().init(jax.random.key(0), x)
    message = "norm: 6 rows of 4 examples don't tell which of them are valid; allowed is one row an example"
    with pytest.raises(ValueError, match=message), of_valid_rows(jnp.ones(4, bool)):
        Network().apply(variables, x, mutable=["batch_stats"])


def test_variance_stays_exact_beside_a_large_mean():
    x = data(4000, CHANNELS) / 3 + 10_000
    mean, variance, count = jax.jit(moments)(x, near=np.full(CHANNELS, 9_990.0, np.float32))
    assert count == 4000
    assert_allclose(mean, np.mean(np.asarray(x, np.float64), 0), rtol=1e-6)
    assert_allclose(variance, np.var(np.asarray(x, np.float64), 0), rtol=1e-4)


@pytest.mark.parametrize("mean", [300, 3_000, 30_000])
def test_a_first_batch_far_from_zero_is_not_blown_up(mean):
    """The variance of a mean of 3,000 deviations is below what float32 can tell; it must not be taken for 0."""
    x = jnp.asarray(mean + np.random.default_rng(0).normal(size=(4096, 4)), jnp.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, use_running_average=False)
    step = jax.jit(partial(norm.apply, use_running_average=False, mutable=["batch_stats"]))
    for _ in range(60):
        y, changed = step(variables, x)
        assert np.std(y, axis=0).max() < 2
        variables = variables | changed
    np.testing.assert_allclose(np.std(y, axis=0), 1, atol=0.01)


def test_moments_do_not_depend_on_the_guess(float64):
    x = data(50, CHANNELS, dtype=np.float64)
    for near in (0.0, -7.0, 100.0):
        mean, variance, _ = jax.jit(moments)(x, near=np.full(CHANNELS, near))
        assert_allclose(mean, np.mean(x, 0), rtol=1e-12)
        assert_allclose(variance, np.var(x, 0), rtol=1e-9)


def test_gradient_equals_finite_differences(float64):
    layer, x = BatchNorm(dtype=jnp.float64), data(3, 2, 2, CHANNELS, dtype=np.float64)
    variables = with_values(layer, x)
    weight = data(*x.shape, dtype=np.float64, seed=1)

    @jax.jit
    def loss(params, x):
        y, _ = trained(layer, {**variables, "params": jax.tree.map(jnp.asarray, params)}, jnp.asarray(x))
        return (weight * y).sum()

    check_grads(loss, (variables["params"], x), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize("norm", [BatchNorm, FrozenBatchNorm, group_norm(2)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("invalid", [0, 2])
def test_only_the_result_is_in_half_precision(norm, dtype, invalid):
    layer, x = norm(dtype=dtype), data(4, 3, 3, CHANNELS)
    variables, valid = with_values(layer, x), jnp.arange(4) >= invalid

    def loss(x):
        y, changed = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        return y.astype(jnp.float32).sum(), (y, changed)

    with jax.numpy_dtype_promotion("strict"), of_valid_rows(valid):
        gradient, (y, changed) = jax.jit(jax.grad(loss, has_aux=True))(x.astype(dtype))
    assert y.dtype == gradient.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, changed))} == {jnp.dtype(jnp.float32)}
    reference = evaluated(norm(), variables, x[invalid:], use_running_average=False, mutable=["batch_stats"])[0]
    assert_allclose(np.asarray(y[invalid:], np.float32), reference, rtol=0.01, atol=0.05)


@pytest.mark.parametrize("norm", [BatchNorm, FrozenBatchNorm, group_norm(2)])
def test_scale_starts_as_told(norm):
    variables = start(norm(scale_init=jax.nn.initializers.zeros), data(2, 4, CHANNELS))
    scales = [leaf for path, leaf in jax.tree.leaves_with_path(variables) if path[-1].key == "scale"]
    assert_array_equal(scales, np.zeros((1, CHANNELS)))


def test_frozen_batch_norm_never_changes_and_has_no_parameters():
    layer, x = FrozenBatchNorm(), data(2, 3, 3, CHANNELS)
    variables = with_values(layer, x)
    assert list(variables) == ["batch_stats"]
    y, statistics = trained(layer, variables, x)
    jax.tree.map(assert_array_equal, statistics, variables["batch_stats"])
    plain = {
        "params": {name: statistics[name] for name in ("scale", "bias")},
        "batch_stats": {name: statistics[name] for name in ("mean", "var")},
    }
    assert_array_equal(y, evaluated(BatchNorm(), plain, x, use_running_average=True))


def test_group_norm_equals_a_loop_over_groups(float64):
    layer, x = GroupNorm(groups=3, dtype=jnp.float64), data(2, 4, 5, CHANNELS, dtype=np.float64)
    variables = with_values(layer, x)
    expected = np.empty(x.shape)
    for example in range(2):
        for group in range(3):
            here = np.s_[example, :, :, 2 * group : 2 * group + 2]
            values = np.asarray(x)[here]
            expected[here] = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
    expected = expected * np.asarray(variables["params"]["scale"]) + np.asarray(variables["params"]["bias"])
    assert_allclose(evaluated(layer, variables, x), expected, rtol=1e-9)


def test_group_norm_names_what_does_not_divide():
    with pytest.raises(ValueError, match="6 channels do not form 4 groups"):
        GroupNorm(groups=4).init(jax.random.key(0), data(1, 2, CHANNELS))


def test_layer_norm_equals_the_one_of_flax(float64):
    random = np.random.default_rng(0)
    x, scale, bias = (jnp.asarray(random.normal(3, 2, shape)) for shape in ((2, 5, 7), (7,), (7,)))
    variables = {"params": {"scale": scale, "bias": bias}}
    theirs = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=jnp.float64, param_dtype=jnp.float64)
    of = lambda layer: jax.value_and_grad(lambda v, x: jnp.sin(layer.apply(v, x)).sum(), (0, 1))(variables, x)
    found, expected = of(LayerNorm(1e-5)), of(theirs)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-11, atol=1e-11), found, expected)

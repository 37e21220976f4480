"""What Keras' networks have otherwise than PyTorch's: strides, biases, normalisation without a scale, averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import filled, parameter_count, spec_of

from jaxvision.nn import inception, resnet
from jaxvision.nn.norm import BatchNorm


@pytest.mark.parametrize(
    ("network", "count"),
    [(resnet.keras_resnet50(), 25_636_712 - 53_120), (inception.keras_inception_v3(), 23_851_784 - 34_432)],
)
def test_has_the_published_number_of_parameters(network, count):
    """Keras counts the running statistics, too: 53,120 and 34,432 numbers."""
    assert parameter_count(network, 224) == count


def test_a_stride_in_the_first_convolution_leaves_out_pixels_before_the_block():
    random = np.random.RandomState(0)
    x = jnp.asarray(random.standard_normal((2, 6, 7, 8)), jnp.float32)
    options = {"channels": 4, "dtype": jnp.float32, "norm": BatchNorm, "last_scale": jax.nn.initializers.ones}
    options |= {"drop": 0.0, "groups": 1, "width_per_group": 64, "bias": True}
    first, none = (resnet.Bottleneck(stride=stride, stride_first=True, **options) for stride in (2, 1))
    variables = filled(jax.eval_shape(lambda: first.init(jax.random.key(0), x, train=False)))
    assert variables["params"]["conv2"]["bias"].shape == (4,)
    ours = first.apply(variables, x, train=False)
    assert ours.shape == (2, 3, 4, 16)
    assert_allclose(ours, none.apply(variables, x[:, ::2, ::2], train=False), rtol=1e-5, atol=1e-6)
    second = resnet.Bottleneck(stride=2, stride_first=False, **options)
    assert np.abs(second.apply(variables, x, train=False) - ours).max() > 1e-3


def test_averages_without_the_border():
    images = np.random.RandomState(0).standard_normal((2, 5, 4, 3))
    ours = inception.average_pool(jnp.asarray(images, jnp.float32), 3, padding=1, count_border=False)
    expected = [
        [images[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((1, 2)) for x in range(4)] for y in range(5)
    ]
    assert_allclose(ours, np.transpose(expected, (2, 0, 1, 3)), rtol=1e-5, atol=1e-6)


def test_normalisation_without_a_scale():
    x = jnp.asarray(np.random.RandomState(0).standard_normal((3, 5)), jnp.float32)
    norm = BatchNorm(use_scale=False, epsilon=1e-3)
    variables = norm.init(jax.random.key(0), x, use_running_average=True)
    assert sorted(variables["params"]) == ["bias"]
    variables = filled(variables)
    mean, var = (np.asarray(variables["batch_stats"][name]) for name in ("mean", "var"))
    expected = (np.asarray(x) - mean) / np.sqrt(var + 1e-3) + np.asarray(variables["params"]["bias"])
    assert_allclose(norm.apply(variables, x, use_running_average=True), expected, rtol=1e-5, atol=1e-6)
    assert spec_of(inception.keras_inception_v3(3), (1, 75, 75, 3))["params"]["Conv2d_1a_3x3"]["norm"].keys() == {
        "bias"
    }

"""Convolution and its layer against SciPy and NumPy, convolution against XLA's own, max pooling against a NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import correlate

from jaxvision.machine import eigen
from jaxvision.nn import conv as module
from jaxvision.nn.conv import Conv, ConvNormAct, convolve, max_pool, max_pool_rounding_up
from jaxvision.nn.norm import BatchNorm, group_norm

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def value_and_gradients(function, images, kernel):
    """The function's result, and how a random cotangent of it comes back to both inputs; one compilation."""

    def run(images, kernel, cotangent):
        result, back = jax.vjp(function, images, kernel)
        return result, *back(cotangent)

    shape = jax.eval_shape(function, images, kernel).shape
    return jax.jit(run)(images, kernel, jnp.asarray(normal(*shape, seed=2)))


def correlated(images, kernel, stride, pads, dilation, groups):
    """The convolution by its definition, one image and one output channel at a time."""
    spread = np.zeros((*((n - 1) * dilation + 1 for n in kernel.shape[:2]), *kernel.shape[2:]))
    spread[::dilation, ::dilation] = kernel
    padded = np.pad(images, ((0, 0), *pads, (0, 0)))
    inputs, outputs = kernel.shape[2], kernel.shape[3] // groups
    channels = []
    for o in range(kernel.shape[3]):
        first = o // outputs * inputs
        own = padded[..., first : first + inputs]
        channels.append([correlate(image, spread[..., o], mode="valid")[..., 0] for image in own])
    return np.moveaxis(np.array(channels), 0, -1)[:, ::stride, ::stride]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation", "groups"),
    [
        ((3, 3), 1, 1, 1, 1),
        ((3, 3), 2, 1, 1, 1),
        ((7, 7), 2, 3, 1, 1),
        ((5, 3), 1, 0, 1, 1),
        ((2, 2), 1, ((0, 1), (1, 0)), 1, 1),
        ((3, 3), 1, 2, 2, 1),
        ((3, 3), 2, 1, 1, 2),
        ((1, 1), 1, 0, 1, 1),
        ((1, 1), 2, 0, 1, 1),
        ((1, 1), 2, 1, 1, 1),
        ((1, 1), 2, 0, 1, 4),
        ((3, 3), 1, 1, 1, 4),
        ((5, 3), 2, ((0, 1), (2, 1)), 1, 4),
        ((3, 3), 1, 2, 2, 4),
    ],
)
def test_equals_scipy(float64, size, stride, padding, dilation, groups):
    images, kernel = normal(2, 9, 8, 4), normal(*size, 4 // groups, 4, seed=1)
    pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    ours = jax.jit(lambda images, kernel: convolve(images, kernel, **settings))(images, kernel)
    assert_allclose(ours, correlated(images, kernel, stride, pads, dilation, groups), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [((3, 3), 1), ((5, 5), 2), ((2, 3), 3)])
def test_depthwise_has_the_gradients_of_xlas_own(float64, size, stride):
    images, kernel = jnp.asarray(normal(2, 9, 8, 6)), jnp.asarray(normal(*size, 1, 6, seed=1))
    pads = ((1, 0), (2, 1))

    def xla(x, k):
        return lax.conv_general_dilated(
            x, k, (stride, stride), pads, dimension_numbers=DIMENSIONS, feature_group_count=6
        )

    found = value_and_gradients(lambda x, k: convolve(x, k, stride=stride, padding=pads, groups=6), images, kernel)
    for ours, theirs in zip(found, value_and_gradients(xla, images, kernel), strict=True):
        assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pointwise_equals_xla_convolution_with_its_gradients(float64, stride):
    images, kernel = jnp.asarray(normal(3, 7, 8, 5)), jnp.asarray(normal(1, 1, 5, 6, seed=1))

    def reference(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), ((0, 0), (0, 0)), dimension_numbers=DIMENSIONS
        )

    found = value_and_gradients(lambda *xs: convolve(*xs, stride=stride), images, kernel)
    expected = value_and_gradients(reference, images, kernel)
    for ours, theirs, atol in zip(found, expected, (1e-13, 1e-12, 1e-12), strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_pointwise_is_a_matrix_product_and_grouped_is_not():
    images, kernel = jnp.zeros((1, 4, 4, 4)), jnp.zeros((1, 1, 4, 4))
    assert "dot_general" in str(jax.make_jaxpr(convolve)(images, kernel))
    grouped = jax.make_jaxpr(lambda x, k: convolve(x, k, groups=2))(images, kernel[:, :, :2])
    assert "conv_general_dilated" in str(grouped)


BANDS = {
    "plain": ((3, 3), 1, ((1, 1), (1, 1)), 1),
    "strided": ((3, 3), 2, ((1, 1), (1, 1)), 1),
    "dilated": ((3, 3), 1, ((2, 2), (2, 2)), 2),
    "uneven": ((2, 3), 3, ((0, 1), (2, 0)), 1),
    "more padding than kernel": ((3, 3), 1, ((5, 0), (1, 1)), 1),
    "pointwise": ((1, 1), 1, ((0, 0), (0, 0)), 1),
    "pointwise, strided": ((1, 1), 2, ((0, 0), (0, 0)), 1),
}
"""Kernel, stride, padding and dilation."""


@pytest.mark.parametrize("name", BANDS)
@pytest.mark.parametrize("groups", [None, 3])
def test_large_images_have_the_derivatives_of_xlas_own(float64, monkeypatch, name, groups):
    monkeypatch.setattr(eigen, "convolves", lambda: False)
    monkeypatch.setattr(module, "LARGE_BYTES", 0)
    monkeypatch.setattr(module, "PART_BYTES", 500)
    monkeypatch.setattr(module, "_groups", lambda images, parts: groups if images == 6 else None)
    size, stride, pads, dilation = BANDS[name]
    images, kernel = jnp.asarray(normal(6, 11, 8, 4)), jnp.asarray(normal(*size, 4, 5, seed=1))

    def ours(x, k):
        return convolve(x, k, stride=stride, padding=pads, dilation=dilation)

    def xla(x, k):
        return lax.conv_general_dilated(
            x, k, (stride, stride), pads, rhs_dilation=(dilation, dilation), dimension_numbers=DIMENSIONS
        )

    def derivatives(function, x, k):
        def total(x, k):
            return jnp.sin(function(x, k)).sum()

        forward = jax.jvp(function, (x, k), (x * 2, k + 1))
        second = jax.jvp(jax.grad(total, (0, 1)), (x, k), (x * 2, k + 1))
        each = jax.vmap(lambda one: jax.grad(total, 1)(one[None], k))(x)
        return forward, second, each

    found = jax.jit(lambda x, k: derivatives(ours, x, k))(images, kernel)
    expected = jax.jit(lambda x, k: derivatives(xla, x, k))(images, kernel)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_groups_are_as_many_as_parts_or_more_and_of_equal_size():
    images_and_parts = [(64, 1), (64, 5), (60, 7), (2, 2), (502, 32)]
    assert [module._groups(*each) for each in images_and_parts] == [None, 8, 10, None, None]


def test_neither_several_devices_nor_bfloat16_have_parts(monkeypatch):
    monkeypatch.setattr(eigen, "convolves", lambda: False)
    monkeypatch.setattr(module, "LARGE_BYTES", 0)
    monkeypatch.setattr(module, "PART_BYTES", 2**10)
    large = jnp.zeros((8, 16, 16, 1))
    assert module._parts(large, large) == 16
    assert module._parts(large.astype(jnp.bfloat16), large.astype(jnp.bfloat16)) == 1  # each part would be rounded
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert module._parts(large, large) == 1


def test_eigen_has_no_parts(monkeypatch):
    monkeypatch.setattr(module, "LARGE_BYTES", 0)
    large, found = jnp.zeros((8, 16, 16, 1)), []
    for chosen in (True, False):
        monkeypatch.setattr(eigen, "convolves", lambda: chosen)  # noqa: B023
        monkeypatch.setattr(module, "PART_BYTES", 2**10)
        found.append(module._parts(large, large))
    assert found == [1, 16]


@pytest.mark.parametrize("whole", [True, False])
def test_gradients_are_convolutions_that_xla_on_cpu_knows_in_a_branch_too(monkeypatch, whole):
    monkeypatch.setattr(eigen, "convolves", lambda: False)
    monkeypatch.setattr(module, "LARGE_BYTES", 2**30 if whole else 0)
    monkeypatch.setattr(module, "PART_BYTES", 500)
    images, kernel = jnp.ones((6, 11, 8, 4)), jnp.ones((3, 3, 4, 5))
    gradient = jax.grad(lambda x, k: convolve(x, k, stride=2, padding=1).sum(), (0, 1))
    program = jax.make_jaxpr(gradient)(images, kernel)
    found = {
        str(each.params["dimension_numbers"])
        for each in program.eqns
        if each.primitive.name == "conv_general_dilated" and each.invars[0].aval.shape != images.shape
    }
    plain = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), DIMENSIONS)
    assert found == {str(plain)}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_computes_in_its_type_and_keeps_parameters_in_float32(dtype):
    layer, x = Conv(6, (3, 1), padding=((1, 1), (0, 0)), groups=2, dtype=dtype), jnp.asarray(normal(2, 5, 5, 4), dtype)
    with jax.numpy_dtype_promotion("strict"):
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        params = {**variables["params"], "bias": jnp.arange(6.0)}
        y = jax.jit(layer.apply)({"params": params}, x)
    assert jax.tree.map(jnp.shape, variables["params"]) == {"kernel": (3, 1, 2, 6), "bias": (6,)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert y.dtype == dtype
    rounded = np.asarray(params["kernel"].astype(dtype), np.float64)
    expected = correlated(np.asarray(x, np.float64), rounded, 1, ((1, 1), (0, 0)), 1, 2) + np.arange(6)
    assert_allclose(np.asarray(y, np.float64), expected, atol=1e-5 if dtype == jnp.float32 else 0.05)


def test_layer_without_bias_has_none():
    variables = jax.eval_shape(Conv(3, 3, use_bias=False).init, jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
    assert list(variables["params"]) == ["kernel"]


def test_groups_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="3 groups do not divide 4 channels in and 6 out"):
        Conv(6, 3, groups=3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))


def filled(spec, seed=3):
    """Random variables of this structure, all positive, so that variances are."""
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), leaf.dtype), spec)


LAYERS = {
    "plain": (ConvNormAct(6, 3), (1, 1)),
    "strided": (ConvNormAct(6, (5, 3), 2, activation=jnp.tanh), (2, 1)),
    "dilated": (ConvNormAct(6, 3, dilation=2, activation=None), (2, 2)),
    "grouped, with biases": (ConvNormAct(6, (1, 7), groups=2, use_bias=True), (0, 3)),
    "not padded": (ConvNormAct(6, 3, padding=0, norm=None, use_bias=True), (0, 0)),
    "no more than a convolution": (ConvNormAct(6, 3, padding=1, norm=None, activation=None), (1, 1)),
}
"""Layers, each with the pixels of padding that it is to have above and below, and at both sides."""


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_equals_scipy_and_numpy(float64, name, train):
    layer, (rows, columns) = LAYERS[name]
    layer, images = layer.clone(dtype=jnp.float64), jnp.asarray(normal(2, 9, 8, 4))
    variables = filled(jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, train=False), images))
    found = jax.jit(lambda v, x: layer.apply(v, x, train=train, mutable=["batch_stats"])[0])(variables, images)
    variables = jax.tree.map(np.asarray, variables)
    conv, norm = (variables["params"].get(part, {}) for part in ("conv", "norm"))
    pads = ((rows, rows), (columns, columns))
    y = correlated(images, conv["kernel"], layer.stride, pads, layer.dilation, layer.groups) + conv.get("bias", 0)
    if layer.norm:
        running = variables["batch_stats"]["norm"]
        mean, variance = (y.mean((0, 1, 2)), y.var((0, 1, 2))) if train else (running["mean"], running["var"])
        y = (y - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
    y = {nn.relu: lambda y: np.maximum(y, 0), jnp.tanh: np.tanh, None: lambda y: y}[layer.activation](y)
    assert_allclose(found, y, rtol=1e-10, atol=1e-12)
    assert ("bias" in conv, bool(norm)) == (layer.use_bias, layer.norm is not None)


class Flat(nn.Module):
    """A network of one layer, which is flat."""

    @nn.compact
    def __call__(self, images, *, train):
        """Run the layer."""
        return ConvNormAct(6, 3, 2, norm=group_norm(2)).flat(images, "first", "second", train=train)


def test_a_flat_layer_is_the_same_with_its_submodules_one_level_higher():
    images, key = jnp.asarray(normal(2, 6, 6, 4), jnp.float32), jax.random.key(0)
    flat, layer = Flat(), ConvNormAct(6, 3, 2, norm=group_norm(2))
    spec = jax.eval_shape(lambda x: flat.init(key, x, train=False), images)
    assert jax.tree.map(jnp.shape, spec["params"]) == {
        "first": {"kernel": (3, 3, 4, 6)},
        "second": {"scale": (6,), "bias": (6,)},
    }
    variables = filled(spec)
    nested = {"conv": variables["params"]["first"], "norm": variables["params"]["second"]}
    found = jax.jit(lambda v, x: flat.apply(v, x, train=True))(variables, images)
    assert_array_equal(found, jax.jit(lambda v, x: layer.apply(v, x, train=True))({"params": nested}, images))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_layer_computes_in_its_type_and_starts_as_it_is_told(dtype):
    layer = ConvNormAct(6, 3, norm=BatchNorm, dtype=dtype, kernel_init=nn.initializers.constant(2.0))
    layer, images = layer.clone(scale_init=nn.initializers.constant(3.0)), jnp.asarray(normal(2, 5, 5, 4), dtype)
    with jax.numpy_dtype_promotion("strict"):
        run = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x, train=True))
        y, variables = run(images)
    assert y.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    params = variables["params"]
    assert np.unique(params["conv"]["kernel"]) == 2
    assert np.unique(params["norm"]["scale"]) == 3


def windows(side, window, stride, pad):
    """First and last pixel of every window along one axis, cut at the border."""
    starts = range(-pad, side + pad - window + 1, stride)
    return [slice(max(start, 0), min(start + window, side)) for start in starts]


def pooled(images, window, stride, pad):
    """Largest values, and how often each pixel is one: the first in reading order of each window."""
    count = np.zeros_like(images)
    rows, columns = (windows(side, window, stride, pad) for side in images.shape[1:3])
    result = np.empty((images.shape[0], len(rows), len(columns), images.shape[3]))
    for n, y, x, c in np.ndindex(result.shape):
        square = images[n, rows[y], columns[x], c]
        i, j = np.unravel_index(square.argmax(), square.shape)
        result[n, y, x, c] = square[i, j]
        count[n, rows[y].start + i, columns[x].start + j, c] += 1
    return result, count


@pytest.mark.parametrize(
    ("window", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (5, 1, 2), (1, 2, 0)]
)
@pytest.mark.parametrize("side", [6, 7])
def test_pooling_and_its_gradient_equal_a_loop_even_on_ties(window, stride, pad, side):
    images = np.random.RandomState(0).randint(-3, 0, size=(2, side, 8, 3)).astype(np.float32)
    expected, count = pooled(images, window, stride, pad)

    def total(x):
        largest = max_pool(x, window, stride=stride, padding=pad)
        return largest.sum(), largest

    gradient, largest = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(images))
    assert_array_equal(largest, expected)
    assert_array_equal(gradient, count)


def test_pooling_stride_is_the_window_unless_given():
    assert jax.eval_shape(lambda x: max_pool(x, 3), jnp.zeros((1, 9, 9, 1))).shape == (1, 3, 3, 1)


def test_pooling_may_round_up():
    images = np.arange(6.0).reshape(1, 6, 1, 1) * np.ones((1, 1, 5, 1))
    by_3, by_2 = jax.jit(lambda x: [max_pool_rounding_up(x, window)[0, :, :, 0] for window in (3, 2)])(images)
    assert_array_equal(by_3, [[2, 2], [4, 4], [5, 5]])
    assert_array_equal(by_2, [[1, 1, 1], [3, 3, 3], [5, 5, 5]])


def test_pooling_pads_each_side_as_told():
    images = -np.arange(1.0, 10).reshape(1, 3, 3, 1)
    found = jax.jit(lambda x: max_pool(x, 2, padding=((1, 0), (0, 1)))[0, :, :, 0])(images)
    assert_array_equal(found, [[-1.0, -3.0], [-4.0, -6.0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pooling_lets_nan_through_and_keeps_the_type(dtype):
    images = np.zeros((1, 4, 4, 1), dtype)
    images[0, 1, 0, 0] = np.nan
    with jax.numpy_dtype_promotion("strict"):
        y = jax.jit(lambda x: max_pool(x, 2))(images)
    assert y.dtype == dtype
    assert_array_equal(np.isnan(np.asarray(y, np.float32))[0, :, :, 0], [[True, False], [False, False]])


def test_pooling_names_a_window_that_does_not_fit():
    with pytest.raises(ValueError, match="a window of 3 does not fit into 2 pixels"):
        max_pool(jnp.zeros((1, 2, 5, 1)), 3)

"""U-Net: its sizes, its parameters, its parts, and what lies around the content."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import variables_of
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import spec_of
from test_tasks_backbones import SMALL

from jaxvision.nn import resnet
from jaxvision.nn.norm import BatchNorm
from jaxvision.tasks.unet import BackboneUNet, UNet, UpConv, centre, unet
from jaxvision.types import Batch


def parameters(network, shape):
    return sum(leaf.size for leaf in jax.tree.leaves(spec_of(network, shape)["params"]))


def test_the_papers_has_the_papers_size_and_parameters():
    network = UNet(2)
    image = jax.ShapeDtypeStruct((1, 572, 572, 1), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
    assert logits.shape == (1, 388, 388, 2)
    widths, conv = (64, 128, 256, 512, 1024), lambda i, o: 9 * i * o + o
    down = sum(conv(i, o) + conv(o, o) for i, o in zip((1, *widths), widths, strict=False))
    up = sum(4 * 2 * o * o + o + conv(2 * o, o) + conv(o, o) for o in widths[:-1])
    assert parameters(network, (1, 572, 572, 1)) == down + up + 64 * 2 + 2 == 31_030_658


@pytest.mark.parametrize(("depth", "padding"), [(4, 0), (2, 0), (1, 0), (4, 1), (3, 1)])
def test_extents_are_those_of_the_network(depth, padding):
    network = UNet(2, width=2, depth=depth, padding=padding)
    assert UNet(2).margin == 92
    sides = {pixels: network.extent(pixels) for pixels in range(1, 70)}
    assert all(pixels <= side - 2 * network.margin < pixels + 2**depth for pixels, side in sides.items())
    for side in (sides[1], sides[69]):
        image = jax.ShapeDtypeStruct((1, side, sides[1], 1), jnp.float32)
        logits, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
        assert logits.shape[1:3] == (side - 2 * network.margin, sides[1] - 2 * network.margin)


@pytest.mark.parametrize(("padding", "side", "next_side"), [(0, 570, 572), (0, 140, 188), (1, 40, 48), (0, 1, 188)])
def test_sides_that_have_no_logits_are_refused(padding, side, next_side):
    with pytest.raises(ValueError, match=f"no side of {side} pixels; the next is {next_side}"):
        spec_of(UNet(2, padding=padding), (1, side, side, 1))


def test_an_up_convolution_gives_each_pixel_four():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 4)), jnp.float32)
    network = UpConv(3)
    variables = variables_like(network, x)
    kernel, bias = (np.asarray(variables["params"][name]) for name in ("kernel", "bias"))
    found = network.apply(variables, x)
    expected = np.zeros((2, 6, 10, 3))
    for y in range(6):
        for column in range(10):
            expected[:, y, column] = np.asarray(x)[:, y // 2, column // 2] @ kernel[y % 2, column % 2] + bias
    assert_allclose(found, expected, atol=1e-5)


def variables_like(network, *inputs, seed=0):
    spec = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), spec)


def test_the_middle_of_a_map_is_copied():
    x = jnp.arange(2 * 7 * 9.0).reshape(2, 7, 9, 1)
    assert_array_equal(centre(x, 3, 4), np.asarray(x)[:, 2:5, 2:6])


def test_dropout_is_at_the_end_of_the_contracting_path_and_in_training_only():
    network = UNet(2, width=2, depth=2)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, network.extent(4), network.extent(4), 1)), jnp.float32)
    variables = jax.jit(lambda: network.init(jax.random.key(0), x, train=False))()
    apply = jax.jit(
        lambda seed, train: network.apply(variables, x, train=train, rngs={"dropout": jax.random.key(seed)}),
        static_argnums=1,
    )
    assert_array_equal(apply(0, False), apply(1, False))
    assert np.abs(apply(0, True) - apply(1, True)).max() > 0
    names = set(jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=False))["params"])
    assert names == {
        *(f"down{scale}_conv{n}" for scale in (1, 2, 3) for n in (1, 2)),
        *(f"up{scale}_{part}" for scale in (1, 2) for part in ("upconv", "conv1", "conv2")),
        "head",
    }


def test_what_a_pixel_gets_does_not_depend_on_the_canvas(float64):
    task = unet(UNet(3, width=2, depth=2, dtype=jnp.float64), dtype=jnp.float64)
    random = np.random.default_rng(0)
    content = random.uniform(0, 255, (25, 18, 3))

    def batch(height, width):
        image = np.full((1, height, width, 3), 200.0)
        image[0, :25, :18] = content
        size = jnp.int32([[25, 18]])
        return Batch(jnp.asarray(image), size, size, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))

    small, large = batch(25, 18), batch(40, 33)
    variables = variables_of(task, small)
    expected, found = (jax.jit(task.predict)(variables, each).logits for each in (small, large))
    assert expected.shape == (1, 25, 18, 3)
    assert found.shape == (1, 40, 33, 3)
    assert_allclose(found[:, :25, :18], expected, atol=1e-12)


def test_a_pixel_is_predicted_from_its_reflected_surroundings(float64):
    """Convolving the whole padded image by hand of NumPy's reflection gives the same as the task."""
    network = UNet(2, width=2, depth=1, dtype=jnp.float64)
    task = unet(network, mean=0.0, std=1.0, dtype=jnp.float64)
    image = np.random.default_rng(0).uniform(0, 255, (1, 12, 16, 3))
    size = jnp.int32([[12, 16]])
    batch = Batch(jnp.asarray(image), size, size, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    variables = variables_of(task, batch)
    padded = jnp.asarray(np.pad(image, [(0, 0), (8, 8), (8, 8), (0, 0)], mode="reflect"))
    assert_allclose(task.predict(variables, batch).logits, network.apply(variables, padded, train=False), atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_any_backbone_is_a_contracting_path(name):
    backbone = SMALL[name]()
    network = BackboneUNet(backbone, 5, (16, 8, 8, 4, 4)[: backbone.strides[-1].bit_length() - 1])
    image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    logits, variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
    assert logits.shape == (2, 64, 96, 5)
    kernels = {path: leaf["kernel"].shape for path, leaf in variables["params"].items() if path.endswith("_conv1")}
    inputs = dict(zip(backbone.strides, backbone.widths, strict=True))
    before = inputs[backbone.strides[-1]]
    for stride, channels in zip((16, 8, 4, 2, 1), network.channels, strict=True):
        assert kernels[f"stride{stride}_conv1"] == (3, 3, before + inputs.get(stride, 0), channels)
        before = channels


@pytest.mark.parametrize("shape", [(37, 50), (33, 65), (64, 31)])
def test_sides_need_not_be_even(shape):
    network = BackboneUNet(resnet.Backbone(resnet.BasicBlock, (1, 1, 1), width=4), 2, (4, 4, 4, 4))
    image = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
    assert logits.shape == (1, *shape, 2)


def test_channels_are_one_number_a_doubling():
    network = BackboneUNet(resnet.Backbone(resnet.BasicBlock, (1, 1), width=4), 2, (4, 4))
    with pytest.raises(ValueError, match=r"channels=\(4, 4\): from stride 8 to the image there are 3 doublings"):
        spec_of(network, (1, 32, 32, 3))


def test_normalisation_takes_the_place_of_biases():
    spec = spec_of(UNet(2, width=2, depth=1, norm=BatchNorm), (1, 24, 24, 3))
    assert set(spec["params"]["down1_conv1"]) == {"kernel"}
    assert set(spec["params"]["down1_norm1"]) == {"scale", "bias"}
    assert set(spec["batch_stats"]) == {f"{part}_norm{n}" for part in ("down1", "down2", "up1") for n in (1, 2)}

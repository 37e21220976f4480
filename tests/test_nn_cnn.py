"""The small networks: PyTorch's figures for the tutorial's, and what SmallCNN promises."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import (
    UNOPTIMISED,
    compute,
    filled,
    random_images,
    random_weights,
    shapes_of,
    spec_of,
    summary,
    trained_types,
)

from jaxvision.nn.cnn import SmallCNN, TutorialCNN
from jaxvision.pretrained.torch_tutorial import tutorial_cnn

GOLDEN = Path(__file__).parent / "golden" / "tutorial_cnn.npz"


def images(*shape, dtype=np.float32):
    return jnp.asarray(np.random.RandomState(0).standard_normal(shape), dtype)


def start(network, x):
    return jax.jit(lambda x: network.init(jax.random.key(0), x, train=False))(x)


def named_as_in_torch(gradient):
    """Gradients under PyTorch's names, with PyTorch's axes."""
    turned = {}
    for ours, theirs in {"conv1": "conv1", "conv2": "conv2", "dense1": "fc1", "dense2": "fc2", "dense3": "fc3"}.items():
        kernel = np.asarray(gradient[ours]["kernel"])
        if ours == "dense1":
            kernel = kernel.reshape(5, 5, 16, 120).transpose(2, 0, 1, 3).reshape(400, 120)
        turned[f"{theirs}.weight"] = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        turned[f"{theirs}.bias"] = np.asarray(gradient[ours]["bias"])
    return turned


def test_tutorial_network_equals_torch(float64):
    golden = np.load(GOLDEN)
    x, labels = random_images(tuple(golden["images_shape"]), 10, int(golden["seed"]) + 1)
    network = TutorialCNN(dtype=jnp.float64)
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.asarray(x), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(spec)) == 62_006
    variables = tutorial_cnn(random_weights(shapes_of(golden), int(golden["seed"])), spec)
    logits, loss, gradient, _ = compute(network, variables, jnp.asarray(x), jnp.asarray(labels), UNOPTIMISED)
    assert_allclose(logits, golden["logits"], rtol=1e-9)
    assert_allclose(loss, golden["loss"], rtol=1e-9)
    assert_allclose(summary(named_as_in_torch(gradient)), golden["gradients"], rtol=1e-7)


def test_tutorial_network_keeps_logits_in_float32():
    network, x = TutorialCNN(classes=3, dtype=jnp.bfloat16), images(2, 32, 32, 3)
    with jax.numpy_dtype_promotion("strict"):
        logits, variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=True), x)
    assert logits.shape == (2, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(("side", "channels", "depth"), [(28, (4, 8), 1), (32, (3, 4, 5), 2), (17, (6,), 3)])
def test_small_network_has_the_layers_asked_for(side, channels, depth):
    network, x = SmallCNN(7, channels=channels, depth=depth), images(2, side, side, 1)
    logits, variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), x)
    assert logits.shape == (2, 7)
    kernels = {name: layer["kernel"].shape for name, layer in variables["params"].items() if "conv" in name}
    expected, before = {}, 1
    for stage, features in enumerate(channels, 1):
        for layer in range(1, depth + 1):
            expected[f"stage{stage}_conv{layer}"] = (3, 3, before, features)
            before = features
    assert kernels == expected
    last = side // 2 ** len(channels)
    assert variables["params"]["head"]["kernel"].shape == (last * last * channels[-1], 7)


def test_dropout_acts_in_training_only():
    network, x = SmallCNN(5, channels=(4,), dropout=0.5), images(4, 8, 8, 1)
    variables = filled(spec_of(network, x.shape))

    @jax.jit
    def run(key):
        return network.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    assert "random" not in str(jax.make_jaxpr(lambda v: network.apply(v, x, train=False))(variables))
    same, again, other = run(jax.random.key(0)), run(jax.random.key(0)), run(jax.random.key(1))
    assert_array_equal(same, again)
    assert np.abs(same - other).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_small_network_learns_random_labels(dtype):
    network, x = SmallCNN(4, channels=(8, 16), depth=1, dropout=0.0, dtype=dtype), images(24, 12, 12, 1)
    labels = jnp.asarray(np.random.RandomState(1).randint(4, size=24))
    variables = start(network, x)
    optimizer = optax.adam(0.01)

    @jax.jit
    def step(variables, state):
        def loss_of(params):
            logits, changed = network.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        (loss, changed), gradient = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **changed}, state, loss

    state, losses = optimizer.init(variables["params"]), []
    for _ in range(60):
        variables, state, loss = step(variables, state)
        losses.append(float(loss))
    assert losses[0] > 1
    assert losses[-1] < 0.05
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_small_network_mixes_no_types_unasked():
    network = SmallCNN(4, channels=(4,), depth=1, dtype=jnp.bfloat16)
    assert trained_types(network, (2, 8, 8, 1)) == {jnp.dtype(jnp.float32)}

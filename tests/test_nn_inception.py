"""Inception v3 against torchvision's figures in tests/golden, its heads and its errors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from parity_networks import assert_equals_golden, spec_of, trained_once

from jaxvision.nn.inception import InceptionV3, MixedE, inception_v3
from jaxvision.nn.norm import BatchNorm
from jaxvision.pretrained import torchvision

GOLDEN = Path(__file__).parent / "golden" / "inception_v3.npz"


@pytest.fixture(scope="module")
def both_heads():
    """Shapes of the whole network with both heads, for 7 classes."""
    return spec_of(inception_v3(7, auxiliary=True), (1, 299, 299, 3))


def test_has_the_published_number_of_parameters(both_heads):
    fewer = (1000 - 7) * (2048 + 1 + 768 + 1)
    assert sum(leaf.size for leaf in jax.tree.leaves(both_heads["params"])) == 27_161_264 - fewer


@pytest.mark.slow
def test_equals_torchvision_in_float64(float64):
    network = InceptionV3(5, dropout=0.0, dtype=jnp.float64)
    assert_equals_golden(np.load(GOLDEN), network, torchvision.inception_v3, torchvision.inception_v3_sources)


@pytest.mark.slow
def test_training_with_the_auxiliary_head_returns_both(both_heads):
    network, x = inception_v3(7, auxiliary=True, dtype=jnp.bfloat16), jnp.zeros((2, 299, 299, 3))

    def training(variables):
        rngs = {"dropout": jax.random.key(0)}
        return network.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    with jax.numpy_dtype_promotion("strict"):
        outputs = jax.eval_shape(training, both_heads)
    assert [(leaf.shape, leaf.dtype) for leaf in outputs] == [((2, 7), jnp.dtype(jnp.float32))] * 2
    assert jax.eval_shape(lambda v: network.apply(v, x, train=False), both_heads).shape == (2, 7)


def test_a_network_without_auxiliary_head_ignores_the_given_one(both_heads):
    turned = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    flat, sources = traverse_util.flatten_dict(both_heads), torchvision.inception_v3_sources(both_heads)
    arrays = {
        source.name: np.zeros([flat[path].shape[axis] for axis in turned[flat[path].ndim]], np.float32)
        for path, source in sources.items()
    }
    single = {
        name: {key: part for key, part in tree.items() if key != "AuxLogits"} for name, tree in both_heads.items()
    }
    filled = torchvision.inception_v3(arrays, single)
    assert jax.tree.map(jnp.shape, filled) == jax.tree.map(jnp.shape, single)
    without = {name: array for name, array in arrays.items() if "AuxLogits" not in name}
    with pytest.raises(ValueError, match=r"12 missing: AuxLogits\.conv0\."):
        torchvision.inception_v3(without, both_heads)


@pytest.mark.slow
def test_a_block_trains():
    class Network(MixedE):
        def __call__(self, x, *, train):
            return super().__call__(x, train=train).mean((1, 2))

    logits, gradient = trained_once(Network(jnp.float32, BatchNorm, count_border=False), (2, 5, 5, 2))
    assert logits.shape == (2, 2048)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_small_images_are_an_error():
    with pytest.raises(ValueError, match=r"at least 75x75 pixels, not \(74, 80\)"):
        spec_of(inception_v3(), (1, 74, 80, 3))
    with pytest.raises(ValueError, match=r"needs 17x17 features \(299 pixels\), not \(7, 7\)"):
        spec_of(inception_v3(auxiliary=True), (1, 139, 139, 3))

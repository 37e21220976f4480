"""GoogLeNet against torchvision's figures in tests/golden, its heads and its errors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from parity_networks import assert_equals_golden, spec_of, trained_once

from jaxvision.nn.googlenet import AuxiliaryHead, Inception, googlenet
from jaxvision.nn.norm import BatchNorm
from jaxvision.pretrained import torchvision

GOLDEN = Path(__file__).parent / "golden" / "googlenet.npz"


@pytest.fixture(scope="module")
def all_heads():
    """Shapes of the whole network with all heads, for 5 classes."""
    return spec_of(googlenet(5, auxiliary=True), (1, 64, 64, 3))


def test_has_the_published_number_of_parameters(all_heads):
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in all_heads["params"].items()}
    fewer = (1000 - 5) * (1024 + 1)
    assert sum(sizes.values()) == 13_004_888 - 3 * fewer
    assert sum(size for name, size in sizes.items() if "aux" not in name) == 6_624_904 - fewer


@pytest.mark.slow
def test_equals_torchvision_in_float64(float64):
    network = googlenet(5, auxiliary=True, dtype=jnp.float64).clone(dropout=0.0, auxiliary_dropout=0.0)
    flattened = {f"aux{number}.fc1.weight": (128, 4, 4) for number in (1, 2)}
    assert_equals_golden(np.load(GOLDEN), network, torchvision.googlenet, torchvision.googlenet_sources, flattened)


def test_names_and_shapes_are_those_of_torchvision(all_heads):
    shapes = [line.split() for line in np.load(GOLDEN)["shapes"]]
    sources = torchvision.googlenet_sources(all_heads)
    assert sorted(source.name for source in sources.values()) == sorted(name for name, *_ in shapes)
    arrays = {name: np.broadcast_to(np.float32(0), tuple(map(int, sizes))) for name, *sizes in shapes}
    filled = torchvision.googlenet(arrays, all_heads)
    assert jax.tree.map(jnp.shape, filled) == jax.tree.map(jnp.shape, all_heads)
    single = {name: {key: part for key, part in tree.items() if "aux" not in key} for name, tree in all_heads.items()}
    assert jax.tree.map(jnp.shape, torchvision.googlenet(arrays, single)) == jax.tree.map(jnp.shape, single)


def test_training_with_auxiliary_heads_returns_all(all_heads):
    network, x = googlenet(5, auxiliary=True, dtype=jnp.bfloat16), jnp.zeros((2, 64, 64, 3))

    def training(variables):
        rngs = {"dropout": jax.random.key(0)}
        return network.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    with jax.numpy_dtype_promotion("strict"):
        outputs = jax.eval_shape(training, all_heads)
    assert [(leaf.shape, leaf.dtype) for leaf in outputs] == [((2, 5), jnp.dtype(jnp.float32))] * 3


class OneModule(Inception):
    """A module and an auxiliary head on it."""

    @nn.compact
    def __call__(self, x, *, train):
        return AuxiliaryHead(3, 0.7, self.dtype, self.norm)(super().__call__(x, train=train), train=train)


@pytest.mark.slow
def test_a_module_and_an_auxiliary_head_train():
    logits, gradient = trained_once(OneModule((2, 2, 3, 2, 3, 2), jnp.bfloat16, BatchNorm), (2, 9, 9, 2))
    assert logits.shape == (2, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, gradient))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(np.abs(gradient[f"branch{end}"]["conv"]["kernel"]).max() > 0 for end in ("1", "2_1", "3_1", "4"))


def test_small_images_are_an_error():
    with pytest.raises(ValueError, match=r"at least 15x15 pixels, not \(14, 80\)"):
        spec_of(googlenet(), (1, 14, 80, 3))

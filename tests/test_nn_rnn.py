"""Recurrent classifiers against torch's figures in tests/golden, and how an image becomes a sequence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import (
    random_images,
    random_weights,
    rnn_from_torch,
    shapes_of,
    spec_of,
    trained_once,
    trained_types,
)

from jaxvision.nn.rnn import RNNClassifier, patches, rows

GOLDEN = Path(__file__).parent / "golden"
CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_equals_torch_in_float64(float64, cell):
    golden = np.load(GOLDEN / f"{cell}.npz")
    shape = tuple(golden["images_shape"])
    x = jnp.asarray(random_images(shape, 5, int(golden["seed"]) + 1)[0])
    network = RNNClassifier(5, CELLS[cell], hidden=8, layers=2, dtype=jnp.float64)
    variables = rnn_from_torch(random_weights(shapes_of(golden), int(golden["seed"])), cell)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, spec_of(network, shape))
    assert_allclose(jax.jit(lambda v: network.apply(v, x, train=False))(variables), golden["logits"], rtol=1e-9)


@pytest.mark.parametrize("cell", list(CELLS.values()), ids=CELLS)
def test_half_precision_keeps_logits_and_gradients_in_float32(cell):
    network = RNNClassifier(5, cell, hidden=4, patch=4, dtype=jnp.bfloat16)
    assert trained_types(network, (2, 8, 12, 3)) == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("cell", list(CELLS.values()), ids=CELLS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains(cell, dtype):
    _, gradient = trained_once(RNNClassifier(5, cell, hidden=4, patch=4, dtype=dtype), (2, 8, 12, 3))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["layer1"]["hi" if "hi" in gradient["layer1"] else "hr"]["kernel"]).max() > 0


def test_sequences_are_in_reading_order():
    images = jnp.arange(2 * 4 * 6 * 2.0).reshape(2, 4, 6, 2)
    assert_array_equal(rows(images)[1, 2], np.ravel(images[1, 2]))
    squares = patches(images, 2)
    assert squares.shape == (2, 6, 8)
    assert_array_equal(squares[1, 4], np.ravel(images[1, 2:4, 2:4]))


def test_images_that_are_not_whole_patches_are_an_error():
    with pytest.raises(ValueError, match=r"images of \(4, 6\) pixels are not whole patches of 4"):
        patches(jnp.zeros((1, 4, 6, 1)), 4)

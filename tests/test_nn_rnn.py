"""Recurrent classifiers against torch's figures in tests/golden, and how an image becomes a sequence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import random_images, random_weights, shapes_of, spec_of, trained_once

from jaxvision.nn.rnn import RNNClassifier, patches, rows

GOLDEN = Path(__file__).parent / "golden"
CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


def from_torch(weights, cell):
    """Our parameters: torch stacks the gates of a layer, and has a bias before and one behind."""
    params = {"head": {"kernel": weights["head.weight"].T, "bias": weights["head.bias"]}}
    gates = "ifgo" if cell == "lstm" else "rzn"
    for layer in (0, 1):
        split = {
            name: np.split(weights[f"rnn.{name}_l{layer}"], len(gates))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        own = params[f"layer{layer + 1}"] = {}
        for number, gate in enumerate(gates):
            own[f"i{gate}"] = {"kernel": split["weight_ih"][number].T}
            own[f"h{gate}"] = {"kernel": split["weight_hh"][number].T}
            before, behind = split["bias_ih"][number], split["bias_hh"][number]
            if cell == "gru" and gate == "n":
                own["in"]["bias"], own["hn"]["bias"] = before, behind
            else:
                own[f"{'h' if cell == 'lstm' else 'i'}{gate}"]["bias"] = before + behind
    return {"params": params}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_equals_torch_in_float64(float64, cell):
    golden = np.load(GOLDEN / f"{cell}.npz")
    shape = tuple(golden["images_shape"])
    x = jnp.asarray(random_images(shape, 5, int(golden["seed"]) + 1)[0])
    network = RNNClassifier(5, CELLS[cell], hidden=8, layers=2, dtype=jnp.float64)
    variables = from_torch(random_weights(shapes_of(golden), int(golden["seed"])), cell)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, spec_of(network, shape))
    assert_allclose(jax.jit(lambda v: network.apply(v, x, train=False))(variables), golden["logits"], rtol=1e-9)


@pytest.mark.parametrize("cell", list(CELLS.values()), ids=CELLS)
@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.bfloat16])
def test_trains_and_keeps_logits_and_gradients_in_float32(cell, dtype):
    logits, gradient = trained_once(RNNClassifier(5, cell, hidden=4, patch=4, dtype=dtype), (2, 8, 12, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, gradient))} == {jnp.dtype(jnp.float32)}
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

"""The network for folders of photos: torch's figures in tests/golden, its size, dropout and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_networks import assert_equals_golden, parameter_count, trained_once, trained_types

from jaxvision.nn.cnn import FolderCNN
from jaxvision.pretrained.torch_layout import dense_kernel_after_flatten, fill_network, module_sources

GOLDEN = Path(__file__).parent / "golden" / "folder_cnn.npz"


def sources_of(variables):
    names = {"conv1": "0", "conv2": "3", "conv3": "6", "dense": "10", "head": "13"}
    return module_sources(variables, names.__getitem__, {"dense": dense_kernel_after_flatten(8, 2, 3)})


def test_150_pixels_have_the_parameters_of_the_docstring():
    convolutions = 3 * 9 * 32 + 32 + 32 * 9 * 64 + 64 + 64 * 9 * 128 + 128
    dense = 17 * 17 * 128 * 1024 + 1024 + 1024 * 2 + 2
    assert parameter_count(FolderCNN(2), 150) == convolutions + dense == 37_976_130


def test_equals_torch_in_float64(float64):
    network = FolderCNN(5, channels=(4, 6, 8), hidden=16, dropout=0.0, dtype=jnp.float64)
    load = lambda weights, spec: fill_network(sources_of(spec), weights, spec)
    assert_equals_golden(np.load(GOLDEN), network, load, sources_of, {"10.weight": (8, 2, 3)})


def test_half_precision_keeps_logits_and_gradients_in_float32():
    network = FolderCNN(5, channels=(4, 4), hidden=8, dtype=jnp.bfloat16)
    assert trained_types(network, (2, 12, 12, 3)) == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains_with_dropout(dtype):
    _, gradient = trained_once(FolderCNN(5, channels=(4, 4), hidden=8, dtype=dtype), (2, 12, 12, 3))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["conv1"]["kernel"]).max() > 0

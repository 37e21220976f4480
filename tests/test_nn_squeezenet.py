"""SqueezeNet against torchvision's figures in tests/golden, and what it promises of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_networks import assert_equals_golden, parameter_count, spec_of, trained_once

from jaxvision.nn import squeezenet
from jaxvision.pretrained import torchvision

GOLDEN = Path(__file__).parent / "golden" / "squeezenet.npz"


def small(**options):
    return squeezenet.SqueezeNet(((2, 2), (4,)), 8, 3, 5, **options)


@pytest.mark.parametrize(("name", "count"), [("squeezenet1_0", 1_248_424), ("squeezenet1_1", 1_235_496)])
def test_has_the_published_number_of_parameters(name, count):
    assert parameter_count(getattr(squeezenet, name)(), 224) == count


def test_equals_torchvision_in_float64(float64):
    network = small(dropout=0.0, dtype=jnp.float64)
    assert_equals_golden(np.load(GOLDEN), network, torchvision.squeezenet, torchvision.squeezenet_sources)


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_names_are_those_of_torchvision(name):
    sources = torchvision.squeezenet_sources(spec_of(getattr(squeezenet, name)(), (1, 64, 64, 3)))
    fires = {"squeezenet1_0": (3, 4, 5, 7, 8, 9, 10, 12), "squeezenet1_1": (3, 4, 6, 7, 9, 10, 11, 12)}[name]
    squeezes = {source.name for source in sources.values() if "squeeze.weight" in source.name}
    assert squeezes == {f"features.{index}.squeeze.weight" for index in fires}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains_with_dropout_and_keeps_logits_and_gradients_in_float32(dtype):
    logits, gradient = trained_once(small(dtype=dtype), (2, 24, 24, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, gradient))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["stem_conv"]["kernel"]).max() > 0


def test_a_module_that_torchvision_has_not_is_named():
    spec = spec_of(small(), (1, 24, 24, 3))
    with pytest.raises(ValueError, match="no counterpart of 'neck'"):
        torchvision.squeezenet({}, {"params": {**spec["params"], "neck": {"bias": np.zeros(2)}}})

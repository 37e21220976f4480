"""A new head on a backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import filled, spec_of, trained_once

from jaxvision.nn import resnet, vgg
from jaxvision.nn.head import Head, WithHead


def test_is_two_dense_layers_of_the_averages():
    features = np.random.RandomState(0).standard_normal((2, 3, 4, 6))
    head = Head(5, hidden=7, dtype=jnp.float32)
    variables = filled(jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((1, 2, 2, 6)), train=False)))
    dense, logits = (jax.tree.map(np.asarray, variables["params"][name]) for name in ("dense", "logits"))
    hidden = np.maximum(features.mean((1, 2)) @ dense["kernel"] + dense["bias"], 0)
    expected = hidden @ logits["kernel"] + logits["bias"]
    given = jnp.asarray(features, jnp.float32)
    assert_allclose(head.apply(variables, given, train=False), expected, rtol=1e-5, atol=1e-5)
    assert_allclose(head.apply(variables, given.mean((1, 2)), train=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", [vgg.Backbone((1, 1), (4, 8)), resnet.resnet18(None, width=4)])
def test_any_backbone_takes_it(backbone):
    spec = spec_of(WithHead(backbone, Head(2)), (1, 32, 32, 3))
    assert sorted(spec["params"]) == ["backbone", "head"]
    assert spec["params"]["head"]["dense"]["kernel"].shape[1] == 1024
    assert spec["params"]["head"]["logits"]["kernel"].shape == (1024, 2)


def test_trains():
    logits, gradient = trained_once(WithHead(vgg.Backbone((1,), (4,)), Head(3, hidden=5)), (2, 4, 4, 3))
    assert logits.shape == (2, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

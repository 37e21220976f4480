"""ConvNeXt against torchvision's figures in tests/golden, and what it promises of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_networks import assert_equals_golden, parameter_count, spec_of, trained_once, trained_types

from jaxvision.nn import convnext
from jaxvision.pretrained import torchvision

GOLDEN = Path(__file__).parent / "golden" / "convnext.npz"


def small(**options):
    return convnext.ConvNeXt(convnext.Backbone((1, 2, 1), width=8, **options), 5)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("convnext_tiny", 28_589_128),
        pytest.param("convnext_small", 50_223_688, marks=pytest.mark.slow),
        pytest.param("convnext_base", 88_591_464, marks=pytest.mark.slow),
    ],
)
def test_has_the_published_number_of_parameters(name, count):
    assert parameter_count(getattr(convnext, name)(), 224) == count


@pytest.mark.slow
def test_equals_torchvision_in_float64(float64):
    network = small(dtype=jnp.float64)
    assert_equals_golden(np.load(GOLDEN), network, torchvision.convnext, torchvision.convnext_sources)


def test_half_precision_keeps_logits_and_gradients_in_float32():
    assert trained_types(small(dtype=jnp.bfloat16, stochastic_depth=0.2), (2, 16, 16, 3)) == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains_with_stochastic_depth(dtype):
    _, gradient = trained_once(small(dtype=dtype, stochastic_depth=0.2), (2, 16, 16, 3))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["backbone"]["stage1_block1"]["layer_scale"]).max() > 0


def test_backbone_gives_a_map_for_each_stage():
    backbone = convnext.convnext_tiny(width=8).backbone
    maps = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 64, 96, 3))
    )
    assert [leaf.shape[1:] for leaf in maps] == [(16, 24, 8), (8, 12, 16), (4, 6, 32), (2, 3, 64)]


def test_a_block_starts_almost_as_its_shortcut():
    block, x = convnext.Block(jnp.float32, 0.0), jnp.zeros((1, 2, 2, 4))
    scale = jax.jit(lambda: block.init(jax.random.key(0), x, train=False)["params"]["layer_scale"])()
    np.testing.assert_array_equal(scale, np.full(4, 1e-6, np.float32))


def test_new_classes_keep_the_own_head_and_what_does_not_fit_is_named():
    shapes = [line.split() for line in np.load(GOLDEN)["shapes"]]
    arrays = {name: np.ones(tuple(map(int, sizes)), np.float32) for name, *sizes in shapes}
    own = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec_of(small().clone(classes=7), (1, 16, 16, 3)))
    filled = torchvision.convnext(arrays, own, head=False)
    assert not filled["params"]["head"]["kernel"].any()
    assert all(leaf.all() for leaf in jax.tree.leaves(filled["params"]["backbone"]))
    with pytest.raises(ValueError, match=r"classifier\.2\.weight \(5, 32\)"):
        torchvision.convnext(arrays, own)
    with pytest.raises(ValueError, match="no counterpart of 'neck'"):
        torchvision.convnext({}, {"params": {**own["params"], "neck": {"bias": np.zeros(2)}}})

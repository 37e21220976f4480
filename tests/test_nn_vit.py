"""Vision transformers against timm's figures in tests/golden, and what they promise of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import assert_equals_golden, filled, parameter_count, spec_of, trained_once

from jaxvision.nn import vit
from jaxvision.pretrained import timm

GOLDEN = Path(__file__).parent / "golden" / "vit.npz"


def small(**options):
    return vit.ViT(**{"patch": 4, "width": 16, "depth": 2, "heads": 2, "classes": 5, **options})


@pytest.mark.parametrize(
    ("name", "patch", "count"),
    [
        ("vit_tiny", 16, 5_717_416),
        ("vit_small", 16, 22_050_664),
        ("vit_base", 16, 86_567_656),
        ("vit_large", 16, 304_326_632),
        ("vit_small", 14, 22_004_584),
        ("vit_large", 14, 304_203_752),
    ],
)
def test_has_the_published_number_of_parameters(name, patch, count):
    assert parameter_count(getattr(vit, name)(patch=patch), 224) == count


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_equals_timm_in_float64(float64, remat):
    network = small(dtype=jnp.float64, remat=remat)
    assert_equals_golden(np.load(GOLDEN), network, timm.vit, timm.vit_sources)


@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.bfloat16])
def test_trains_and_keeps_logits_and_gradients_in_float32(dtype):
    logits, gradient = trained_once(small(dtype=dtype, depth=1), (2, 8, 8, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, gradient))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["positions"]).max() > 0


def test_bfloat16_is_near_float32():
    x = jnp.asarray(np.random.RandomState(0).standard_normal((2, 8, 8, 3)), jnp.float32)
    variables = filled(spec_of(small(depth=1), x.shape))
    run = lambda dtype: jax.jit(lambda v: small(dtype=dtype, depth=1).apply(v, x, train=False))(variables)
    fine, coarse = run(jnp.float32), run(jnp.bfloat16)
    assert_allclose(coarse, fine, atol=0.05 * np.abs(fine).max())


def test_images_that_are_not_whole_patches_are_an_error():
    with pytest.raises(ValueError, match=r"images of \(8, 10\) pixels are not whole patches of 4"):
        spec_of(small(), (1, 8, 10, 3))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="16 channels do not form 3 heads"):
        spec_of(small(heads=3), (1, 8, 8, 3))


def test_a_module_that_timm_has_not_is_named():
    with pytest.raises(ValueError, match="no counterpart of 'neck'"):
        timm.vit({}, {"params": {"neck": {"bias": np.zeros(2)}}})

"""Vision transformers against timm's figures in tests/golden, and what they promise of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from parity_networks import assert_equals_golden, filled, parameter_count, spec_of, trained_once, trained_types
from scipy.special import softmax

from jaxvision.nn import vit
from jaxvision.pretrained import timm

GOLDEN = Path(__file__).parent / "golden" / "vit.npz"


def small(**options):
    return vit.ViT(**{"patch": 4, "width": 16, "depth": 2, "heads": 2, "classes": 5, **options})


@pytest.mark.parametrize(
    ("name", "patch", "count"),
    [
        ("vit_tiny", 16, 5_717_416),
        pytest.param("vit_small", 16, 22_050_664, marks=pytest.mark.slow),
        pytest.param("vit_base", 16, 86_567_656, marks=pytest.mark.slow),
        pytest.param("vit_large", 16, 304_326_632, marks=pytest.mark.slow),
        ("vit_small", 14, 22_004_584),
        pytest.param("vit_large", 14, 304_203_752, marks=pytest.mark.slow),
    ],
)
def test_has_the_published_number_of_parameters(name, patch, count):
    assert parameter_count(getattr(vit, name)(patch=patch), 224) == count


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_equals_timm_in_float64(float64, remat):
    network = small(dtype=jnp.float64, remat=remat)
    assert_equals_golden(np.load(GOLDEN), network, timm.vit, timm.vit_sources)


def test_half_precision_keeps_logits_and_gradients_in_float32():
    assert trained_types(small(dtype=jnp.bfloat16, stochastic_depth=0.1), (2, 8, 8, 3)) == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_trains(dtype):
    _, gradient = trained_once(small(dtype=dtype, depth=1), (2, 8, 8, 3))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["positions"]).max() > 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.03), ("float16", 0.005)]
)
def test_attention_and_its_gradient_equal_scipy_and_float64(float64, dtype, tolerance):
    random = np.random.RandomState(0)
    given = [jnp.asarray(3 * random.standard_normal((2, 5, 3, 4)), dtype) for _ in "qkv"]
    cotangent = random.standard_normal((2, 5, 3, 4))

    def run(attend, dtype):
        def total(*qkv):
            attended = attend(*qkv)
            return (attended.astype(jnp.float64) * cotangent).sum(), attended

        gradient, attended = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(
            *(x.astype(dtype) for x in given)
        )
        assert {x.dtype for x in (attended, *gradient)} == {jnp.dtype(dtype)}
        return [np.asarray(x, np.float64) for x in (attended, *gradient)]

    def formula(query, key, value):
        weights = jnp.exp(jnp.einsum("bqhd,bkhd->bhqk", query, key) / 2)
        return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)

    query, key, value = (np.asarray(x, np.float64) for x in given)
    expected = np.einsum("bhqk,bkhd->bqhd", softmax(np.einsum("bqhd,bkhd->bhqk", query, key) / 2, -1), value)
    written_out = run(formula, jnp.float64)
    assert_allclose(written_out[0], expected, rtol=1e-12)
    for ours, theirs in zip(run(vit.attention, dtype), written_out, strict=True):
        assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


def test_float32_and_bfloat16_take_the_attention_of_jax():
    given = jax.ShapeDtypeStruct((2, 5, 3, 4), jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        text = str(jax.make_jaxpr(vit.attention)(given, given, given))
    assert "BF16_BF16_F32" in text


@pytest.mark.slow
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

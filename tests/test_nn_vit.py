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


def test_bfloat16_takes_the_attention_of_jax():
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


def test_the_maps_of_the_backbone_are_made_from_its_last_as_pytorch_would(float64):
    torch = pytest.importorskip("torch")
    network = vit.vit_tiny(width=16, depth=2, heads=2, patch=4, dtype=jnp.float64).backbone.clone(grid=3)
    images = np.random.RandomState(0).standard_normal((2, 12, 12, 3))
    variables = filled(jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images))
    fine, middle, last, coarse = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, images)

    def deconvolved(x, layer):
        kernel = torch.from_numpy(np.asarray(layer["kernel"]).transpose(2, 3, 0, 1))
        return torch.nn.functional.conv_transpose2d(x, kernel, torch.from_numpy(np.asarray(layer["bias"])), stride=2)

    params = variables["params"]
    x = torch.from_numpy(np.asarray(last).transpose(0, 3, 1, 2))
    norm = [torch.from_numpy(np.asarray(params["up4_norm"][name])) for name in ("scale", "bias")]
    inside = deconvolved(x, params["up4_1"]).permute(0, 2, 3, 1)
    inside = torch.nn.functional.layer_norm(inside, (8,), *norm, eps=1e-6).permute(0, 3, 1, 2)
    expected = (
        deconvolved(torch.nn.functional.gelu(inside), params["up4_2"]),
        deconvolved(x, params["up2"]),
        torch.nn.functional.max_pool2d(x, 2),
    )
    for ours, theirs in zip((fine, middle, coarse), expected, strict=True):
        assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-12)


def test_the_last_map_of_the_backbone_is_what_the_classifier_looks_at(float64):
    network = small(dtype=jnp.float64)
    images = np.random.RandomState(0).standard_normal((1, 12, 12, 3))
    variables = filled(jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images))
    backbone = network.backbone.clone(grid=3)
    spec = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, train=False), images)
    assert set(spec["params"]) - set(variables["params"]) == {"up4_1", "up4_norm", "up4_2", "up2"}
    params = {**filled(spec)["params"], **variables["params"]}
    _, kept = jax.jit(lambda v, x: network.apply(v, x, train=False, capture_intermediates=True))(variables, images)
    last = jax.jit(lambda p, x: backbone.apply({"params": p}, x, train=False))(params, images)[2]
    tokens = kept["intermediates"]["block2"]["__call__"][0]
    assert_allclose(last, np.asarray(tokens)[:, 1:].reshape(1, 3, 3, 16), atol=1e-12)


def test_positions_are_interpolated_as_timm_does():
    torch = pytest.importorskip("torch")
    positions = np.random.RandomState(0).standard_normal((1, 17, 6)).astype(np.float32)
    square = torch.from_numpy(positions[:, 1:].reshape(1, 4, 4, 6).transpose(0, 3, 1, 2))
    for grid in ((6, 9), (3, 2)):
        theirs = torch.nn.functional.interpolate(square, size=grid, mode="bicubic", antialias=True)
        found = np.asarray(vit.interpolated(jnp.asarray(positions), 4, grid))
        assert_allclose(found[:, 1:], theirs.numpy().transpose(0, 2, 3, 1).reshape(1, -1, 6), atol=1e-5)
        assert_allclose(found[:, :1], positions[:, :1])
    assert vit.interpolated(positions, 4, (4, 4)) is positions  # type: ignore[arg-type]


def test_patches_that_four_does_not_divide_make_no_pyramid():
    with pytest.raises(ValueError, match="patches of 14 pixels: allowed are multiples of 4"):
        _ = vit.vit_small(patch=14).backbone.strides

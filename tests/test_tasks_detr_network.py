"""DETR's layers against loops in NumPy, and all of it against transformers' figures in tests/golden."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_detr
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose
from parity_networks import UNOPTIMISED, filled, shapes_of
from scipy.special import softmax

from jaxvision.nn import positions, resnet
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import strict
from jaxvision.pretrained.detr import detr_sources
from jaxvision.tasks import detr
from jaxvision.tasks.detr import DETR, Attention, Drop, detr_resnet50

GOLDEN = Path(__file__).parent / "golden" / "detr.npz"


def small(dtype=jnp.float32, **options):
    backbone = resnet.Backbone(resnet.BasicBlock, (1,), width=4, stem="cifar", norm=FrozenBatchNorm, dtype=dtype)
    sizes = {"queries": 3, "width": 8, "heads": 2, "hidden": 8, "encoder_layers": 1, "decoder_layers": 2}
    return DETR(backbone, 2, dtype=dtype, **(sizes | options))


def inputs(count=2):
    images = np.random.RandomState(0).standard_normal((count, 4, 5, 3))
    return jnp.asarray(images, jnp.float32), jnp.tile(jnp.int32([[3, 4]]), (count, 1))


def test_sine_positions_equal_the_formula():
    extent, shape, width = [[3, 5], [4, 2]], (4, 5), 12
    found = np.asarray(jax.jit(lambda x: positions.sine(x, shape, width))(jnp.int32(extent)))
    for b, (rows, columns) in enumerate(extent):
        for y in range(rows):
            for x in range(columns):
                expected = []
                for share in ((y + 1) / rows, (x + 1) / columns):
                    for i in range(width // 4):
                        angle = 2 * np.pi * share / 10000 ** (2 * i / (width // 2))
                        expected += [np.sin(angle), np.cos(angle)]
                assert_allclose(found[b, y, x], expected, atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        positions.sine(jnp.int32(extent), shape, 6)


def test_attention_equals_scipy_and_leaves_out_what_is_not_valid(float64):
    random = np.random.RandomState(0)
    q, k, v = (jnp.asarray(random.standard_normal((2, n, 6))) for n in (3, 5, 5))
    valid = np.array([[True, True, False, True, False], [True] * 5])
    layer = Attention(heads=2, dtype=jnp.float64)
    whole = lambda weights: weights
    params = filled(jax.eval_shape(lambda: layer.init(jax.random.key(0), q, k, v, drop=whole)))
    run = lambda k, v: layer.apply(params, q, k, v, jnp.asarray(valid), drop=whole)
    loss = lambda k, v: (jnp.square(run(k, v)).sum(), run(k, v))
    (of_key, of_value), found = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=UNOPTIMISED)(k, v)
    numbers = jax.tree.map(np.asarray, params["params"])
    dense = {name: lambda x, own=own: np.asarray(x) @ own["kernel"] + own["bias"] for name, own in numbers.items()}
    expected = np.zeros((2, 3, 6))
    for b in range(2):
        for head in (slice(0, 3), slice(3, 6)):
            asked, keys, values = (dense[n](x[b])[:, head] for n, x in (("query", q), ("key", k), ("value", v)))
            there = valid[b]
            expected[b, :, head] = softmax(asked @ keys[there].T / np.sqrt(3), axis=-1) @ values[there]
    assert_allclose(found, dense["output"](expected), rtol=1e-9)
    assert not np.asarray(of_key)[0, 2].any()
    assert not np.asarray(of_value)[0, 4].any()
    assert np.asarray(of_value)[0, 3].all()


def test_all_of_it_equals_transformers(float64):
    with np.load(GOLDEN) as golden:
        network, size = parity_detr.network_of(parity_detr.SMALL), jnp.asarray(parity_detr.SIZES, jnp.int32)
        images = jnp.asarray(parity_detr.normalised())
        spec = jax.eval_shape(lambda: network.init(jax.random.key(0), images, size, train=False))
        variables = strict.load(detr_sources(spec), parity_detr.weights_of(shapes_of(golden)), spec).variables
        run = jax.jit(lambda v: network.apply(v, images, size, train=False), compiler_options=UNOPTIMISED)
        found = run(variables)
        assert found.logits.dtype == np.float64
        assert_allclose(found.logits, golden["logits"], rtol=0, atol=1e-9)
        assert_allclose(found.boxes, golden["boxes"], rtol=0, atol=1e-9)


def test_detr_r50_has_the_published_number_of_parameters():
    network = detr_resnet50(91)
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.int32([[64, 64]]), train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 41_524_768


def test_dropout_is_drawn_from_the_key():
    network, given = small(dropout=0.3, decoder_layers=1), inputs()
    variables = filled(jax.eval_shape(lambda: network.init(jax.random.key(0), *given, train=False)))
    draw = lambda key: network.apply(variables, *given, train=True, rngs={"dropout": key}).logits
    draw = jax.jit(draw, compiler_options=UNOPTIMISED)
    one = draw(jax.random.key(1))
    assert not np.allclose(one, draw(jax.random.key(2)))
    assert np.array_equal(one, draw(jax.random.key(1)))


def test_dropout_of_each_array_is_of_its_own_numbers():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, y, train):
            drop = Drop(self, 0.25, 50 * 40 + 300, x, train)
            return drop(x), drop(y)

    given = jnp.full((2, 50, 40), 3.0), jnp.ones((2, 300))
    apply = lambda train: Layer().apply({}, *given, train, rngs={"dropout": jax.random.key(0)})
    for found, was in zip(apply(True), given, strict=True):
        kept = np.asarray(found) != 0
        assert_allclose(np.asarray(found)[kept], np.asarray(was)[kept] / 0.75, rtol=1e-6)
        assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / kept.size)
    x, y = (np.asarray(each).reshape(2, -1)[:, :300] != 0 for each in apply(True))
    assert abs((x == y).mean() - 0.625) < 0.1  # as of two draws
    assert all(found is was for found, was in zip(apply(False), given, strict=True))


def test_each_layer_draws_as_many_numbers_as_it_uses(monkeypatch):
    made = []

    class Noted(Drop):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(detr, "Drop", Noted)
    network, given = small(dropout=0.1), inputs()
    jax.eval_shape(
        lambda: network.init({name: jax.random.key(0) for name in ("params", "dropout")}, *given, train=True)
    )
    assert len(made) == 3
    assert all(each.drawn.shape == (2, each.used) for each in made)


def test_half_precision_keeps_outputs_and_gradients_in_float32():
    network, given = small(jnp.bfloat16, dropout=0.1), inputs()

    def loss(params, rest):
        outputs = network.apply({"params": params, **rest}, *given, train=True, rngs={"dropout": jax.random.key(0)})
        return outputs.logits.sum() + outputs.boxes.sum()

    with jax.numpy_dtype_promotion("strict"):
        variables = jax.eval_shape(lambda: network.init(jax.random.key(0), *given, train=False))
        rest = {"batch_stats": variables["batch_stats"]}
        found = jax.eval_shape(jax.value_and_grad(loss), variables["params"], rest)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="8 channels do not form 3 heads"):
        jax.eval_shape(lambda: small(heads=3).init(jax.random.key(0), *inputs(), train=False))

"""What a preflight says an optimizer does with each parameter, against what it was told to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import optimize
from jaxvision.nn.vit import ViT
from jaxvision.optimize.patterns import names
from jaxvision.run.preflight import check, cost
from jaxvision.run.preflight.treatment import treatments

STEPS = 100
LAYERS = ("patches/.*|class_token|positions", "block1/.*", "block2/.*", "norm/.*|head/.*")


@pytest.fixture(scope="module")
def params():
    network = ViT(patch=4, width=8, depth=2, heads=2, classes=3)
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)["params"]


@pytest.fixture
def told(params):
    def by_name(optimizer):
        every = treatments(optimizer, params, STEPS)
        return dict(zip(jax.tree.leaves(names(params)), every, strict=True))

    return by_name


def mae_layer(name, depth):
    """`get_layer_id_for_vit` of MAE's lr_decay.py (arXiv:2111.06377), by our names."""
    if name in ("class_token", "positions") or name.startswith("patches"):
        return 0
    return int(name.split("/")[0].removeprefix("block")) if name.startswith("block") else depth + 1


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, STEPS), weight_decay=0.05, mask=optimize.kernels),
        optax.chain(optax.add_decayed_weights(1e-4, mask=optimize.kernels), optax.sgd(0.1, momentum=0.9)),
        optax.lamb(optax.cosine_onecycle_schedule(STEPS, 1e-3), weight_decay=0.1, mask=optimize.kernels),
        optax.lion(1e-4, weight_decay=0.1, mask=optimize.kernels),
    ],
    ids=["adamw", "sgd", "lamb", "lion"],
)
def test_layerwise_rates_are_those_of_mae_and_only_kernels_decay(told, optimizer):
    rates = optimize.rates(optimize.layerwise(0.75, LAYERS))
    for name, treatment in told(optax.chain(optax.clip_by_global_norm(1.0), optimizer, rates)).items():
        assert treatment.rate == pytest.approx(0.75 ** (3 - mae_layer(name, 2)), rel=1e-5), name
        assert treatment.decays == name.endswith("/kernel"), name
        assert treatment.group == ""


def test_layerwise_factors_are_powers_from_the_head_down():
    assert optimize.layerwise(0.5, LAYERS) == dict(zip(LAYERS, (0.125, 0.25, 0.5, 1.0), strict=True))


def test_a_mask_by_pattern_a_plateau_and_groups_in_a_chain_are_told(told):
    body = optax.adamw(1e-3, weight_decay=0.1, mask=optimize.matching("positions", ".*/kernel"))
    groups = optimize.by_group({"head/.*": optax.adam(1e-2), ".*": body})
    every = told(optax.chain(groups, optax.contrib.reduce_on_plateau(patience=3)))
    assert {name for name, each in every.items() if each.decays} == {
        name for name in every if (name.endswith("kernel") and not name.startswith("head")) or name == "positions"
    }
    for name, each in every.items():
        head = name.startswith("head/")
        assert each.group == ("head/.*" if head else ".*")
        assert each.rate == pytest.approx(1.0 if head else 0.1, rel=1e-5)


def test_an_optimizer_that_cannot_be_tried_is_no_fault(told):
    def whole_shapes(updates, params):
        return jax.tree.map(lambda x: x.reshape(-1, 4)[1], updates)

    every = told(optax.stateless(whole_shapes))
    assert {each[1:] for each in every.values()} == {(None, None)}
    some = [cost.Parameter(name, (2, 3), treatment) for name, treatment in every.items()]
    assert check._how(some) == ["yes", "?", "?"]


def test_rates_multiply_the_updates_and_the_decay(float64):
    params = {"body": {"kernel": np.full((2, 2), 3.0)}, "head": {"kernel": np.full(2, 5.0), "bias": np.full(2, 7.0)}}
    gradient = jax.tree.map(lambda x: x / 4, params)
    inner = optax.adamw(1e-2, weight_decay=0.3, mask=optimize.kernels)
    optimizer = optax.chain(inner, optimize.rates({"head/.*": 10.0, ".*": 0.5}))
    got, _ = optimizer.update(gradient, optimizer.init(params), params)
    plain, _ = inner.update(gradient, inner.init(params), params)
    np.testing.assert_allclose(got["body"]["kernel"], 0.5 * plain["body"]["kernel"], rtol=1e-12)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(got["head"][name], 10 * plain["head"][name], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimize.rates({"hed/.*": 2.0, ".*": 1.0}), r"rates: 'hed/\.\*' matches no parameter; .* head/"),
        (lambda: optimize.rates({"head/.*": 2.0}), "rates: no pattern matches block1/.* more; there are 'head/"),
        (lambda: optimize.rates({".*": 2.0, "head/.*": 1.0}), r"'head/\.\*' gets no parameter: earlier patterns take"),
        (lambda: optimize.rates({"head/.*": 0.0}), r"the factor of 'head/\.\*' is 0.0; it must be positive"),
        (lambda: optimize.layerwise(1.5, LAYERS), "decay is 1.5; it must be more than 0 and at most 1"),
        (lambda: optimize.layerwise(0.5, ("a", "b", "a")), "a pattern is given twice in 'a', 'b', 'a'"),
        (
            lambda: optax.masked(optax.sgd(1.0), optimize.matching("position")),
            "matching: 'position' matches no parameter; the nearest names are positions",
        ),
    ],
)
def test_patterns_that_miss_and_factors_that_are_not_allowed_are_refused(params, make, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make().init, params)

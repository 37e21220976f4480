"""Stochastic depth: what becomes of each example, the mean over keys, which blocks have it, and nothing at rate 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose
from parity_networks import filled, spec_of

from jaxvision.nn import mobilenet, resnet, vit
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.nn.stochastic_depth import StochasticDepth, linear_rates

RATE, KEYS = 0.3, 3000


def convolutional(block):
    own = {"expansion": 2, "kernel": 3, "padding": "symmetric", "channels": 4}
    if block is not mobilenet.InvertedResidual:
        own = {"channels": 4 // block.expansion, "last_scale": nn.initializers.ones, "groups": 1, "width_per_group": 64}
        own |= {"bias": False, "stride_first": False}
    return block(**own, stride=1, dtype=jnp.float32, norm=FrozenBatchNorm, drop=RATE)


class OneBranch(vit.Block):
    """A transformer block whose other branch is zero."""

    @nn.compact
    def __call__(self, x, *, train):
        return super().__call__(x)


def block_of(name):
    """A block, its variables, and large positive input, on which no last ReLU acts."""
    if name in ("attention", "dense"):
        block, x = OneBranch(2, jnp.float32, RATE), np.random.RandomState(0).standard_normal((3, 4, 4))
    else:
        kinds = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck, "inverted": mobilenet.InvertedResidual}
        block, x = convolutional(kinds[name]), 9 + np.random.RandomState(0).standard_normal((3, 4, 4, 4))
    x = jnp.asarray(x, jnp.float32)
    spec = jax.eval_shape(lambda: block.clone(drop=0.0).init(jax.random.key(0), x, train=False))
    variables = filled(spec)
    for other in {"attention": ["dense2"], "dense": ["projection"]}.get(name, []):
        variables["params"][other] = jax.tree.map(jnp.zeros_like, variables["params"][other])
    return block, variables, x


@pytest.mark.parametrize(
    "name",
    ["attention", *(pytest.param(n, marks=pytest.mark.slow) for n in ("bottleneck", "basic", "inverted", "dense"))],
)
def test_every_example_keeps_or_loses_its_branch_and_the_mean_is_the_whole(name):
    block, variables, x = block_of(name)

    @jax.jit
    def run(keys):
        train = lambda key: block.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0]
        return jax.vmap(train)(keys), block.clone(drop=0.0).apply(variables, x, train=False)

    outcomes, whole = jax.tree.map(lambda y: np.asarray(y, np.float64), run(jax.random.split(jax.random.key(0), KEYS)))
    branch = whole - np.asarray(x)
    axes = tuple(range(1, branch.ndim))
    assert (np.abs(branch).max(axes) > 0.1).all()
    kept = ((outcomes - np.asarray(x)) * branch).sum(tuple(a + 1 for a in axes)) / (branch**2).sum(axes)
    assert_allclose(kept, np.where(kept > 0.5, 1 / (1 - RATE), 0), atol=1e-4)
    expected = np.asarray(x) + kept.reshape(KEYS, 3, *[1] * len(axes)) * branch
    assert_allclose(outcomes, expected, atol=1e-3)
    assert_allclose(kept.mean(0), 1, atol=5 * np.sqrt(RATE / (1 - RATE) / KEYS))
    off_diagonal = np.corrcoef(kept.T)[np.triu_indices(3, 1)]
    assert_allclose(off_diagonal, 0, atol=5 / np.sqrt(KEYS))


def residual(rate=0.0):
    return resnet.ResNet(resnet.Backbone(resnet.BasicBlock, (2, 1), width=4, stochastic_depth=rate), 3)


def inverted(rate=0.0):
    stages = (mobilenet.Stage(1, 8, 2, 1), mobilenet.Stage(2, 8, 2, 2))
    return mobilenet.MobileNet(mobilenet.Backbone(stages, stem=8, stochastic_depth=rate), 3, last=8, dropout=0.0)


def transformer(rate=0.0, remat=False):
    return vit.ViT(patch=16, width=8, depth=3, heads=2, classes=3, remat=remat, stochastic_depth=rate)


NETWORKS = pytest.mark.parametrize(
    "network", [residual, *(pytest.param(n, marks=pytest.mark.slow) for n in (inverted, transformer))]
)


def applied(network, train, rngs=None):
    """The whole computation as text."""
    x = jnp.zeros((2, 32, 32, 3))
    variables = spec_of(network, x.shape)
    return str(
        jax.make_jaxpr(lambda v: network.apply(v, x, train=train, mutable=["batch_stats"], rngs=rngs))(variables)
    )


@NETWORKS
def test_evaluation_and_rate_0_draw_nothing_and_parameters_are_the_same(network):
    assert applied(network(0.5), train=False) == applied(network(), train=False)
    assert "random" not in applied(network(), train=True)
    assert "random" in applied(network(0.5), train=True, rngs={"dropout": jax.random.key(0)})
    assert spec_of(network(0.5), (1, 32, 32, 3)) == spec_of(network(), (1, 32, 32, 3))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (residual, {"stage1_block1": 0.0, "stage1_block2": 0.2, "stage2_block1": 0.4}),
        (inverted, {"stage1_block1": 0.0, "stage1_block2": 0.4 / 3, "stage2_block2": 0.4}),
        (transformer, {"block1": 0.0, "block2": 0.2, "block3": 0.4}),
    ],
)
def test_the_rate_grows_in_equal_steps_over_the_blocks_with_a_shortcut(network, expected):
    rates = {}

    def record(following, args, kwargs, context):
        if isinstance(context.module, StochasticDepth):
            rates[context.module.path[-2]] = context.module.rate
        return following(*args, **kwargs)

    with nn.intercept_methods(record):
        applied(network(0.4), train=True, rngs={"dropout": jax.random.key(0)})
    assert rates == pytest.approx(expected)


@pytest.mark.slow
def test_a_block_that_is_computed_again_draws_the_same():
    x = jnp.asarray(np.random.RandomState(0).standard_normal((4, 32, 32, 3)))
    variables = filled(spec_of(transformer(), x.shape))

    def gradient(remat):
        run = lambda v: transformer(0.5, remat).apply(v, x, train=True, rngs={"dropout": jax.random.key(3)})
        return jax.jit(jax.grad(lambda v: jnp.square(run(v)).sum()))(variables)

    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient(False), gradient(True))


def test_rates():
    assert linear_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert linear_rates(0.3, 1) == [0]
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match=f"stochastic_depth is {rate}; it must be at least 0 and less than 1"):
            linear_rates(rate, 3)

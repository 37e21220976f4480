"""Residual networks against torchvision's figures in tests/golden, and what they promise of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from numpy.testing import assert_allclose
from parity_networks import compute, random_images, random_weights, shapes_of, summary, under_torch_names

from jaxvision.nn import resnet
from jaxvision.nn.norm import FrozenBatchNorm, group_norm
from jaxvision.pretrained import torchvision

GOLDEN = Path(__file__).parent / "golden"


def small(classes=5, **options):
    return resnet.ResNet(resnet.Backbone(resnet.Bottleneck, (1,), width=4, **options), classes)


def images(dtype=np.float32):
    return jnp.asarray(np.random.RandomState(0).standard_normal((2, 32, 32, 3)), dtype)


def start(network, x):
    """Variables of the shapes and types that `init` promises, filled by NumPy: nothing to compile."""
    random = np.random.RandomState(1)
    spec = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    return jax.tree.map(lambda leaf: jnp.asarray(np.abs(random.standard_normal(leaf.shape)) * 0.3, leaf.dtype), spec)


def evaluate(network, variables, x):
    return jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)


def train(network, variables, x):
    """Logits, changed collections, and the gradient of a loss."""

    def loss(params, rest, x):
        logits, changed = network.apply({**rest, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean(), (logits, changed)

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    gradient, (logits, changed) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"], rest, x)
    return logits, changed, gradient


def types(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


def load(network, golden, dtype):
    """The golden file's weights in our network, its images and labels, and the map of names."""
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    weights = random_weights(shapes_of(golden), int(golden["seed"]))
    x, labels = random_images(tuple(golden["images_shape"]), golden["logits"].shape[1], int(golden["seed"]) + 1)
    sources = torchvision.resnet_sources(spec)
    return torchvision.resnet(weights, spec), jnp.asarray(x, dtype), jnp.asarray(labels), sources


@pytest.mark.parametrize(
    ("name", "blocks", "count"),
    [
        ("resnet18", 8, 11_689_512),
        ("resnet34", 16, 21_797_672),
        ("resnet50", 16, 25_557_032),
        ("resnet101", 33, 44_549_160),
        ("resnet152", 50, 60_192_808),
    ],
)
def test_has_the_published_number_of_parameters(name, blocks, count):
    network = getattr(resnet, name)()
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(spec["params"])) == count
    assert len(spec["params"]["backbone"]) == blocks + 2


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {}), ("resnet18_cifar", {"stem": "cifar"}), pytest.param("resnet50", {}, marks=pytest.mark.slow)],
)
def test_equals_torchvision_in_float64(float64, name, options):
    golden = np.load(GOLDEN / f"{name}.npz")
    classes = golden["logits"].shape[1]
    network = getattr(resnet, name.split("_")[0])(classes, dtype=jnp.float64, **options)
    variables, x, labels, sources = load(network, golden, np.float64)
    logits, loss, grads, statistics = compute(network, variables, x, labels)
    assert logits.dtype == np.float64
    assert_allclose(logits, golden["logits"], rtol=1e-7, atol=1e-9)
    assert_allclose(loss, golden["loss"], rtol=1e-9)
    norms, projections = summary(under_torch_names(sources, "params", grads)).T
    assert_allclose(norms, golden["gradients"][:, 0], rtol=1e-7)
    assert_allclose(projections / norms, golden["gradients"][:, 1] / norms, rtol=0, atol=1e-7)
    norms, projections = summary(under_torch_names(sources, "batch_stats", statistics)).T
    assert_allclose(norms, golden["statistics"][:, 0], rtol=1e-7)
    assert_allclose(projections / norms, golden["statistics"][:, 1] / norms, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_equals_torchvision_in_float32(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    network = getattr(resnet, name)(golden["logits"].shape[1])
    variables, x, _, _ = load(network, golden, np.float32)
    logits = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)
    assert logits.dtype == jnp.float32
    assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4 * np.abs(golden["logits"]).max())


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", [8, 4, 2, 1]), ("cifar", [32, 16, 8, 4])])
def test_backbone_gives_a_map_for_each_stage(stem, sides):
    backbone = resnet.resnet50(width=8, stem=stem).backbone
    maps, variables = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), jnp.zeros((2, 32, 32, 3))
    )
    expected = [(2, side, side, channels) for side, channels in zip(sides, (32, 64, 128, 256), strict=True)]
    assert [leaf.shape for leaf in maps] == expected
    assert sorted(variables) == ["batch_stats", "params"]


def test_odd_image_sizes_round_up_as_in_torchvision():
    backbone = resnet.resnet18(width=4).backbone
    maps, _ = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), jnp.zeros((1, 65, 97, 3))
    )
    assert [leaf.shape[1:3] for leaf in maps] == [(17, 25), (9, 13), (5, 7), (3, 4)]


def test_without_classes_the_result_are_averaged_features():
    network, x = small(classes=None), images()
    variables = start(network, x)
    features = evaluate(network, variables, x)
    maps = evaluate(network.backbone, {name: tree["backbone"] for name, tree in variables.items()}, x)
    assert features.shape == (2, 16)
    assert_allclose(features, np.asarray(maps[-1]).mean((1, 2)), rtol=1e-5)


def test_unknown_stem_is_named():
    with pytest.raises(ValueError, match="'cifar10' is unknown; allowed: 'imagenet', 'cifar'"):
        small(stem="cifar10").init(jax.random.key(0), images(), train=False)


def test_zero_init_last_makes_every_block_its_shortcut():
    for block, last in ((resnet.BasicBlock, "norm2"), (resnet.Bottleneck, "norm3")):
        backbone = resnet.Backbone(block, (1,), width=2, zero_init_last=True)
        layers = backbone.init(jax.random.key(0), images(), train=False)["params"]["stage1_block1"]
        scales = {name: layer["scale"].all() for name, layer in layers.items() if "norm" in name}
        assert [name for name in scales if not scales[name]] == [last]


def test_layers_start_as_in_torchvision():
    network = resnet.ResNet(resnet.Backbone(resnet.BasicBlock, (1, 1)), 1000)
    params = network.init(jax.random.key(0), images(), train=False)["params"]
    assert all(layer["scale"].all() for name, layer in params["backbone"]["stage2_block1"].items() if "norm" in name)
    kernel = np.asarray(params["backbone"]["stage2_block1"]["conv2"]["kernel"])
    assert_allclose(kernel.std(), np.sqrt(2 / (128 * 9)), rtol=0.01)
    assert_allclose(kernel.mean(), 0, atol=5e-4)
    head = np.asarray(params["head"]["kernel"])
    assert np.abs(head).max() <= 1 / np.sqrt(128)
    assert_allclose(head.std(), 1 / np.sqrt(3 * 128), rtol=0.01)


def test_frozen_batch_norm_has_no_parameters():
    network, x = small(norm=FrozenBatchNorm), images()
    variables = start(network, x)
    names = {path[-1] for path in traverse_util.flatten_dict(variables["params"])}
    assert names == {"kernel", "bias"}
    _, changed, _ = train(network, variables, x)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])


def test_group_norm_network_has_no_statistics_and_sees_one_image_at_a_time():
    network, x = small(norm=group_norm(2)), images()
    variables = start(network, x)
    assert list(variables) == ["params"]
    both, first = train(network, variables, x)[0], train(network, variables, x[:1])[0]
    assert_allclose(both[:1], first, rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_parameters_statistics_and_logits_in_float32():
    network, x = small(dtype=jnp.bfloat16), images()
    variables = start(network, x)
    maps = evaluate(network.backbone, {name: tree["backbone"] for name, tree in variables.items()}, x)
    assert types(maps) == {jnp.dtype(jnp.bfloat16)}
    outcome = train(network, variables, x)
    assert types((variables, outcome)) == {jnp.dtype(jnp.float32)}
    reference = train(small(), variables, x)[0]
    assert_allclose(outcome[0], reference, atol=0.1 * np.abs(reference).max())


def test_double_precision_keeps_everything_in_float64(float64):
    network, x = small(dtype=jnp.float64), images(np.float64)
    variables = start(network, x)
    assert types((variables, evaluate(network, variables, x), train(network, variables, x))) == {np.dtype(np.float64)}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mixes_no_types_unasked(dtype):
    network, x = small(dtype=dtype), images()
    with jax.numpy_dtype_promotion("strict"):
        gradient = train(network, start(network, x), x)[2]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_jit_changes_nothing(float64):
    network = resnet.ResNet(resnet.Backbone(resnet.BasicBlock, (1,), width=4, dtype=jnp.float64), 3)
    x = images(np.float64)
    variables = start(network, x)
    compiled = train(network, variables, x)
    with jax.disable_jit():
        plain = train(network, variables, x)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9, atol=1e-12), plain, compiled)

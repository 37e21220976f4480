"""Residual networks against torchvision's figures in tests/golden, and what they promise of shapes and types."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from numpy.testing import assert_allclose
from parity_networks import assert_equals_golden, random_images, random_weights, shapes_of, spec_of, trained_types

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


@pytest.mark.parametrize(
    ("name", "blocks", "count"),
    [
        ("resnet18", 8, 11_689_512),
        pytest.param("resnet34", 16, 21_797_672, marks=pytest.mark.slow),
        ("resnet50", 16, 25_557_032),
        pytest.param("resnet101", 33, 44_549_160, marks=pytest.mark.slow),
        pytest.param("resnet152", 50, 60_192_808, marks=pytest.mark.slow),
        ("resnext50_32x4d", 16, 25_028_904),
        pytest.param("resnext101_32x8d", 33, 88_791_336, marks=pytest.mark.slow),
        pytest.param("resnext101_64x4d", 33, 83_455_272, marks=pytest.mark.slow),
        ("wide_resnet50_2", 16, 68_883_240),
        pytest.param("wide_resnet101_2", 33, 126_886_696, marks=pytest.mark.slow),
    ],
)
def test_has_the_published_number_of_parameters(name, blocks, count):
    network = getattr(resnet, name)()
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(spec["params"])) == count
    assert len(spec["params"]["backbone"]) == blocks + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("resnet18", {}), ("resnet18_cifar", {"stem": "cifar"}), ("resnet50", {})]
)
def test_equals_torchvision_in_float64(float64, name, options):
    golden = np.load(GOLDEN / f"{name}.npz")
    network = getattr(resnet, name.split("_")[0])(golden["logits"].shape[1], dtype=jnp.float64, **options)
    assert_equals_golden(golden, network, torchvision.resnet, torchvision.resnet_sources)


def test_basic_blocks_equal_torchvision_in_float64(float64):
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1, 1, 1), stem="cifar", dtype=jnp.float64)
    golden = np.load(GOLDEN / "resnet_basic_cifar.npz")
    assert_equals_golden(golden, resnet.ResNet(backbone, 5), torchvision.resnet, torchvision.resnet_sources)


def grouped(**options):
    backbone = resnet.Backbone(resnet.Bottleneck, (1, 1, 1, 1), groups=4, width_per_group=8, **options)
    return resnet.ResNet(backbone, 5)


@pytest.mark.slow
def test_bottlenecks_with_groups_equal_torchvision_in_float64(float64):
    golden = np.load(GOLDEN / "resnext.npz")
    assert_equals_golden(golden, grouped(dtype=jnp.float64), torchvision.resnet, torchvision.resnet_sources)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnext", "resnet18", "resnet50"])
def test_equals_torchvision_in_float32(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    classes, shape, seed = golden["logits"].shape[1], tuple(golden["images_shape"]), int(golden["seed"])
    network = grouped() if name == "resnext" else getattr(resnet, name)(classes)
    variables = torchvision.resnet(random_weights(shapes_of(golden), seed), spec_of(network, shape))
    x, _ = random_images(shape, classes, seed + 1)
    logits = evaluate(network, variables, jnp.asarray(x, jnp.float32))
    assert logits.dtype == jnp.float32
    assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4 * np.abs(golden["logits"]).max())


def test_groups_without_bottlenecks_are_an_error():
    with pytest.raises(ValueError, match="groups=32, width_per_group=4: allowed without bottlenecks are 1 and 64"):
        spec_of(resnet.resnet18(groups=32, width_per_group=4), (1, 32, 32, 3))


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


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"), [(8, (4, 8, 8, 8), (1, 1, 2, 4)), (16, (4, 8, 16, 16), (1, 1, 1, 2))]
)
def test_an_output_stride_turns_strides_into_dilation_as_in_torchvision(output_stride, strides, dilations):
    backbone = resnet.Backbone(resnet.Bottleneck, (2, 2, 2, 2), width=4, output_stride=output_stride)
    found = {}

    def note(call, arguments, keywords, context):
        if isinstance(context.module, resnet.Bottleneck):
            found[context.module.name] = context.module.stride, context.module.dilation
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        maps, variables = jax.eval_shape(
            lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), jnp.zeros((2, 64, 96, 3))
        )
    assert backbone.strides == strides
    assert [x.shape[1:3] for x in maps] == [(64 // stride, 96 // stride) for stride in strides]
    # The first block of a stage that is dilated keeps the dilation of the stage before.
    before = (1, *dilations[:-1])
    for stage in range(4):
        halved = stage > 0 and dilations[stage] == before[stage]
        assert found[f"stage{stage + 1}_block1"] == (2 if halved else 1, before[stage])
        assert found[f"stage{stage + 1}_block2"] == (1, dilations[stage])
    plain = spec_of(resnet.ResNet(backbone.clone(output_stride=None), None), (2, 64, 96, 3))
    assert jax.tree.map(lambda x: x.shape, plain["params"]["backbone"]) == jax.tree.map(
        lambda x: x.shape, variables["params"]
    )


def test_a_dilated_network_sees_what_an_undilated_one_sees_at_every_other_pixel(float64):
    """Convolutions with dilation 2 have the same inputs there as those behind a stride of 2."""
    plain = resnet.Backbone(resnet.Bottleneck, (1, 2), width=2, stem="cifar", norm=FrozenBatchNorm, dtype=jnp.float64)
    x = jnp.asarray(np.random.RandomState(0).standard_normal((1, 24, 24, 3)))
    variables = start(plain, x)
    fine, coarse = (evaluate(each, variables, x)[-1] for each in (plain.clone(output_stride=1), plain))
    assert fine.shape == (1, 24, 24, 16)
    assert_allclose(fine[:, ::2, ::2], coarse, rtol=1e-9, atol=1e-12)


def test_an_output_stride_that_cannot_be_is_named():
    for stride in (2, 12, 64):
        with pytest.raises(ValueError, match=rf"output_stride={stride}; allowed: 4, 8, 16, 32, or None"):
            spec_of(resnet.resnet50(output_stride=stride), (1, 32, 32, 3))
    with pytest.raises(ValueError, match="dilation=2: allowed without bottlenecks is 1, so no output_stride"):
        spec_of(resnet.resnet18(output_stride=16), (1, 32, 32, 3))


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


def initial(network, pick):
    """Parts of the parameters as `init` makes them; the others are never computed."""
    return jax.jit(lambda: pick(network.init(jax.random.key(0), images(), train=False)["params"]))()


def scales(block):
    return {name: layer["scale"] for name, layer in block.items() if "norm" in name}


def test_zero_init_last_makes_every_block_its_shortcut():
    for block, last in ((resnet.BasicBlock, "norm2"), (resnet.Bottleneck, "norm3")):
        backbone = resnet.Backbone(block, (1,), width=2, zero_init_last=True)
        found = initial(backbone, lambda params: scales(params["stage1_block1"]))
        assert [name for name in found if not found[name].all()] == [last]


def test_layers_start_as_in_torchvision():
    network = resnet.ResNet(resnet.Backbone(resnet.BasicBlock, (1, 1)), 1000)
    block, kernel, head = initial(
        network,
        lambda params: (
            scales(params["backbone"]["stage2_block1"]),
            params["backbone"]["stage2_block1"]["conv2"]["kernel"],
            params["head"]["kernel"],
        ),
    )
    assert all(scale.all() for scale in block.values())
    assert_allclose(np.std(kernel), np.sqrt(2 / (128 * 9)), rtol=0.01)
    assert_allclose(np.mean(kernel), 0, atol=5e-4)
    assert np.abs(head).max() <= 1 / np.sqrt(128)
    assert_allclose(np.std(head), 1 / np.sqrt(3 * 128), rtol=0.01)


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
    run = jax.jit(lambda x: network.apply(variables, x, train=True, mutable=["batch_stats"])[0])
    first, second = run(x), run(x.at[1].multiply(-3))
    assert_allclose(second[:1], first[:1], rtol=1e-6)
    assert np.abs(second[1] - first[1]).max() > 0.01


def test_half_precision_keeps_parameters_statistics_and_logits_in_float32():
    network, x = small(dtype=jnp.bfloat16), images()
    variables = start(network, x)
    inside = {name: tree["backbone"] for name, tree in variables.items()}
    maps = jax.eval_shape(lambda v: network.backbone.apply(v, x, train=False), inside)
    assert types(maps) == {jnp.dtype(jnp.bfloat16)}
    with jax.numpy_dtype_promotion("strict"):
        outcome = jax.eval_shape(lambda v: train(network, v, x), variables)
    assert types((variables, outcome)) == {jnp.dtype(jnp.float32)}
    reference = evaluate(small(), variables, x)
    assert_allclose(evaluate(network, variables, x), reference, atol=0.1 * np.abs(reference).max())


def test_double_precision_keeps_everything_in_float64(float64):
    network, x = small(dtype=jnp.float64), images(np.float64)
    variables = start(network, x)
    outcome = jax.eval_shape(lambda v: (evaluate(network, v, x), train(network, v, x)), variables)
    assert types((variables, outcome)) == {np.dtype(np.float64)}


def test_single_precision_mixes_no_types_unasked():
    assert trained_types(small(), (2, 32, 32, 3)) == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_jit_changes_nothing(float64):
    network = resnet.ResNet(resnet.Backbone(resnet.BasicBlock, (1,), width=4, dtype=jnp.float64), 3)
    x = images(np.float64)
    variables = start(network, x)
    compiled = train(network, variables, x)
    with jax.disable_jit():
        plain = train(network, variables, x)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9, atol=1e-12), plain, compiled)

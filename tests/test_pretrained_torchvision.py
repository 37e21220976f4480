"""torchvision's names: every one is used once, and what does not fit is named."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import random_weights, shapes_of

from jaxvision.nn import resnet
from jaxvision.nn.cnn import TutorialCNN
from jaxvision.nn.norm import FrozenBatchNorm, group_norm
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.strict import Source, fill
from jaxvision.pretrained.torch_layout import conv_kernel, dense_kernel, dense_kernel_after_flatten
from jaxvision.pretrained.torch_tutorial import tutorial_cnn

GOLDEN = Path(__file__).parent / "golden"


def spec_of(network):
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))


@pytest.fixture(scope="module")
def weights():
    """ResNet-18 for 10 classes, named by torchvision itself."""
    return random_weights(shapes_of(np.load(GOLDEN / "resnet18.npz")), seed=3)


@pytest.fixture(scope="module")
def spec():
    return spec_of(resnet.resnet18(10))


def test_every_name_is_used_once(weights, spec):
    variables = torchvision.resnet(weights, spec)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, spec)
    ours = sorted(float(np.asarray(leaf, np.float64).sum()) for leaf in jax.tree.leaves(variables))
    assert_allclose(ours, sorted(float(array.sum()) for array in weights.values()), rtol=1e-4, atol=1e-3)


def test_arrays_go_where_they_belong(weights, spec):
    variables = torchvision.resnet(weights, spec)
    params, statistics = variables["params"], variables["batch_stats"]
    block, kept = params["backbone"]["stage3_block1"], statistics["backbone"]["stage3_block1"]
    kernel, theirs = np.asarray(block["conv1"]["kernel"]), weights["layer3.0.conv1.weight"].astype(np.float32)
    assert kernel[2, 0, 5, 7] == theirs[7, 5, 2, 0]
    expected = {
        "layer3.0.bn2.weight": block["norm2"]["scale"],
        "layer3.0.bn2.bias": block["norm2"]["bias"],
        "layer3.0.bn2.running_mean": kept["norm2"]["mean"],
        "layer3.0.bn2.running_var": kept["norm2"]["var"],
        "layer3.0.downsample.1.running_var": kept["shortcut_norm"]["var"],
        "bn1.weight": params["backbone"]["stem_norm"]["scale"],
        "fc.bias": params["head"]["bias"],
    }
    for name, leaf in expected.items():
        assert_array_equal(leaf, weights[name].astype(np.float32))
    assert_array_equal(params["head"]["kernel"], weights["fc.weight"].T.astype(np.float32))


def test_counters_are_ignored(weights, spec):
    torchvision.resnet({**weights, "bn1.num_batches_tracked": np.array(3)}, spec)


def test_all_faults_are_listed(weights, spec):
    broken = {name: array for name, array in weights.items() if name not in ("bn1.bias", "layer1.0.conv2.weight")}
    broken |= {"layer5.0.conv1.weight": np.zeros(3), "fc.weight": np.zeros((7, 512)), "conv1.weight": np.zeros((64, 3))}
    with pytest.raises(ValueError, match="do not fit") as error:
        torchvision.resnet(broken, spec)
    text = str(error.value)
    assert "2 missing: " in text
    assert "bn1.bias (for params/backbone/stem_norm/bias)" in text
    assert "layer1.0.conv2.weight (for params/backbone/stage1_block1/conv2/kernel)" in text
    assert "1 unexpected: layer5.0.conv1.weight" in text
    assert "2 of another shape: " in text
    assert "fc.weight (7, 512) (for params/head/kernel (512, 10))" in text
    assert "conv1.weight (64, 3) (for params/backbone/stem_conv/kernel (7, 7, 3, 64))" in text


def test_a_deeper_network_does_not_fit(weights):
    with pytest.raises(ValueError, match=r"they look like ResNet-18's, it looks like ResNet-34; \d+ missing"):
        torchvision.resnet(weights, spec_of(resnet.resnet34(10)))


def test_a_network_without_running_statistics_does_not_fit(weights):
    with pytest.raises(ValueError, match=r"unexpected: .*bn1\.running_mean"):
        torchvision.resnet(weights, spec_of(resnet.resnet18(10, norm=group_norm())))


def test_a_module_that_torchvision_has_not_is_named(weights):
    with pytest.raises(ValueError, match="no counterpart of 'neck'"):
        torchvision.resnet(weights, {"params": {"neck": {"kernel": np.zeros((1, 1, 2, 2))}}})


def test_new_classes_keep_the_own_head(weights):
    network = resnet.resnet18(3)
    own = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), spec_of(network))
    with pytest.raises(ValueError, match=r"of another shape: .*fc\.weight \(10, 512\)"):
        torchvision.resnet(weights, own)
    variables = torchvision.resnet(weights, own, head=False)
    assert_array_equal(variables["params"]["head"]["kernel"], np.full((512, 3), 0.5))
    assert_array_equal(variables["params"]["backbone"]["stem_norm"]["scale"], weights["bn1.weight"].astype(np.float32))


def test_network_without_a_head(weights):
    variables = torchvision.resnet(weights, spec_of(resnet.resnet18(None)), head=False)
    assert list(variables["params"]) == ["backbone"]
    with pytest.raises(ValueError, match=r"2 unexpected: fc\.bias, fc\.weight"):
        torchvision.resnet(weights, spec_of(resnet.resnet18(None)))


def test_backbone_alone_has_the_same_weights(weights, spec):
    whole = torchvision.resnet(weights, spec)
    alone = torchvision.resnet_backbone(weights, spec_of(resnet.resnet18().backbone))
    jax.tree.map(assert_array_equal, alone, {name: tree["backbone"] for name, tree in whole.items()})


def test_frozen_batch_norm_takes_all_four(weights, spec):
    frozen = torchvision.resnet(weights, spec_of(resnet.resnet18(10, norm=FrozenBatchNorm)))
    plain = torchvision.resnet(weights, spec)
    expected = plain["params"]["backbone"]["stem_norm"] | plain["batch_stats"]["backbone"]["stem_norm"]
    jax.tree.map(assert_array_equal, frozen["batch_stats"]["backbone"]["stem_norm"], expected)


def test_weights_take_the_type_of_the_network(weights, spec):
    variables = torchvision.resnet(weights, spec)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_a_name_used_twice_is_an_error():
    sources = {("params", name): Source("w", np.asarray) for name in "ab"}
    with pytest.raises(ValueError, match="1 used twice: w"):
        fill(sources, {"w": np.zeros(2)}, {"params": {"a": np.zeros(2), "b": np.zeros(2)}})


def test_kernels_compute_what_torch_computes():
    random = np.random.RandomState(0)
    features, weight = random.standard_normal((2, 3, 4, 5)), random.standard_normal((7, 60))
    kernel = dense_kernel_after_flatten(3, 4, 5)(weight)
    ours = features.transpose(0, 2, 3, 1).reshape(2, -1) @ kernel
    assert_allclose(ours, features.reshape(2, -1) @ weight.T, rtol=1e-12)
    assert_allclose(features.reshape(2, -1) @ dense_kernel(weight), features.reshape(2, -1) @ weight.T, rtol=1e-12)
    assert conv_kernel(random.standard_normal((8, 6, 3, 5))).shape == (3, 5, 6, 8)
    with pytest.raises(ValueError, match=r"has 4 axes, not the shape \(7, 60\)"):
        conv_kernel(weight)


def test_tutorial_weights_of_another_image_size_are_named():
    golden = np.load(GOLDEN / "tutorial_cnn.npz")
    arrays = random_weights({**shapes_of(golden), "fc1.weight": (120, 16 * 4 * 4)}, seed=0)
    network = TutorialCNN()
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    with pytest.raises(ValueError, match=r"fc1\.weight \(120, 256\) \(for params/dense1/kernel \(400, 120\)\)"):
        tutorial_cnn(arrays, like)

"""Export: what is written reads back bit for bit, and, live in `parity`, other libraries take it whole and agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from parity_networks import filled, random_images, random_weights, shapes_torch, spec_of
from safetensors.numpy import load_file

from jaxvision.nn import convnext, efficientnet, googlenet, inception, mobilenet, resnet, squeezenet, vgg, vit
from jaxvision.nn.conv import Conv
from jaxvision.nn.mobilenet import Stage
from jaxvision.pretrained import export, keras, published, timm, torchvision
from jaxvision.pretrained.files import read
from jaxvision.pretrained.strict import Source, load

THIN = (8, 8, 8, 8, 8)
SHORT = (Stage(1, 8, 1, 1), Stage(2, 8, 2, 2))
FIRES = squeezenet.SqueezeNet(((4,), (4, 8)), 8, 3, 5)


def short_resnet(**options):
    return resnet.ResNet(resnet.Backbone(resnet.Bottleneck, (2, 1), width=8, **options), 5)


SMALL = {
    "resnet": (short_resnet(), torchvision.resnet_sources),
    "vgg": (vgg.vgg11_bn(5, channels=THIN).clone(hidden=16), torchvision.vgg_sources),
    "squeezenet": (FIRES, torchvision.squeezenet_sources),
    "mobilenet": (mobilenet.mobilenet_v2(5, stages=SHORT), torchvision.mobilenet_v2_sources),
    "lite0": (efficientnet.efficientnet_lite0(5, stages=SHORT), timm.efficientnet_lite0_sources),
    "lite0 by PyTorch": (efficientnet.efficientnet_lite0(5, stages=SHORT), published.efficientnet_pytorch_sources),
    "vit": (vit.vit_tiny(5, depth=1, width=24), timm.vit_sources),
    "squeezenet by Caffe": (FIRES, published.caffe_squeezenet_sources),
    "vgg by Keras": (vgg.vgg11(5, channels=THIN).clone(hidden=16), keras.vgg_sources),
    "resnet by Keras": (short_resnet(bias=True), keras.resnet50_sources),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_other_librarys_names_lead_back(name):
    network, sources = SMALL[name]
    spec = spec_of(network, (1, 32, 32, 3))
    variables = filled(spec)
    there = export.named(sources, variables)
    back = load(sources(spec), there, spec).variables
    jax.tree.map(assert_array_equal, back, variables)
    assert all(array.flags.c_contiguous for array in there.values())


def test_our_names_in_a_file(tmp_path):
    variables = {"params": {"head": {"kernel": jnp.ones((4, 3)).T, "bias": jnp.zeros((), jnp.bfloat16)}}}
    path = tmp_path / "net.safetensors"
    export.safetensors({**variables, "ema": None}, path)
    found = load_file(path)
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "params/head/kernel": ((3, 4), "float32"),
        "params/head/bias": ((), "bfloat16"),
    }
    back = load(export.own_sources(variables), read(path), variables).variables
    jax.tree.map(assert_array_equal, back, variables)
    assert [each.name for each in tmp_path.iterdir()] == ["net.safetensors"]


def test_counters_of_batches_are_written(tmp_path):
    network, sources = SMALL["mobilenet"]
    variables = filled(spec_of(network, (1, 32, 32, 3)))
    export.torch_safetensors(sources, variables, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    counters = {name: array for name, array in found.items() if name.endswith("num_batches_tracked")}
    means = [name for name in found if name.endswith("running_mean")]
    assert sorted(counters) == sorted(name.replace("running_mean", "num_batches_tracked") for name in means)
    assert {(array.shape, array.dtype, int(array)) for array in counters.values()} == {((), np.dtype("int64"), 0)}


def test_what_can_not_be_exported_is_named(tmp_path):
    variables = {"params": {"head": {"kernel": np.ones((3, 4)), "bias": np.zeros(4)}}}
    one_way = lambda variables: {("params", "head", "kernel"): Source("fc.weight", np.transpose)}
    with pytest.raises(
        ValueError, match="no counterpart in the other library of 2 arrays: params/head/kernel, params/head/bias"
    ):
        export.torch_safetensors(one_way, variables, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_bgr_and_rgb_are_one_convolution():
    image = jnp.asarray(np.random.RandomState(0).standard_normal((1, 6, 6, 3)), jnp.float32)
    theirs = np.random.RandomState(1).standard_normal((3, 3, 3, 2)).astype(np.float32)
    convolution = Conv(2, 3, use_bias=False)
    of_bgr = convolution.apply({"params": {"kernel": jnp.asarray(theirs)}}, image[..., ::-1])
    of_rgb = convolution.apply({"params": {"kernel": jnp.asarray(keras.bgr_kernel(theirs))}}, image)
    np.testing.assert_allclose(of_rgb, of_bgr, rtol=1e-5, atol=1e-6)
    assert_array_equal(keras.bgr_kernel.back(keras.bgr_kernel(theirs)), theirs)


LIVE = {
    "resnet18": (resnet.resnet18, torchvision.resnet_sources, (2, 64, 64, 3)),
    "resnet50": (resnet.resnet50, torchvision.resnet_sources, (2, 64, 64, 3)),
    "resnext50_32x4d": (resnet.resnext50_32x4d, torchvision.resnet_sources, (2, 64, 64, 3)),
    "wide_resnet50_2": (resnet.wide_resnet50_2, torchvision.resnet_sources, (2, 64, 64, 3)),
    "vgg11": (vgg.vgg11, torchvision.vgg_sources, (2, 64, 64, 3)),
    "vgg16_bn": (vgg.vgg16_bn, torchvision.vgg_sources, (2, 64, 64, 3)),
    "squeezenet1_1": (squeezenet.squeezenet1_1, torchvision.squeezenet_sources, (2, 64, 80, 3)),
    "mobilenet_v2": (mobilenet.mobilenet_v2, torchvision.mobilenet_v2_sources, (2, 64, 64, 3)),
    "googlenet": (partial(googlenet.googlenet, auxiliary=True), torchvision.googlenet_sources, (2, 224, 224, 3)),
    "inception_v3": (
        partial(inception.inception_v3, auxiliary=True),
        torchvision.inception_v3_sources,
        (2, 299, 299, 3),
    ),
    "convnext_tiny": (convnext.convnext_tiny, torchvision.convnext_sources, (2, 64, 64, 3)),
    "efficientnet_lite0": (efficientnet.efficientnet_lite0, timm.efficientnet_lite0_sources, (2, 64, 64, 3)),
    "tf_efficientnet_lite0": (efficientnet.tf_efficientnet_lite0, timm.efficientnet_lite0_sources, (2, 64, 65, 3)),
    "vit_tiny_patch16_224": (vit.vit_tiny, timm.vit_sources, (2, 224, 224, 3)),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", LIVE)
def test_round_trip_with_torch(tmp_path, name):
    """Their random weights in a `.pth` -> our logits are theirs; our export -> a fresh network there, strictly."""
    torch = pytest.importorskip("torch", reason="needs torch, torchvision and timm: install the parity extra")
    import parity_torch
    from safetensors.torch import load_file as load_torch

    factory, sources_of, shape = LIVE[name]
    make = partial(parity_torch.of_timm if name in TIMM else parity_torch.of_torchvision, name)
    theirs = make().eval()
    weights = random_weights(shapes_torch(theirs), seed=7)
    state = {key: torch.from_numpy(np.asarray(array)).float() for key, array in weights.items()}
    theirs.load_state_dict({**theirs.state_dict(), **state})
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    images = random_images(shape, 1000, seed=8)[0].astype(np.float32)
    expected = logits_there(theirs, images)
    ours = factory()
    spec = spec_of(ours, shape)
    variables = load(sources_of(spec), read(tmp_path / "theirs.pth"), spec).variables
    error = (
        np.abs(jax.jit(partial(ours.apply, train=False))(variables, images) - expected).max() / np.abs(expected).max()
    )
    export.torch_safetensors(sources_of, variables, tmp_path / "ours.safetensors")
    fresh = make().eval()
    fresh.load_state_dict(load_torch(tmp_path / "ours.safetensors"), strict=True)
    print(f"{name}: {sum(leaf.size for leaf in jax.tree.leaves(variables)):,} numbers, error {error:.1e}")
    assert error < 1e-4
    assert_array_equal(logits_there(fresh, images), expected)


TIMM = ("efficientnet_lite0", "tf_efficientnet_lite0", "vit_tiny_patch16_224")


def logits_there(model, images):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def test_every_family_is_listed():
    """A loader without a round trip would show here."""
    maps = {each for room in (torchvision, timm) for each in vars(room) if each.endswith("_sources")}
    maps -= {"module_sources"}
    assert maps == {sources.__name__ for _, sources, _ in LIVE.values()}

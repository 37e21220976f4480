"""torchvision's names for semantic segmenters; a network on its ResNet or VGG16 begins with their weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from parity_networks import spec_of

from jaxvision.nn import resnet, vgg
from jaxvision.pretrained import torchvision, torchvision_segmentation
from jaxvision.pretrained.strict import load
from jaxvision.tasks.deeplab import DeepLabHead
from jaxvision.tasks.fcn import FCN, FCNHead, SkipFCN

HEAD = ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "4.weight", "4.bias")
CASES = {
    "fcn": (FCNHead(5), torchvision_segmentation.fcn_sources, {f"classifier.{name}" for name in HEAD}),
    "deeplab": (
        DeepLabHead(5),
        torchvision_segmentation.deeplab_sources,
        {
            "classifier.0.convs.0.0.weight",
            "classifier.0.convs.3.1.running_var",
            "classifier.0.convs.4.1.weight",
            "classifier.0.convs.4.2.bias",
            "classifier.0.project.0.weight",
            "classifier.0.project.1.running_mean",
            "classifier.1.weight",
            "classifier.2.bias",
            "classifier.4.bias",
        },
    ),
}
"""Head, name map, and some of torchvision's names (0.29.1, `state_dict`)."""


@functools.cache
def spec(name):
    backbone = resnet.Backbone(resnet.Bottleneck, (1, 1, 1, 1), width=4, output_stride=8)
    return spec_of(FCN(backbone, CASES[name][0], FCNHead(5)), (1, 32, 32, 3))


@pytest.mark.parametrize("name", CASES)
def test_every_array_has_a_name_of_its_own(name):
    _, sources_of, some_names = CASES[name]
    sources = sources_of(spec(name))
    flat = traverse_util.flatten_dict(spec(name))
    assert set(sources) == set(flat)
    names = [source.name for source in sources.values()]
    assert len(set(names)) == len(names)
    assert some_names | {f"aux_classifier.{each}" for each in HEAD} <= set(names)
    assert {"backbone.conv1.weight", "backbone.layer4.0.downsample.1.running_var"} <= set(names)
    zeros = {
        source.name: np.broadcast_to(np.float32(0), source.convert.back(np.broadcast_to(0, flat[path].shape)).shape)
        for path, source in sources.items()
    }
    assert load(sources, zeros, spec(name)).report.numbers == sum(x.size for x in flat.values())
    zeros.pop("classifier.4.bias")
    with pytest.raises(ValueError, match="1 missing: classifier.4.bias"):
        load(sources, zeros, spec(name))


def test_the_weights_of_a_residual_network_fill_the_backbone():
    plain = torchvision.resnet_sources(
        spec_of(resnet.ResNet(resnet.Backbone(resnet.Bottleneck, (1, 1, 1, 1), width=4), 7), (1, 32, 32, 3))
    )
    found = torchvision_segmentation.backbone_sources(spec("deeplab"))
    assert {source.name for source in found.values()} == {s.name for s in plain.values()} - {"fc.weight", "fc.bias"}
    assert found["params", "backbone", "stage4_block1", "conv2", "kernel"].name == "layer4.0.conv2.weight"


def test_dense_layers_of_vgg16_compute_the_same_as_convolutions():
    channels = (2, 2, 2, 2, 3)
    plain = vgg.VGG(vgg.Backbone(vgg.VGG16, channels), 5, hidden=6)
    network = SkipFCN(vgg.Backbone(vgg.VGG16, channels, ceil_pooling=True), 5, 32, hidden=6)
    like, spec = (spec_of(each, (1, 224, 224, 3)) for each in (plain, network))
    random = np.random.RandomState(0)
    sources = torchvision.vgg_sources(like)
    flat = traverse_util.flatten_dict(like)
    arrays = {
        source.name: source.convert.back(random.standard_normal(flat[path].shape).astype(np.float32))
        for path, source in sources.items()
    }
    found = torchvision_segmentation.vgg16_sources(spec)
    filled = load(found, arrays, spec, new=("scores.*",), unused=("classifier.6.*",)).variables["params"]
    features = jnp.asarray(random.standard_normal((1, 7, 7, 3)), jnp.float32)
    theirs = load(sources, arrays, like).variables["params"]
    expected = features.reshape(1, -1) @ theirs["dense1"]["kernel"] + theirs["dense1"]["bias"][None]
    conv = jnp.einsum("byxi,yxio->bo", features, filled["conv6"]["kernel"]) + filled["conv6"]["bias"][None]
    np.testing.assert_allclose(conv, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(filled["conv7"]["kernel"][0, 0], theirs["dense2"]["kernel"])
    for path, source in found.items():
        np.testing.assert_array_equal(source.convert.back(source.convert(arrays[source.name])), arrays[source.name])
        assert path[1] in ("backbone", "conv6", "conv7")
    assert jax.tree.all(jax.tree.map(jnp.array_equal, filled["backbone"], theirs["backbone"]))


def test_another_module_is_refused():
    params = {**spec("fcn")["params"], "third": {"conv": spec("fcn")["params"]["head"]["conv"]}}
    with pytest.raises(ValueError, match="no counterpart of 'third/conv'"):
        torchvision_segmentation.fcn_sources({**spec("fcn"), "params": params})
    params = {**spec("deeplab")["params"], "third": {"conv": spec("fcn")["params"]["head"]["conv"]}}
    with pytest.raises(ValueError, match="no counterpart of 'third/conv'"):
        torchvision_segmentation.deeplab_sources({**spec("deeplab"), "params": params})

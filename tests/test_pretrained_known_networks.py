"""What a network looks like is told in one short line, where a file is another's."""

from pathlib import Path

import jax
import numpy as np
import pytest
from parity_networks import random_weights, shapes_of, spec_of

from jaxvision.errors import WeightsError
from jaxvision.nn import convnext, mobilenet, resnet, vgg, vit
from jaxvision.pretrained import torchvision
from jaxvision.pretrained.known_networks import KNOWN, known
from jaxvision.pretrained.strict import load

GOLDEN = Path(__file__).parent / "golden"
FACTORIES = {
    "ResNet-18": resnet.resnet18,
    "ResNet-34": resnet.resnet34,
    "ResNet-50": resnet.resnet50,
    "ResNet-101": resnet.resnet101,
    "ResNet-152": resnet.resnet152,
    "ResNeXt-50 32x4d": resnet.resnext50_32x4d,
    "ResNeXt-101 32x8d": resnet.resnext101_32x8d,
    "ResNeXt-101 64x4d": resnet.resnext101_64x4d,
    "Wide ResNet-50-2": resnet.wide_resnet50_2,
    "Wide ResNet-101-2": resnet.wide_resnet101_2,
    "VGG11": vgg.vgg11,
    "VGG13": vgg.vgg13,
    "VGG16": vgg.vgg16_bn,
    "VGG19": vgg.vgg19,
    "MobileNetV2": mobilenet.mobilenet_v2,
    "ConvNeXt-T": convnext.convnext_tiny,
    "ConvNeXt-S": convnext.convnext_small,
    "ConvNeXt-B": convnext.convnext_base,
    "ViT-Ti/16": vit.vit_tiny,
    "ViT-S/16": vit.vit_small,
    "ViT-B/16": vit.vit_base,
    "ViT-L/16": vit.vit_large,
}


def test_every_known_network_is_built():
    assert sorted(KNOWN.values()) == sorted(FACTORIES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("ResNet-18", "VGG16"))) for name in FACTORIES]
)
def test_a_network_is_known_whatever_its_classes(name):
    assert known(jax.tree.leaves(spec_of(FACTORIES[name](7), (1, 224, 224, 3)))) == name


def test_other_networks_are_not_known():
    assert known([]) is None
    assert known([np.zeros((1, 1, 3, 4))]) is None


@pytest.fixture(scope="module")
def resnet18():
    """ResNet-18 for 10 classes, named by torchvision itself."""
    return random_weights(shapes_of(np.load(GOLDEN / "resnet18.npz")), seed=3)


def test_another_depth_is_told_in_one_short_line(resnet18):
    spec = spec_of(resnet.resnet50(10), (1, 64, 64, 3))
    with pytest.raises(WeightsError) as error:
        load(torchvision.resnet_sources(spec), resnet18, spec)
    text = str(error.value)
    assert text.startswith(
        "the given arrays do not fit the network: they look like ResNet-18's, it looks like ResNet-50; "
    )
    assert "\n" not in text
    assert len(text) < 200
    assert "; 165 missing; " in text  # torchvision's networks have 267 and 102 arrays


def test_another_network_than_those_known(resnet18):
    spec = spec_of(resnet.resnet18(10, width=8), (1, 64, 64, 3))
    with pytest.raises(
        WeightsError, match="do not fit the network: they look like ResNet-18's; \\d+ of another shape: "
    ) as error:
        load(torchvision.resnet_sources(spec), resnet18, spec)
    assert len(str(error.value)) < 400

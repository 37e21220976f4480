"""What published networks were trained on: classes, and how their images were prepared."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jaxvision.ops import pixels
from jaxvision.pretrained import imagenet, preprocessing


def test_imagenets_classes_are_in_the_order_of_tfds():
    found = importlib.util.find_spec("tensorflow_datasets")
    assert found is not None
    assert found.origin is not None
    labels = Path(found.origin).parent / "datasets" / "imagenet2012" / "labels.txt"
    lines = (Path(imagenet.__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == labels.read_text().split()


def test_imagenets_classes_have_a_name_each():
    names = imagenet.classes()
    assert len(names) == len({name.lower() for name in names}) == 1000
    known = {0: "tench", 281: "tabby", 285: "Egyptian cat", 657: "missile", 967: "espresso", 999: "toilet tissue"}
    assert {number: names[number] for number in known} == known
    assert (names[134], names[517]) == ("crane (wading bird)", "crane (lifting device)")


def test_the_licence_of_the_names_is_beside_them():
    notice = (Path(imagenet.__file__).parent / "imagenet_classes.LICENSE").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice


def test_the_default_of_a_task_is_torchvisions():
    assert preprocessing.TORCHVISION.mean == pixels.IMAGENET_MEAN
    assert preprocessing.TORCHVISION.std == pixels.IMAGENET_STD


@pytest.mark.parity
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (preprocessing.TORCHVISION, ("ResNet50_Weights", "IMAGENET1K_V1")),
        (preprocessing.TORCHVISION, ("VGG16_Weights", "IMAGENET1K_V1")),
        (preprocessing.TORCHVISION, ("SqueezeNet1_1_Weights", "IMAGENET1K_V1")),
        (preprocessing.TORCHVISION, ("MobileNet_V2_Weights", "IMAGENET1K_V1")),
        (preprocessing.TORCHVISION, ("GoogLeNet_Weights", "IMAGENET1K_V1")),
        (preprocessing.TORCHVISION_V2, ("ResNet50_Weights", "IMAGENET1K_V2")),
        (preprocessing.TORCHVISION_V2, ("MobileNet_V2_Weights", "IMAGENET1K_V2")),
        (preprocessing.TORCHVISION._replace(size=299, resize=342), ("Inception_V3_Weights", "IMAGENET1K_V1")),
    ],
)
def test_is_torchvisions(ours, theirs):
    models = pytest.importorskip("torchvision", reason="needs torchvision: install the parity extra").models
    name, version = theirs
    found = getattr(getattr(models, name), version).transforms()
    np.testing.assert_allclose((ours.mean, ours.std), np.array((found.mean, found.std)) * 255, rtol=1e-6)
    assert (ours.size, ours.resize) == (*found.crop_size, *found.resize_size)
    assert ours.interpolation == found.interpolation.value


@pytest.mark.parity
def test_is_timms():
    timm = pytest.importorskip("timm", reason="needs timm: install the parity extra")
    ours, found = preprocessing.TIMM_VIT, timm.get_pretrained_cfg("vit_base_patch16_224.augreg2_in21k_ft_in1k")
    assert (ours.mean, ours.std) == tuple(tuple(255 * x for x in values) for values in (found.mean, found.std))
    assert (ours.size, ours.interpolation) == (found.input_size[1], found.interpolation)
    assert ours.resize == int(ours.size / found.crop_pct)

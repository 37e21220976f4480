"""What published networks were trained on: classes, and how their images were prepared."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_encoding import smooth
from PIL import Image

from jaxvision.data import placement, samples
from jaxvision.data.decode import decode
from jaxvision.data.interpolation import PIL_BICUBIC, PIL_BILINEAR
from jaxvision.ops import pixels
from jaxvision.pretrained import imagenet, preprocessing
from jaxvision.pretrained.preprocessing import TORCHVISION


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


@pytest.mark.parametrize(
    ("prepared", "resize", "filter_of_pil"),
    [
        (preprocessing.TORCHVISION, 256, Image.Resampling.BILINEAR),
        (preprocessing.TORCHVISION_V2, 232, Image.Resampling.BILINEAR),
        (preprocessing.INCEPTION, 342, Image.Resampling.BILINEAR),
        (preprocessing.EFFICIENTNET_LITE, 256, Image.Resampling.BICUBIC),
        (preprocessing.TIMM_VIT, 248, Image.Resampling.BICUBIC),
        (preprocessing.CAFFE_227, 256, Image.Resampling.BILINEAR),
    ],
)
@pytest.mark.parametrize("photo", ["chelsea", "rocket"])
def test_an_image_is_resized_and_cut_as_pil_does(photo, prepared, resize, filter_of_pil):
    path = samples.photos_dir() / f"{photo}.jpg"
    image = Image.open(path).convert("RGB")
    image = image.resize(tuple(int(resize * side / min(image.size)) for side in image.size), filter_of_pil)
    left, top = (round((side - prepared.size) / 2) for side in image.size)
    expected = np.asarray(image.crop((left, top, left + prepared.size, top + prepared.size)))
    found = decode(path.read_bytes(), prepared.placer()).image
    np.testing.assert_array_equal(found, expected)


def test_darknets_and_tensorflows_are_opencvs():
    pixels = smooth(300, 500)
    stretched = cv2.resize(pixels, (300, 300), interpolation=cv2.INTER_LINEAR)
    found = decode(pixels, preprocessing.TENSORFLOW_SSD.placer()).image
    assert np.abs(found.astype(int) - stretched).max() <= 1
    inner = cv2.resize(pixels, (416, 249), interpolation=cv2.INTER_LINEAR)
    expected = cv2.copyMakeBorder(inner, 83, 84, 0, 0, cv2.BORDER_CONSTANT, value=(127,) * 3)
    found = decode(pixels, preprocessing.DARKNET.placer())
    assert found.size == (416, 416)
    assert np.abs(found.image.astype(int) - expected).max() <= 1


def test_another_side_keeps_the_proportions():
    placer = preprocessing.TORCHVISION.placer(112)
    assert placer.place(None, (300, 500)) == placement.resize_and_centre_crop(128, 112).place(None, (300, 500))
    assert preprocessing.DARKNET.placer(608).canvas == (608, 608)


def assert_placed_as(ours, resize, crop, interpolation):
    """On images of several sizes."""
    placer, expected = ours.placer(), placement.resize_and_centre_crop(resize, crop)
    for size in ((300, 500), (641, 480), (1000, 999)):
        assert placer.place(None, size) == expected.place(None, size)
    assert placer.interpolation == {"bilinear": PIL_BILINEAR, "bicubic": PIL_BICUBIC}[interpolation]


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
        (
            preprocessing.INCEPTION._replace(mean=TORCHVISION.mean, std=TORCHVISION.std),
            ("Inception_V3_Weights", "IMAGENET1K_V1"),
        ),
    ],
)
def test_is_torchvisions(ours, theirs):
    models = pytest.importorskip("torchvision", reason="needs torchvision: install the parity extra").models
    name, version = theirs
    found = getattr(getattr(models, name), version).transforms()
    np.testing.assert_allclose((ours.mean, ours.std), np.array((found.mean, found.std)) * 255, rtol=1e-6)
    assert_placed_as(ours, *found.resize_size, *found.crop_size, found.interpolation.value)


@pytest.mark.parity
def test_is_timms():
    timm = pytest.importorskip("timm", reason="needs timm: install the parity extra")
    ours, found = preprocessing.TIMM_VIT, timm.get_pretrained_cfg("vit_base_patch16_224.augreg2_in21k_ft_in1k")
    assert (ours.mean, ours.std) == tuple(tuple(255 * x for x in values) for values in (found.mean, found.std))
    side = found.input_size[1]
    assert_placed_as(ours, int(side / found.crop_pct), side, found.interpolation)

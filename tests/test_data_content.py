"""A fingerprint of every byte, for images that are overwritten in place."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import arrays, content, folder, objects, samples
from jaxvision.data.subset import train_and_test

CLASSES = ("ant", "bee")


@pytest.fixture
def bitmaps(tmp_path):
    """Four images in two classes, all of one size in bytes."""
    for number, name in enumerate(("ant", "ant", "bee", "bee")):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", (4, 4), 50 * number).save(tmp_path / name / f"{number}.bmp")
    return tmp_path


def prints(root, fingerprint, test=False):
    """The fingerprints of training and test data."""
    source = lambda: folder.source(root)
    pair = train_and_test(source, source if test else None, 0.5, 0, CLASSES, fingerprint)
    return [opened().fingerprint for opened in pair]


@pytest.mark.parametrize("test", [False, True])
def test_an_image_overwritten_at_the_same_size_changes_the_full_fingerprint_alone(bitmaps, test):
    before = {how: prints(bitmaps, how, test) for how in content.FINGERPRINTS}
    assert before["full"] == prints(bitmaps, "full", test)
    assert all(each.startswith("full-") for each in before["full"])
    for path in bitmaps.glob("*/*.bmp"):
        size = path.stat().st_size
        Image.new("L", (4, 4), 255).save(path)
        assert path.stat().st_size == size
    after = {how: prints(bitmaps, how, test) for how in content.FINGERPRINTS}
    assert before["quick"] == after["quick"]
    assert not set(before["full"]) & set(after["full"])


def test_the_full_fingerprint_covers_labels_boxes_and_pixels():
    images, labels = np.zeros((2, 3, 3, 1), np.uint8), np.array([0, 1])
    one = arrays.source(images, labels, CLASSES)
    others = [arrays.source(images + 1, labels, CLASSES), arrays.source(images, labels[::-1], CLASSES)]
    others = [other._replace(fingerprint=one.fingerprint) for other in others]
    trees = objects.coco(samples.trees_dir() / "test.json", samples.trees_dir() / "test")

    def moved(indices):
        return [
            each._replace(objects=each.objects._replace(boxes=each.objects.boxes + 1)) for each in trees.read(indices)
        ]

    all_of_them = [one, *others, trees, trees._replace(read=moved)]
    assert len({content.fingerprinted(each, "full").fingerprint for each in all_of_them}) == 5


def test_an_unreadable_image_has_a_full_fingerprint_too(bitmaps):
    source = folder.source(bitmaps)
    before = content.fingerprinted(source, "full").fingerprint
    os.remove(bitmaps / "ant/0.bmp")
    assert content.fingerprinted(source, "full").fingerprint != before


def test_another_fingerprint_is_refused_before_data_are_opened():
    with pytest.raises(ValueError, match="no fingerprint 'ful'; did you mean 'full'"):
        train_and_test(lambda: 1 / 0, None, 0.5, 0, CLASSES, "ful")

import json

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import idx, placement, samples, tfds
from jaxvision.data.decode import decode

FOUND = {
    ("trees", "train"): (72, 481, (256, 256), "RGB"),
    ("trees", "test"): (16, 244, (256, 256), "RGB"),
    ("nuclei", "train"): (12, 122, (128, 128), "L"),
    ("nuclei", "test"): (4, 32, (128, 128), "L"),
}


@pytest.mark.parametrize(("name", "split"), FOUND)
def test_annotated_samples_are_whole(name, split):
    folder = {"trees": samples.trees_dir, "nuclei": samples.nuclei_dir}[name]()
    images, objects, size, mode = FOUND[name, split]
    annotations = json.loads((folder / f"{split}.json").read_text())
    assert (len(annotations["images"]), len(annotations["annotations"])) == (images, objects)
    assert sorted(path.name for path in (folder / split).iterdir()) == sorted(
        i["file_name"] for i in annotations["images"]
    )
    for entry in annotations["images"]:
        with Image.open(folder / split / entry["file_name"]) as image:
            assert (image.size, image.mode) == (size, mode) == ((entry["width"], entry["height"]), mode)
    boxes = np.array([each["bbox"] for each in annotations["annotations"]])
    assert (boxes[:, 2:] > 0).all()
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all()


def test_photographs_open():
    names = sorted(path.stem for path in samples.photos_dir().glob("*.jpg"))
    assert names == ["astronaut", "chelsea", "coffee", "grace_hopper", "rocket"]
    for name in names:
        assert np.asarray(Image.open(samples.photos_dir() / f"{name}.jpg")).std() > 20


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2_000)])
def test_fashion_mnist_is_the_same_in_both_forms(split, count):
    idx_files = idx.source(samples.fashion_mnist_dir(), split, idx.FASHION_MNIST)
    prepared = tfds.directory(samples.fashion_mnist_tfds_dir(), split)
    assert idx_files.length == prepared.length == count
    assert idx_files.classes == prepared.classes
    np.testing.assert_array_equal(idx_files.labels(), prepared.labels())
    for ours, theirs in zip(*(source.read(np.arange(0, count, 97)) for source in (idx_files, prepared)), strict=True):
        pixels, png = (decode(each.image, placement.keep(28), None, channels=1)[0] for each in (ours, theirs))
        np.testing.assert_array_equal(pixels, png)


def test_every_sample_says_whose_it_is():
    root = samples.photos_dir().parent
    for name in ("fashion_mnist", "fashion_mnist_sample", "trees", "nuclei"):
        assert "Copyright" in (root / name / "LICENSE").read_text()
        assert f"{name}/" in (root / "README.md").read_text()

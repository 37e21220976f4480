import json

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import samples

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


def test_every_sample_says_whose_it_is():
    root = samples.photos_dir().parent
    for name in ("fashion_mnist_sample", "trees", "nuclei"):
        assert "Copyright" in (root / name / "LICENSE").read_text()
        assert f"{name}/" in (root / "README.md").read_text()

"""Small real data that come with the package; README.md beside this file says what and from whom."""

from importlib.resources import files
from pathlib import Path


def fashion_mnist_dir() -> Path:
    """IDX files (`data.idx`): 10,000 training and 2,000 test images of 28x28 grey pixels, ten classes."""
    return _path("fashion_mnist")


def fashion_mnist_tfds_dir() -> Path:
    """A prepared TFDS dataset of the same images in the same order (array_record)."""
    return _path("fashion_mnist_sample/1.0.0")


def trees_dir() -> Path:
    """Tree crowns from above, 256x256 RGB: `train/`, `test/`, and `train.json`, `test.json` with boxes in COCO form."""
    return _path("trees")


def nuclei_dir() -> Path:
    """Cell nuclei, 128x128 grey: `train/`, `test/`, and `train.json`, `test.json` with RLE masks in COCO form."""
    return _path("nuclei")


def photos_dir() -> Path:
    """Five unlabelled photographs, JPEG."""
    return _path("photos")


def _path(name: str) -> Path:
    return Path(str(files(__name__) / name))

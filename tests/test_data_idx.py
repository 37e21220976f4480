import gzip
import struct

import numpy as np
import pytest
from data_encoding import noise

from jaxvision.data import idx

IMAGES, LABELS = noise(5, 28, 28), np.array([3, 0, 9, 9, 1], np.uint8)


def idx_bytes(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(root, split="train", pack=gzip.compress, end=".gz", images=IMAGES, labels=LABELS):
    (root / f"{split}-images-idx3-ubyte{end}").write_bytes(pack(idx_bytes(images)))
    (root / f"{split}-labels-idx1-ubyte{end}").write_bytes(pack(idx_bytes(labels)))


@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, ".gz"), (lambda data: data, "")])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_images_and_labels_are_read(tmp_path, pack, end, split, prefix):
    write(tmp_path, prefix, pack, end)
    source = idx.source(tmp_path, split, idx.FASHION_MNIST)
    np.testing.assert_array_equal([example.image for example in source.read(np.arange(5))], IMAGES)
    np.testing.assert_array_equal(source.labels(), LABELS)
    assert source.classes[9] == "Ankle boot"
    assert source.name(2) == f"{tmp_path}/{split}[2]"
    assert idx.source(tmp_path, split).classes == tuple("0123456789")


def test_missing_files_and_wrong_splits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte\.gz"):
        idx.source(tmp_path, "test")
    with pytest.raises(ValueError, match="one of train, test, got 'val'"):
        idx.source(tmp_path, "val")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "should begin with"),
        (b"\x89PNG\r\n", "should begin with .*not b'.x89PNG'"),
        (idx_bytes(LABELS), "should begin with .*rank 3"),
        (idx_bytes(IMAGES, kind=9), "should begin with .*unsigned bytes"),
        (idx_bytes(IMAGES)[:10], "announces 5x0x0 values, but holds 0"),
        (idx_bytes(IMAGES)[:-1], "announces 5x28x28 values, but holds 3919"),
        (idx_bytes(IMAGES) + b"x", "announces 5x28x28 values, but holds 3921"),
    ],
)
def test_broken_files_are_named(tmp_path, data, match):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path.name} {match}"):
        idx.read(path, dimensions=3)


def test_a_broken_gzip_file_is_named(tmp_path):
    path = tmp_path / "x.gz"
    for data in (gzip.compress(idx_bytes(IMAGES))[:-20], b"no gzip"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.gz is a broken gzip file"):
            idx.read(path, dimensions=3)


def test_images_and_labels_must_be_as_many(tmp_path):
    write(tmp_path, labels=LABELS[:4])
    with pytest.raises(ValueError, match="5 images, but 4 labels"):
        idx.source(tmp_path, "train")

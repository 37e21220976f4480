import os
import re
import shlex
import shutil
import socket
import subprocess

import numpy as np
import pytest
from data_encoding import examples, image_and_label, labelled, noise, prepare_tfds, tfds_builder

from jaxvision.data import host_tensorflow, placement, samples, streams, tfds
from jaxvision.errors import DataError

IMAGES, LABELS, CLASSES = labelled(40)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Datasets laid out as TFDS lays out the public ones, written by TFDS."""
    host_tensorflow.tensorflow()
    root = tmp_path_factory.mktemp("tfds")
    fine = [str(k) for k in range(100)]
    cifar10 = lambda tfds: {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(names=list(CLASSES)),
    }
    cifar100 = lambda tfds: {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(names=fine),
        "coarse_label": tfds.features.ClassLabel(num_classes=20),
    }
    fashion = lambda tfds: {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(names=list(CLASSES)),
    }
    imagenet = lambda tfds: {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(CLASSES)),
        "file_name": tfds.features.Text(),
    }
    small = noise(6, 32, 32, 3)
    ids = [f"train_{k:05d}" for k in range(6)]
    prepare_tfds(root, "cifar10", "3.0.2", cifar10, {"train": examples(small, [0, 1, 2, 0, 1, 2], id=ids)})
    coarse = examples(small, range(94, 100), id=ids, coarse_label=range(6))
    prepare_tfds(root, "cifar100", "3.0.2", cifar100, {"train": coarse})
    grey = noise(6, 28, 28, 1)
    splits = {"train": examples(grey, [2] * 6), "test": examples(grey[:2], [1, 0])}
    prepare_tfds(root, "fashion_mnist", "3.0.1", fashion, splits)
    names = [f"n{k}.JPEG" for k in range(6)]
    prepare_tfds(root, "imagenet2012", "5.1.0", imagenet, {"validation": examples(small, [1] * 6, file_name=names)})
    prepare_tfds(root, "noise", "1.0.0", image_and_label(CLASSES), {"train": examples(IMAGES, LABELS)})
    prepare_tfds(root, "old", "1.0.0", image_and_label(CLASSES), {"train": examples(IMAGES, LABELS)}, "tfrecord")
    return root


def pixels(data):
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def test_examples_come_in_the_order_asked_for_as_encoded_bytes(data_dir):
    source = tfds.source("noise", "train", data_dir)
    assert (source.length, source.classes) == (40, CLASSES)
    wanted = np.random.RandomState(0).permutation(40)
    read = source.read(wanted)
    np.testing.assert_array_equal([pixels(example.image) for example in read], IMAGES[wanted])
    assert [example.label for example in read] == LABELS[wanted].tolist()
    np.testing.assert_array_equal(source.labels(), LABELS)
    assert source.labels().dtype == np.int64
    assert source.name(7) == "noise/1.0.0 train[7]"


@pytest.mark.parametrize(
    ("name", "split", "classes", "label", "title"),
    [
        ("cifar10", "train", 3, 1, "cifar10/3.0.2 train train_00001"),
        ("cifar100", "train", 100, 95, "cifar100/3.0.2 train train_00001"),
        ("fashion_mnist", "test", 3, 0, "fashion_mnist/3.0.1 test[1]"),
        ("imagenet2012", "validation", 3, 1, "imagenet2012/5.1.0 validation n1.JPEG"),
        ("imagenet2012:5.1.0", "validation", 3, 1, "imagenet2012/5.1.0 validation n1.JPEG"),
    ],
)
def test_public_datasets_are_understood(data_dir, name, split, classes, label, title):
    source = tfds.source(name, split, data_dir)
    assert len(source.classes) == classes
    example = source.read(np.array([1]))[0]
    assert example.label == label
    assert pixels(example.image).dtype == np.uint8
    assert source.name(1) == title


def test_another_label_can_be_asked_for(data_dir):
    source = tfds.source("cifar100", "train", data_dir, label="coarse_label")
    assert source.labels().tolist() == [0, 1, 2, 3, 4, 5]
    assert len(source.classes) == 20


def test_parts_of_splits_cover_the_split(data_dir):
    parts = [tfds.source("noise", part, data_dir) for part in ("train[:30%]", "train[30%:]")]
    assert [part.length for part in parts] == [12, 28]
    read = [example.image for part in parts for example in part.read(np.arange(part.length))]
    np.testing.assert_array_equal([pixels(image) for image in read], IMAGES)


def test_fingerprints_tell_datasets_and_splits_apart(data_dir):
    prints = [
        tfds.source(name, split, data_dir).fingerprint
        for name, split in (
            ("noise", "train"),
            ("noise", "train[:50%]"),
            ("cifar10", "train"),
            ("fashion_mnist", "test"),
        )
    ]
    assert len(set(prints)) == 4
    assert tfds.source("noise", "train", data_dir).fingerprint == prints[0]


@pytest.mark.parametrize("split", ["validation", "train[:x]", "train[", "train+val"])
def test_a_wrong_split_names_the_right_ones(data_dir, split):
    with pytest.raises(ValueError, match=r"fashion_mnist/3.0.1 has the splits test \(2\), train \(6\)") as raised:
        tfds.source("fashion_mnist", split, data_dir)
    assert repr(split) in str(raised.value)


@pytest.mark.parametrize(
    ("image", "label"), [("picture", "label"), ("image", "class"), ("label", "label"), ("image", "image")]
)
def test_a_wrong_feature_names_the_present_ones(data_dir, image, label):
    with pytest.raises(ValueError, match=r"it has image \(Image\), label \(ClassLabel\)"):
        tfds.source("noise", "train", data_dir, image=image, label=label)


def test_a_missing_dataset_names_the_present_ones_and_a_command_that_works(data_dir, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no prepared dataset 'absent'") as raised:
        tfds.source("absent", "train", data_dir)
    assert f"in {data_dir} (found there: cifar10/3.0.2, cifar100/3.0.2, fashion_mnist/3.0.1" in str(raised.value)

    with pytest.raises(FileNotFoundError, match="found there: none") as raised:
        tfds.source("newcomer", "train", tmp_path)
    python, option, program = shlex.split(str(raised.value).partition("this prepares it: ")[2])
    assert (python, option) == ("python", "-c")
    builder = tfds_builder("newcomer", "1.0.0", image_and_label(CLASSES), {"train": examples(IMAGES, LABELS)})
    import tensorflow_datasets

    monkeypatch.setitem(tensorflow_datasets.core.registered._DATASET_REGISTRY, "newcomer", builder)
    exec(program, {})
    assert tfds.source("newcomer", "train", tmp_path).length == 40


def test_tfrecord_is_refused_with_the_command_that_converts_it(data_dir):
    with pytest.raises(
        ValueError, match=r"stored as tfrecord, .*pip install apache-beam mlcroissant && tfds convert_format"
    ):
        tfds.source("old", "train", data_dir)


@pytest.mark.slow
def test_the_command_that_converts_tfrecord_works(data_dir, tmp_path):
    pytest.importorskip("apache_beam")
    pytest.importorskip("mlcroissant")
    root = shutil.copytree(data_dir / "old", tmp_path / "old").parent
    with pytest.raises(ValueError, match="tfrecord") as raised:
        tfds.source("old", "train", root)
    command = shlex.split(re.search("&& (.*)$", str(raised.value))[1])
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    source = tfds.source("old", "train", root)
    np.testing.assert_array_equal([pixels(each.image) for each in source.read(np.arange(40))], IMAGES)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json"):
        tfds.directory(tmp_path, "train")


def test_a_dataset_can_be_given_by_its_folder(data_dir):
    source = tfds.directory(data_dir / "noise" / "1.0.0", "train")
    assert source.fingerprint == tfds.source("noise", "train", data_dir).fingerprint


def test_the_sample_needs_no_network_and_is_left_as_it_is(monkeypatch):
    def offline(*args):
        raise AssertionError("connected to the network")

    monkeypatch.setattr(socket.socket, "connect", offline)
    folder = samples.fashion_mnist_tfds_dir()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}
    for split, count in (("train", 10_000), ("test", 2_000)):
        source = tfds.directory(folder, split)
        assert source.length == count
        np.testing.assert_array_equal(np.bincount(source.labels()), [count // 10] * 10)
        assert pixels(source.read(np.array([count - 1]))[0].image).shape == (28, 28)
    assert source.classes[0] == "T-shirt/top"
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))} == before


def test_tensorflow_is_kept_off_the_accelerators():
    assert host_tensorflow.tensorflow().config.get_visible_devices("GPU") == []
    assert host_tensorflow.loaded() is host_tensorflow.tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] in ("2", "3")


def damaged(root, change):
    """A copy of the bundled dataset, one of its files changed."""
    place = root / "fashion_mnist_sample" / "1.0.0"
    shutil.copytree(samples.fashion_mnist_tfds_dir(), place)
    change(place)
    return lambda: tfds.source("fashion_mnist_sample", "test", root)


def records_of(place):
    return next(place.glob("*test.array_record*"))


def rewritten(name, change):
    def apply(place):
        file = records_of(place) if name is None else place / name
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(change(content))

    return apply


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


def a_pipe(place):
    file = records_of(place)
    file.unlink()
    os.mkfifo(file)


DESCRIPTIONS = {
    "no_info": rewritten("dataset_info.json", lambda data: b""),
    "half_of_info": rewritten("dataset_info.json", lambda data: data[: len(data) // 2]),
    "deep_info": rewritten("dataset_info.json", lambda data: b"[" * 100_000),
    "endless_info": rewritten("dataset_info.json", lambda data: data.replace(b'"2000"', b'"999999999999"')),
    "half_of_features": rewritten("features.json", lambda data: data[: len(data) // 2]),
    "a_pipe": a_pipe,
}
RECORDS = {
    "empty": rewritten(None, lambda data: b""),
    "cut": rewritten(None, lambda data: data[: len(data) // 2]),
    "gone": lambda place: records_of(place).unlink(),
}


@pytest.mark.parametrize("change", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_damaged_dataset_is_told_in_one_line_when_it_is_opened(tmp_path, change):
    with pytest.raises(DataError, match=r"^.*fashion_mnist_sample[^\n]*$"):
        damaged(tmp_path, change)()


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_damaged_records_are_told_in_one_line_when_they_are_read(tmp_path, change):
    source = damaged(tmp_path, change)()
    faults = [example.fault for example in source.read(np.arange(20))]
    assert all("fashion_mnist_sample" in fault and "\n" not in fault for fault in faults)
    with pytest.raises(DataError, match=r"^[^\n]*fashion_mnist_sample[^\n]*$"):
        source.labels()
    stream = streams.evaluation(lambda: source, placer=placement.keep(28), batch_size=4)
    with pytest.raises(DataError, match=r"^[^\n]*fashion_mnist_sample[^\n]*$"):
        next(stream.batches(0))


def test_one_damaged_record_costs_no_other(tmp_path):
    source = damaged(tmp_path, rewritten(None, flipped))()
    faults = [example.fault for example in source.read(np.arange(source.length))]
    assert sum(fault is not None for fault in faults) == 1
    expected = tfds.source("fashion_mnist_sample", "test", samples.fashion_mnist_tfds_dir().parent.parent)
    for one, other, fault in zip(source.read(np.arange(2000)), expected.read(np.arange(2000)), faults, strict=True):
        assert fault is not None or one == other

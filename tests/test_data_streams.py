import itertools
import logging
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from data_encoding import encoded, examples, image_and_label, labelled, noise, prepare_tfds, smooth, write_folder

from jaxvision import data
from jaxvision.data import arrays, folder, host_tensorflow, order, placement, readers, resident, streams, tfds
from jaxvision.data.source import concatenate
from jaxvision.formats.image_file import BadImage

IMAGES, LABELS, CLASSES = labelled(45)
WEIGHTS = 1.0 + np.arange(45) % 4


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same examples as arrays, PNG files and TFDS records."""
    host_tensorflow.tensorflow()
    root = tmp_path_factory.mktemp("stores")
    write_folder(root / "folder", IMAGES, LABELS, CLASSES)
    prepare_tfds(root / "tfds", "noise", "1.0.0", image_and_label(CLASSES), {"train": examples(IMAGES, LABELS)})
    return {
        "arrays": lambda: arrays.source(IMAGES, LABELS, CLASSES),
        "folder": lambda: folder.source(root / "folder"),
        "tfds": lambda: tfds.source("noise", "train", root / "tfds"),
    }


def take(stream, start, count):
    batches = stream.batches(start)
    taken = [jax.tree.map(np.asarray, batch) for batch in itertools.islice(batches, count)]
    batches.close()
    return taken


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == jax.tree.map(lambda x: (x.shape, x.dtype), other)


CANVAS = {"canvas": (12, 8)}
PLACER = {"placer": placement.keep((12, 8))}
WAYS = {
    "arrays": ("arrays", arrays, CANVAS),
    "resident": ("arrays", resident, CANVAS),
    "folder": ("folder", streams, PLACER),
    "tfds": ("tfds", streams, PLACER),
    "tf.data": ("tfds", streams, {**PLACER, "reader": readers.tf_data()}),
    "tf.data from folder": ("folder", streams, {**PLACER, "reader": readers.tf_data(2)}),
    "resident reader": ("arrays", streams, {**PLACER, "reader": resident.reader()}),
    "resident from tfds": ("tfds", resident, CANVAS),
    "arrays from folder": ("folder", arrays, CANVAS),
}


def by_hand(index, height=12, width=8):
    image = np.zeros((len(index), height, width, 3), np.uint8)
    image[:, :9, :7] = IMAGES[index] * (index >= 0)[:, None, None, None]
    return image


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("ordered", [order.shuffled(5), order.weighted(WEIGHTS, 5), order.balanced(6)])
def test_a_training_batch_is_the_same_however_it_is_stored_and_read(stores, way, start, ordered):
    store, room, place = WAYS[way]
    stream = room.training(stores[store], order=ordered, batch_size=10, **place)
    found = take(stream, start, 6)  # 45 examples: across the border of an epoch
    indices = ordered(stores["arrays"]())
    for step, batch in enumerate(found, start):
        index = indices(np.arange(10 * step, 10 * step + 10))
        np.testing.assert_array_equal(batch.index, index)
        np.testing.assert_array_equal(batch.image, by_hand(index))
        np.testing.assert_array_equal(batch.target.label, LABELS[index])
    same = arrays.training(stores["arrays"], order=ordered, batch_size=10, **CANVAS)
    assert_same(found, take(same, start, 6))
    assert stream.spec == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found[0])


@pytest.mark.parametrize("way", WAYS)
def test_evaluation_has_every_example_once_and_pads_the_last_batch(stores, way):
    store, room, place = WAYS[way]
    stream = room.evaluation(stores[store], batch_size=20, **place)
    found = take(stream, 0, 10)
    index = np.concatenate([batch.index for batch in found])
    np.testing.assert_array_equal(index, [*range(45), *[-1] * 15])
    np.testing.assert_array_equal(np.concatenate([batch.valid for batch in found]), index >= 0)
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in found]), by_hand(index))
    np.testing.assert_array_equal(np.concatenate([batch.target.label for batch in found]), LABELS[index] * (index >= 0))
    assert_same(found, take(arrays.evaluation(stores["arrays"], batch_size=20, **CANVAS), 0, 10))
    assert_same(take(stream, 1, 10), found[1:])
    assert take(stream, 3, 10) == []
    assert stream.spec == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found[-1])


def test_1997_examples_in_batches_of_64():
    images = noise(1997, 2, 2)
    source = lambda: arrays.source(images, np.zeros(1997, int))
    found = take(streams.evaluation(source, placer=placement.keep(2), batch_size=64, channels=1), 0, 99)
    assert len(found) == 32
    valid = np.concatenate([batch.valid for batch in found])
    np.testing.assert_array_equal(np.concatenate([batch.index for batch in found])[valid], np.arange(1997))
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in found])[valid][..., 0], images)
    assert valid.sum() == 1997


PHOTOS = [smooth(700 + 13 * k, 500 + 31 * k, seed=k) for k in range(6)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for number, photo in enumerate(PHOTOS):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        (root / "ab"[number % 2] / f"{number}.jpg").write_bytes(encoded(photo, "JPEG"))
    return lambda: folder.source(root)


def cropped(source, seed=1, **options):
    placer = placement.random_resized_crop(24, area=(0.05, 0.5))
    return streams.training(source, order=order.shuffled(0), placer=placer, batch_size=8, seed=seed, **options)


def test_random_crops_depend_on_seed_and_position_alone(photographs):
    expected = take(cropped(photographs), 0, 5)
    for options in ({"reader": readers.threads(1)}, {"reader": readers.threads(5)}, {"reader": readers.tf_data(3)}):
        assert_same(take(cropped(photographs, **options), 0, 5), expected)
    assert_same(take(cropped(photographs), 3, 2), expected[3:])
    other = take(cropped(photographs, seed=2), 0, 5)
    np.testing.assert_array_equal([batch.index for batch in other], [batch.index for batch in expected])
    images = np.concatenate([batch.image for batch in (*expected, *other)])
    assert len(np.unique(images, axis=0)) == 80  # each example is cropped in another way every time
    crops = np.concatenate([batch.original_size for batch in expected])
    names = [photographs().name(int(index)) for batch in expected for index in batch.index]
    assert [PHOTOS[int(name[2])].shape[:2] for name in names] == [tuple(size) for size in crops]


def test_mixtures_run_through_the_pipeline(stores):
    both = lambda: concatenate(stores["arrays"](), stores["folder"]())
    mixed = order.mixture([1, 2], [order.shuffled(0), order.shuffled(1)], seed=0)
    found = take(streams.training(both, order=mixed, batch_size=30, **PLACER), 0, 3)
    index = np.concatenate([batch.index for batch in found])
    assert [(index < 45).sum(), (index >= 45).sum()] == [30, 60]
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in found]), by_hand(index % 45))


def test_a_batch_may_have_any_size(stores):
    for size in (1, 7, 37, 64, 96):
        batch = take(streams.training(stores["arrays"], order=order.shuffled(1), batch_size=size, **PLACER), 2, 1)[0]
        np.testing.assert_array_equal(batch.index, order.shuffled(1)(stores["arrays"]())(np.arange(2 * size, 3 * size)))
        assert size % readers.chunk_size(size) == 0
    assert [readers.chunk_size(size) for size in (1, 7, 37, 64, 96)] == [1, 7, 1, 32, 32]


BROKEN = {3: b"", 20: encoded(smooth(50, 50), "JPEG")[:500], 21: b"<html>"}


@pytest.fixture
def broken():
    whole = arrays.source(IMAGES, LABELS, CLASSES, name="noise")

    def read(indices):
        return [
            example._replace(image=BROKEN.get(int(index), example.image))
            for index, example in zip(indices, whole.read(indices), strict=True)
        ]

    return lambda: whole._replace(read=read)


ROOMS = {
    "threads": (streams, PLACER),
    "tf.data": (streams, {**PLACER, "reader": readers.tf_data()}),
    "arrays": (arrays, CANVAS),
    "resident": (resident, CANVAS),
}


@pytest.mark.parametrize("room", ["threads", "tf.data", "arrays"])
def test_a_bad_image_ends_it_where_its_batch_would_have_come(broken, room):
    make, place = ROOMS[room]
    batches = make.evaluation(broken, batch_size=10, **place).batches(1)
    assert next(batches).valid.all()
    with pytest.raises(BadImage, match=r"^noise\[20\]: can't be decoded: .*$") as raised:
        next(batches)
    assert "tensorflow" not in str(raised.value).lower()
    assert "\n" not in str(raised.value)


def test_a_bad_image_ends_a_resident_stream_at_once(broken):
    with pytest.raises(BadImage, match=r"noise\[3\]: the file is empty \(0 bytes\)"):
        next(resident.evaluation(broken, batch_size=10, **CANVAS).batches(1))


@pytest.mark.parametrize("room", ROOMS)
def test_bad_images_can_be_skipped_and_are_reported_once(broken, room, caplog):
    make, place = ROOMS[room]
    stream = make.training(broken, order=order.sequential(), batch_size=15, on_bad_image="skip", **place)
    found = take(stream, 0, 6)  # two epochs
    index = np.concatenate([batch.index for batch in found])
    good = ~np.isin(index, list(BROKEN))
    np.testing.assert_array_equal(index, np.tile(np.arange(45), 2))
    np.testing.assert_array_equal(np.concatenate([batch.valid for batch in found]), good)
    expected = by_hand(index) * good[:, None, None, None]
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in found]), expected)
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [sum(f"noise[{number}]" in message for message in messages) for number in BROKEN] == [1, 1, 1]
    assert any("(3 so far)" in message for message in messages)


def test_a_resident_stream_refuses_a_random_placer(stores):
    placer = placement.random_resized_crop(8)
    with pytest.raises(ValueError, match="places its images once, so its placer can't be a random one"):
        streams.training(
            stores["arrays"], order=order.shuffled(0), placer=placer, batch_size=4, reader=resident.reader()
        )


def test_dropping_an_iterator_stops_its_threads(stores):
    before = set(threading.enumerate())
    stream = streams.training(stores["folder"], order=order.shuffled(0), batch_size=10, **PLACER)
    batches = stream.batches(0)
    next(batches)
    assert {thread.name.split("_")[0] for thread in set(threading.enumerate()) - before} == {"prefetch", "reader"}
    del batches
    assert set(threading.enumerate()) <= before


def test_any_other_error_comes_as_it_is(stores):
    def vanished(indices):
        raise FileNotFoundError("bee/3.png has vanished")

    source = stores["arrays"]()._replace(read=vanished)
    with pytest.raises(FileNotFoundError, match=r"^bee/3\.png has vanished$"):
        next(streams.evaluation(lambda: source, batch_size=10, **PLACER).batches(0))


def test_an_image_larger_than_the_canvas_is_never_skipped(stores):
    stream = streams.evaluation(stores["folder"], placer=placement.keep(8), batch_size=9, on_bad_image="skip")
    with pytest.raises(ValueError, match=r"ant/00000\.png: 9x7 is larger than the canvas 8x8"):
        next(stream.batches(0))


def test_dropping_an_endless_iterator_leaves_nothing_running(stores):
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from jaxvision.data import arrays, order, streams, placement
from jaxvision.data.prefetch import prefetch
source = lambda: arrays.source(np.zeros((9, 2, 2), np.uint8), np.arange(9))
stream = streams.training(source, order=order.shuffled(0), placer=placement.keep(2), batch_size=4)
first, second, third = stream.batches(0), stream.batches(5), prefetch(stream.batches(9), size=3)
print(next(first).index.shape, next(second).index.shape, next(third).index.shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(4,) (4,) (4,)\n", "")


def test_no_module_of_the_room_imports_tensorflow():
    modules = [path.stem for path in Path(data.__path__[0]).glob("*.py") if path.stem != "__init__"]
    assert len(modules) > 12
    program = f"""
import importlib, sys
for name in {modules + ["samples"]!r}:
    importlib.import_module("jaxvision.data." + name)
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"tensorflow", "tensorflow_datasets", "torch"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")

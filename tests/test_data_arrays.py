import threading

import numpy as np
import pytest
from data_encoding import labelled, noise

from jaxvision.data import arrays, order
from jaxvision.formats.image_file import BadImage

IMAGES, LABELS, CLASSES = labelled(50)


def test_a_source_gives_back_its_arrays():
    source = arrays.source(IMAGES, LABELS, CLASSES, name="noise")
    wanted = np.array([4, 49, 0])
    read = source.read(wanted)
    np.testing.assert_array_equal([example.image for example in read], IMAGES[wanted])
    assert [example.label for example in read] == LABELS[wanted].tolist()
    assert (source.length, source.classes, source.name(3)) == (50, CLASSES, "noise[3]")
    assert arrays.source(IMAGES, LABELS).classes == ("0", "1", "2")


def test_the_fingerprint_covers_images_labels_and_classes():
    other_image, other_label = IMAGES.copy(), LABELS.copy()
    other_image[7, 0, 0, 0] ^= 1
    other_label[0] = 2
    sources = [(IMAGES, LABELS), (other_image, LABELS), (IMAGES, other_label), (IMAGES.reshape(50, 7, 9, 3), LABELS)]
    prints = {arrays.source(*source, CLASSES).fingerprint for source in sources}
    prints.add(arrays.source(IMAGES, LABELS, ("ant", "bee", "dog")).fingerprint)
    assert len(prints) == 5
    assert arrays.source(IMAGES.copy(), LABELS.astype(np.uint8), CLASSES).fingerprint in prints


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (IMAGES.astype(np.float32), LABELS, r"images must be uint8 .* got float32 \[50, 9, 7, 3\]"),
        (IMAGES[0], LABELS, "labels must be|9 images, but 50"),
        (IMAGES[..., :2], LABELS, r"got uint8 \[50, 9, 7, 2\]"),
        (IMAGES, LABELS[:9], "50 images, but 9 labels"),
        (IMAGES, LABELS.astype(float), r"labels must be integers \[n\], got float64 \[50\]"),
        (IMAGES, LABELS[:, None], r"got int64 \[50, 1\]"),
        (IMAGES, LABELS + 1, "labels go from 1 to 3, allowed are 0 to 2"),
        (IMAGES, LABELS - 1, "labels go from -1 to 1, allowed are 0 to 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, match):
    with pytest.raises(ValueError, match=match):
        arrays.source(images, labels, CLASSES)


def test_an_npz_file_is_read_by_key(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=IMAGES, y=LABELS, floats=IMAGES / 255)
    source = arrays.open_npz(path, images="x", labels="y", classes=CLASSES)
    np.testing.assert_array_equal(source.read(np.array([11]))[0].image, IMAGES[11])
    assert source.name(0) == f"{path}[0]"
    with pytest.raises(ValueError, match=r"data\.npz has no array 'images'; it has floats, x, y"):
        arrays.open_npz(path)
    with pytest.raises(ValueError, match=r"data\.npz: images must be uint8"):
        arrays.open_npz(path, images="floats", labels="y")


def opened():
    return arrays.source(IMAGES, LABELS, CLASSES, name="noise")


def test_training_batches_hold_the_ordered_examples_on_their_canvas():
    stream = arrays.training(opened, order=order.shuffled(3), canvas=(10, 12), batch_size=16)
    batches = stream.batches(5)
    for step in range(5, 9):
        batch = next(batches)
        index = order.shuffled(3)(opened())(np.arange(16 * step, 16 * step + 16))
        np.testing.assert_array_equal(batch.index, index)
        np.testing.assert_array_equal(batch.target.label, LABELS[index])
        np.testing.assert_array_equal(batch.image[:, :9, :7], IMAGES[index])
        assert not batch.image[:, 9:].any()
        assert not batch.image[:, :, 7:].any()
        np.testing.assert_array_equal(batch.size, np.tile([9, 7], (16, 1)))
        np.testing.assert_array_equal(batch.original_size, np.tile([9, 7], (16, 1)))
        assert batch.valid.all()


def test_grey_arrays_fit_either_number_of_channels():
    grey = lambda: arrays.source(noise(4, 6, 6), np.zeros(4, int))
    for channels in (1, 3):
        batch = next(arrays.evaluation(grey, canvas=6, batch_size=4, channels=channels).batches(0))
        np.testing.assert_array_equal(batch.image, np.repeat(noise(4, 6, 6)[..., None], channels, axis=3))


def test_what_does_not_fit_the_canvas_names_image_and_canvas():
    stream = arrays.training(opened, order=order.sequential(), canvas=(8, 8), batch_size=4)
    with pytest.raises(ValueError, match=r"noise\[0\]: 9x7 is larger than the canvas 8x8"):
        next(stream.batches(0))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 10**20}, "batch_size must be at most 2,147,483,647, got 100000000000000000000"),
        ({"channels": 4}, "channels must be 1 .* got 4"),
        ({"on_bad_image": "ignore"}, '"raise" or "skip", got \'ignore\''),
    ],
)
def test_wrong_arguments_are_refused_at_once(options, match):
    with pytest.raises(ValueError, match=match):
        arrays.evaluation(opened, **{"canvas": 10, "batch_size": 4, **options})


def test_making_a_stream_opens_nothing_and_using_it_opens_once():
    calls = []
    stream = arrays.training(lambda: calls.append(1) or opened(), order=order.shuffled(0), canvas=10, batch_size=4)
    assert calls == []
    for step in range(3):
        next(stream.batches(step))
    about = stream.about()
    assert calls == [1]
    assert (about.examples, about.classes, about.name(3)) == (50, CLASSES, "noise[3]")
    assert about.fingerprint == opened().fingerprint


def test_an_empty_source_is_refused_when_it_is_opened():
    empty = lambda: arrays.source(IMAGES[:0], LABELS[:0])
    for stream in (
        arrays.evaluation(empty, canvas=10, batch_size=4),
        arrays.training(empty, order=order.sequential(), canvas=10, batch_size=4),
    ):
        with pytest.raises(ValueError, match="no examples"):
            next(stream.batches(0))


def test_the_thread_ends_with_the_iterator():
    batches = arrays.training(opened, order=order.sequential(), canvas=10, batch_size=4).batches(0)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_bad_images_are_named():
    broken = opened()._replace(read=lambda indices: [each._replace(image=b"") for each in opened().read(indices)])
    with pytest.raises(BadImage, match=r"noise\[0\]: the file is empty"):
        next(arrays.evaluation(lambda: broken, canvas=10, batch_size=4).batches(0))


def test_a_file_that_is_no_npz_is_named(tmp_path):
    (tmp_path / "notes.npz").write_text("some notes")
    with pytest.raises(ValueError, match=r"notes\.npz is no \.npz file"):
        arrays.open_npz(tmp_path / "notes.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"one\.npy holds a single array"):
        arrays.open_npz(tmp_path / "one.npy")

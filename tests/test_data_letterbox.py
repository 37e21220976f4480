"""The letterbox: its padding, and that boxes, masks and detections go to the canvas and back."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_encoding import encoded, noise, smooth
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data import arrays, buckets, order, placement, readers, resident, streams, target
from jaxvision.data.decode import decode
from jaxvision.data.interpolation import OPENCV_BILINEAR
from jaxvision.data.placement import letterbox
from jaxvision.data.source import Example, Source, annotations
from jaxvision.draw.classification import images_of
from jaxvision.experiment import Selection
from jaxvision.metrics.detection import detection, in_file
from jaxvision.run import prediction, records
from jaxvision.types import Batch, Detections, Objects

sides = st.integers(1, 500)
GREY = letterbox((48, 64), fill=127, centred=True)


@settings(deadline=None)
@given(sides, sides, st.booleans())
def test_padding_and_image_fill_the_canvas(height, width, centred):
    placer = letterbox((48, 64), fill=127, centred=centred)
    box, size, (left, top, right, bottom) = where = placer.place(None, (height, width))
    assert box == (0, 0, width, height)
    plain = letterbox((48, 64)).place(None, (height, width)).size
    assert all(0 <= side - mine <= centred for side, mine in zip(plain, size, strict=True))
    assert 48 in size[:1] or 64 in size[1:]
    assert where.content == (48, 64)
    assert (0 <= right - left <= 1 and 0 <= bottom - top <= 1) if centred else (left, top) == (0, 0)


@settings(deadline=None)
@given(sides, sides, sides, sides)
def test_the_window_is_what_the_content_shows(height, width, x, y):
    where = GREY.place(None, (height, width))
    x0, y0, x1, y1 = where.window
    (rows, columns), (left, top, _, _) = where.size, where.padding
    on_canvas = left + x * columns / width, top + y * rows / height
    back = x0 + on_canvas[0] * (x1 - x0) / 64, y0 + on_canvas[1] * (y1 - y0) / 48
    np.testing.assert_allclose(back, (x, y), atol=1e-6 * max(height, width, x, y))


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (50, 51), (300, 200), (13, 700), (1000, 2000)])
def test_it_is_opencvs_letterbox(shape):
    pixels = smooth(*shape)
    options = cv2.dnn.Image2BlobParams((1, 1, 1), (416, 416))
    options.paddingmode, options.borderValue = cv2.dnn.DNN_PMODE_LETTERBOX, (127, 127, 127)
    expected = cv2.dnn.blobFromImageWithParams(pixels, options)[0].transpose(1, 2, 0)
    placer = letterbox(416, fill=127, centred=True, interpolation=OPENCV_BILINEAR)
    found = decode(pixels, placer)
    assert np.abs(found.image - expected).max() <= 1
    left, top, _, _ = found.placement.padding
    assert max(left, top) > 0
    assert (found.image[:top] == 127).all()
    assert (found.image[:, :left] == 127).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_padding_is_content_in_every_channel(channels):
    found = decode(encoded(noise(20, 40)), letterbox((40, 40), fill=9), channels=channels)
    assert found.size == (40, 40)
    assert (found.image[20:] == 9).all()
    plain = decode(encoded(noise(20, 40)), letterbox((40, 40)), channels=channels)
    assert plain.size == (20, 40)
    assert not plain.image[20:].any()


def test_what_it_can_not_do_is_said():
    with pytest.raises(ValueError, match=r"letterbox\(centred=True\) needs a fill"):
        letterbox(8, centred=True)
    with pytest.raises(ValueError, match=r"letterbox\(fill=256\): allowed is a grey level, 0 to 255, or None"):
        letterbox(8, fill=256)


def test_ground_truth_ends_where_the_image_does():
    found = annotations([[-30, -30, 20, 20], [90, 30, 500, 60], [200, 200, 300, 300]], [0, 1, 2])
    where = GREY.place(None, (50, 100))
    row = target.objects(3).empty(1, GREY.canvas)
    target.objects(3).fill(row, 0, Example(b"", objects=found), where)
    (left, top, _, _), (rows, columns) = where.padding, where.size
    assert (left, top, rows, columns) == (0, 8, 32, 64)
    assert row.valid[0].tolist() == [True, True, False]
    np.testing.assert_allclose(row.boxes[0, :2], [[0, 8, 12.8, 20.8], [57.6, 27.2, 64, 40]], rtol=1e-6)


def boxed(images, boxes):
    """A source of images with one object each."""
    found = [annotations([box], [0]) for box in boxes]
    return lambda: Source(
        length=len(images),
        read=lambda indices: [Example(images[i], objects=found[i]) for i in indices],
        labels=lambda: np.zeros(len(images), np.int64),
        classes=("thing",),
        name=str,
        fingerprint="boxed",
        objects=lambda: found,
        sizes=lambda: np.asarray([image.shape[:2] for image in images]),
    )


IMAGES = [noise(50, 100, 3), noise(100, 30, 3, seed=1), noise(20, 20, 3, seed=2)]
BOXES = [[10, 5, 60, 40], [0, 50, 30, 100], [3, 4, 15, 20]]


@pytest.mark.parametrize("reader", [readers.threads(1), readers.tf_data(1), resident.reader()])
def test_ground_truth_comes_back_to_the_file_whatever_reads_it(reader):
    options = {"placer": GREY, "batch_size": 4, "target": target.objects(2), "reader": reader}
    batch = jax.tree.map(np.asarray, next(streams.evaluation(boxed(IMAGES, BOXES), **options).batches(0)))
    assert batch.size.tolist() == [[48, 64]] * 4
    np.testing.assert_allclose(np.asarray(in_file(batch.target.boxes, batch))[:3, 0], BOXES, atol=1e-3)


def test_perfect_detections_on_the_canvas_have_an_ap_of_1():
    stream = streams.evaluation(boxed(IMAGES, BOXES), placer=GREY, batch_size=3, target=target.objects(1))
    batch = next(stream.batches(0))
    metric = detection(("thing",))
    truth = batch.target
    found = Detections(truth.boxes, truth.labels, np.ones((3, 1), np.float32), truth.valid)
    rows = {**metric.observe(found, batch), "index": batch.index}
    assert metric.compute(jax.tree.map(np.asarray, rows))["AP"] == 1.0


def test_buckets_take_letterboxes():
    placers = [letterbox((32, 64), fill=127, centred=True), letterbox((64, 32), fill=127, centred=True)]
    options = {"placers": placers, "batch_size": 2, "target": target.objects(1)}
    for batch in buckets.evaluation(boxed(IMAGES, BOXES), **options).batches(0):
        valid = np.asarray(batch.valid)
        np.testing.assert_allclose(
            np.asarray(in_file(batch.target.boxes, batch))[valid, 0],
            np.asarray(BOXES)[np.asarray(batch.index)[valid]],
            atol=1e-3,
        )


def test_detections_in_the_padding_are_cut_at_the_image():
    stream = streams.evaluation(boxed(IMAGES, BOXES), placer=GREY, batch_size=3, target=target.objects(1))
    canvas = stream.decode(IMAGES[0])
    assert canvas.window == GREY.place(None, (50, 100)).window
    boxes = np.asarray([[0, 0, 64, 48], [0, 0, 64, 7], [32, 24, 64, 40]], np.float32)
    found = Detections(boxes, np.zeros(3, int), np.ones(3), np.ones(3, bool))
    record = records.objects_record(found, canvas, Selection(("thing",)))
    assert [each["box"] for each in record["objects"]] == [[0, 0, 100, 50], [50, 25, 100, 50]]
    batch = prediction.batch_of([canvas], stream.spec.replace(target=None), 0)
    np.testing.assert_allclose(
        in_file(jnp.asarray(boxes)[None], jax.tree.map(lambda x: x[:1], batch))[0],
        [[0, 0, 100, 50], [0, 0, 100, 0], [50, 25, 100, 50]],
        atol=1e-4,
    )


def test_pictures_show_the_image_alone():
    stream = streams.evaluation(boxed(IMAGES, BOXES), placer=GREY, batch_size=2, target=target.objects(1))
    shown = images_of(stream, range(3))
    for number, image in shown.items():
        where = GREY.place(None, IMAGES[number].shape[:2])
        (height, width), (left, top, _, _) = where.size, where.padding
        np.testing.assert_array_equal(
            image, decode(IMAGES[number], GREY).image[top : top + height, left : left + width]
        )


def test_a_batch_without_a_window_shows_whole_files():
    size = np.asarray([[40, 20]], np.int32)
    batch = Batch(np.zeros((1, 64, 64, 3), np.uint8), size, 2 * size, np.zeros(1, np.int32), np.ones(1, bool))
    np.testing.assert_array_equal(in_file(np.asarray([[[1, 2, 3, 4]]], np.float32), batch)[0, 0], [2, 4, 6, 8])


def test_a_crop_is_mapped_back_by_its_window():
    source = boxed([noise(100, 80, 3)], [[30, 40, 50, 60]])
    options = {"placer": placement.resize_and_centre_crop(50, 40), "batch_size": 1, "target": target.objects(1)}
    batch = next(streams.evaluation(source, **options).batches(0))
    assert isinstance(batch.target, Objects)
    np.testing.assert_allclose(in_file(batch.target.boxes, batch)[0, 0], [30, 40, 50, 60], atol=1e-3)


def test_training_and_evaluation_see_the_same_letterbox():
    images = np.stack([noise(20, 40, 3, seed=k) for k in range(4)])
    source = lambda: arrays.source(images, np.zeros(4, int), ("a",))
    placer = letterbox(40, fill=127, centred=True)
    train = next(streams.training(source, order=order.sequential(), placer=placer, batch_size=4).batches(0))
    test = next(streams.evaluation(source, placer=placer, batch_size=4).batches(0))
    np.testing.assert_array_equal(train.image, test.image)
    assert (np.asarray(train.image)[:, :10] == 127).all()

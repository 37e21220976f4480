import json

import numpy as np
import pytest
from detection_files import CLASSES, OBJECTS, coco_content, write_coco, write_images, write_voc, write_yolo

from jaxvision.data import objects
from jaxvision.data.source import class_counts
from jaxvision.errors import DataError


def assert_holds_all(source):
    """All boxes of `detection_files`, image by image."""
    found = {int(source.name(index)[-7:-4]): each for index, each in enumerate(source.objects())}
    assert sorted(found) == sorted(OBJECTS)
    for number, each in found.items():
        expected = [(CLASSES[label], box) for label, box, _ in OBJECTS[number]]
        assert [source.classes[label] for label in each.labels] == [name for name, _ in expected]
        np.testing.assert_allclose(each.boxes, np.reshape([box for _, box in expected], (-1, 4)), atol=1e-4)
    assert class_counts(source) == [
        sum(CLASSES[label] == name for rows in OBJECTS.values() for label, _, _ in rows) for name in source.classes
    ]


def test_any_layout_opens_to_the_same_objects(tmp_path):
    root = write_yolo(tmp_path / "yolo")
    assert_holds_all(objects.open(root, classes=CLASSES))
    (root / "data.yaml").write_text(f"train: images\nnames: [{', '.join(CLASSES)}]\n")
    for path in (
        write_coco(tmp_path / "coco"),
        tmp_path / "coco",
        write_voc(tmp_path / "voc"),
        tmp_path / "voc",
        root,
        root / "data.yaml",
    ):
        assert_holds_all(objects.open(path))


def test_a_split_of_coco_lies_as_it_is_distributed(tmp_path):
    write_images(tmp_path / "val2017")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(coco_content()))
    assert_holds_all(objects.coco_split(tmp_path, "val2017"))
    with pytest.raises(FileNotFoundError, match="instances_train2017.json"):
        objects.coco_split(tmp_path, "train2017")


def test_without_a_split_a_divided_dataset_gives_the_one_to_train_on(tmp_path):
    year = write_voc(tmp_path)
    assert objects.open(year).fingerprint == objects.voc(year, "train", classes=CLASSES).fingerprint
    assert objects.open(year, "val").length == 1
    assert objects.open(year, "val").classes == CLASSES
    with pytest.raises(DataError, match="has no split 'test'; there are: train, val"):
        objects.open(year, "test")
    (year / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(DataError, match="has no split 'train'; there are: val"):
        objects.open(year)


def test_the_category_above_the_others_is_no_class(tmp_path):
    content = coco_content()
    for category in content["categories"]:
        category["supercategory"] = "animals"
    content["categories"].append({"id": 0, "name": "animals", "supercategory": "none"})
    write_images(tmp_path / "train")
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    source = objects.open(tmp_path)
    assert source.classes == CLASSES
    assert_holds_all(source)
    content["annotations"][0]["category_id"] = 0
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    assert objects.open(tmp_path).classes == ("animals", *CLASSES)


def test_the_second_file_has_the_classes_of_the_first(tmp_path):
    content = coco_content()
    train = write_coco(tmp_path / "a")
    content["categories"] = [{"id": 90 - each["id"], "name": each["name"]} for each in content["categories"]]
    content["annotations"] = [{**each, "category_id": 90 - each["category_id"]} for each in content["annotations"]]
    test = write_coco(tmp_path / "b", content)
    assert objects.open(test).classes == tuple(reversed(CLASSES))
    source = objects.open(test, classes=objects.open(train).classes)
    assert source.classes == CLASSES
    assert_holds_all(source)

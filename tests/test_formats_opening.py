import json
import re
import shutil

import pytest
from detection_files import CLASSES, SIZES, coco_content, name, write_coco, write_images, write_voc, write_yolo

from jaxvision import formats
from jaxvision.errors import DataError
from jaxvision.formats import coco, opening
from jaxvision.formats.opening import Layout

BY_NUMBER = {0: ["cat", "owl"], 1: ["dog"], 2: [], 3: ["owl", "dog", "cat"]}


def assert_all(listing):
    """The four images of `detection_files`, with their classes."""
    found = {
        int(image.name[-7:-4]): [listing.classes[each.label] for each in image.objects] for image in listing.images
    }
    assert found == BY_NUMBER
    assert all(image.file.is_file() for image in listing.images)


@pytest.mark.parametrize(
    ("json_at", "images_at"),
    [
        ("small.json", "small"),
        ("small.json", "images"),
        ("small.json", "."),
        ("annotations/small.json", "images"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("train/_annotations.coco.json", "train"),
        ("labels.json", "images/labels"),
    ],
)
def test_the_images_of_a_coco_file_are_found(tmp_path, json_at, images_at):
    (tmp_path / "images" / "others").mkdir(parents=True)  # a folder of that name alone does not count
    shutil.copytree(write_images(tmp_path / "made"), tmp_path / images_at, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "made")
    path = tmp_path / json_at
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco_content()))
    listing = formats.open(path)
    assert_all(listing)
    assert listing.folder.resolve() == (tmp_path / images_at).resolve()


def test_a_coco_file_whose_images_are_elsewhere_is_read_with_their_folder(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "small").rename(tmp_path / "elsewhere")
    assert_all(formats.open(path, images=tmp_path / "elsewhere"))


@pytest.mark.parametrize("split", ["train", "valid", "val", "validation"])
def test_a_roboflow_folder_of_coco_files_has_splits(tmp_path, split):
    for each in ("train", "valid"):
        write_images(tmp_path / each)
        content = coco_content()
        content["images"] = content["images"][: 4 if each == "train" else 1]
        known = {image["id"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in known]
        (tmp_path / each / "_annotations.coco.json").write_text(json.dumps(content))
    assert opening.splits(tmp_path) == ("train", "valid")
    assert len(formats.open(tmp_path, split).images) == (4 if split == "train" else 1)
    with pytest.raises(DataError, match=r"has several COCO files, name one of them, or its split: train, valid"):
        formats.open(tmp_path)
    with pytest.raises(DataError, match=r"has no split 'tain'; did you mean 'train'\?"):
        formats.open(tmp_path, "tain")


def test_a_split_of_cocos_own_folder_is_known_by_the_word_in_its_name(tmp_path):
    (tmp_path / "annotations").mkdir()
    for each in ("instances_train2017", "instances_val2017", "captions_val2017", "person_keypoints_val2017"):
        (tmp_path / "annotations" / f"{each}.json").write_text(json.dumps(coco_content()))
    write_images(tmp_path / "val2017")
    assert_all(formats.open(tmp_path, "val"))
    assert opening.splits(tmp_path) == ("instances_train2017", "instances_val2017")


def test_a_voc_folder_has_the_classes_of_its_files_with_lists_or_without(tmp_path):
    year = write_voc(tmp_path)
    for path in (tmp_path, tmp_path / "VOCdevkit", year):
        listing = formats.open(path)
        assert_all(listing)
        assert listing.classes == CLASSES
    assert [image.name for image in formats.open(year, "train").images] == [name(number) for number in (3, 2, 1, 0)]
    assert formats.open(year, "val").classes == CLASSES  # one image, and still those of the whole folder
    shutil.rmtree(year / "ImageSets")
    assert_all(formats.open(year))
    with pytest.raises(DataError, match="is not divided, so it has no split 'train'"):
        formats.open(year, "train")


def test_yolo_is_read_from_its_description_and_from_its_folder(tmp_path):
    root = write_yolo(tmp_path)
    with pytest.raises(DataError, match=r"has no data\.yaml and no classes\.txt: name the classes in their order"):
        formats.open(root)
    assert_all(formats.open(root, classes=CLASSES))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    assert_all(formats.open(root))
    (root / "data.yaml").write_text(f"train: images\nval: absent\nnames: [{', '.join(CLASSES)}]\n")
    for path in (root, root / "data.yaml"):
        assert_all(formats.open(path, "train"))
    with pytest.raises(FileNotFoundError, match="there is no file or folder .*absent"):
        formats.open(root, "valid")
    with pytest.raises(DataError, match=r"has no split 'test'; there are: train, val"):
        formats.open(root, "test")


def test_a_yolo_folder_may_have_its_splits_below_images_and_labels(tmp_path):
    root = write_yolo(tmp_path)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for place in ("images", "labels"):
        (root / place / "deep").rename(root / place / "train")
    assert opening.splits(root) == ("train",)
    assert_all(formats.open(root, "train"))
    assert_all(formats.open(root))


def test_classes_of_ones_own_order_are_the_labels(tmp_path):
    path = write_coco(tmp_path)
    listing = formats.open(path, classes=("ant", "owl", "dog", "cat"))
    assert listing.classes == ("ant", "owl", "dog", "cat")
    assert listing.category_ids == (91, 90, 17, 3)
    assert_all(listing)
    with pytest.raises(DataError, match=r"has objects of class 'owl'; did you mean 'fowl'\?"):
        formats.open(path, classes=("cat", "dog", "fowl"))


def test_what_is_no_dataset_is_told_in_one_line_with_what_was_looked_for(tmp_path):
    write_images(tmp_path / "only")
    (tmp_path / "a.txt").write_text("a")
    for path in (tmp_path / "only", tmp_path / "a.txt"):
        with pytest.raises(DataError, match=re.escape(f"{path} is no dataset known here: {opening.KNOWN}")) as raised:
            formats.open(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="there is no file or folder .*nothing"):
        formats.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="a folder of images is for a COCO file, and .*VOC.* is none"):
        formats.open(write_voc(tmp_path), images=tmp_path)


def test_layouts_are_recognised(tmp_path):
    path, year, root = write_coco(tmp_path / "a"), write_voc(tmp_path / "b"), write_yolo(tmp_path / "c")
    assert opening.recognise(path) == (Layout.COCO, path)
    assert opening.recognise(tmp_path / "a") == (Layout.COCO_FOLDER, tmp_path / "a")
    assert opening.recognise(tmp_path / "b") == (Layout.VOC, year)
    assert opening.recognise(root) == (Layout.YOLO_FOLDER, root)
    (root / "data.yml").write_text("names: [a]")
    assert opening.recognise(root) == (Layout.YOLO_YAML, root / "data.yml")
    assert len(SIZES) == len(coco.read_listing(path).images)


def test_an_address_is_no_dataset():
    with pytest.raises(DataError, match="gs://bucket/coco is an address; allowed are paths on this machine"):
        opening.recognise("gs://bucket/coco")

"""Annotation files name images below the folder of the dataset, or the one that the user names; others are not read."""

import detection_files
import numpy as np
import pytest
from data_encoding import encoded, smooth

from jaxvision.data import objects
from jaxvision.formats import check

PIXELS = smooth(40, 60)


@pytest.fixture
def data(tmp_path):
    """A dataset, and an image beside it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(encoded(PIXELS))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def coco(folder, name):
    """A COCO file whose first image has this name."""
    content = detection_files.coco_content()
    image = next(each for each in content["images"] if each["id"] == 10)
    image["file_name"] = name
    return detection_files.write_coco(folder, content)


def names_of(source):
    assert all(example.fault is None for example in source.read(np.arange(source.length)))
    return [source.name(index) for index in range(source.length)]


@pytest.mark.parametrize("name", ["../../elsewhere/a.png", "x/../../../elsewhere/a.png", "{above}/elsewhere/a.png"])
def test_a_name_that_leads_out_is_refused_until_its_folder_is_named(data, name, capsys):
    above = data.parent
    name = name.format(above=above)
    file = coco(data, name)
    with pytest.raises(
        ValueError, match=rf"small\.json: image 10: file_name .* leads out of {data}/small; name a folder"
    ):
        objects.open(file)
    assert check.main([str(file)]) == 1
    assert "image 10: file_name" in capsys.readouterr().out


def test_an_absolute_name_is_read_from_the_folder_of_the_dataset(data):
    file = coco(data, str(data / "small" / "000.png"))
    assert names_of(objects.open(file))[0] == str(data / "small" / "000.png")


def test_an_absolute_name_is_read_from_the_folder_that_is_named(data):
    elsewhere = data.parent / "elsewhere"
    file = coco(data, str(elsewhere / "a.png"))
    for number in (1, 2, 3):
        (elsewhere / f"00{number}.png").write_bytes((data / "small" / f"00{number}.png").read_bytes())
    assert names_of(objects.open(file, images=elsewhere))[0] == str(elsewhere / "a.png")


def test_names_may_go_up_within_the_dataset(data):
    detection_files.write_images(data / "pictures")
    (data / "annotations").mkdir()
    file = coco(data / "annotations", "../pictures/000.png")
    (data / "annotations" / "small").rename(data / "small")
    assert names_of(objects.open(file, images=data / "small"))[0] == "../pictures/000.png"


def test_a_split_of_voc_stays_in_its_folder(data):
    year = detection_files.write_voc(data)
    (data.parent / "x.xml").write_bytes((year / "Annotations" / "000.xml").read_bytes())
    (year / "ImageSets" / "Main" / "train.txt").write_text("../../../../x\n")
    with pytest.raises(ValueError, match=r"train\.txt: '../../../../x' leads out of .*Annotations"):
        objects.open(data, "train")


def test_a_list_of_yolo_stays_below_its_dataset_or_the_path_that_it_says(data):
    detection_files.write_yolo(data)
    elsewhere = data.parent / "elsewhere" / "a.png"
    (data / "list.txt").write_text(f"images/deep/000.png\n{elsewhere}\n")
    (data / "data.yaml").write_text("names: [cat, dog, owl]\ntrain: list.txt\n")
    with pytest.raises(ValueError, match=r"list\.txt: '.*elsewhere/a\.png' is outside of .*data; in the data\.yaml"):
        objects.open(data / "data.yaml")
    (data / "data.yaml").write_text(f"path: {data.parent}\nnames: [cat, dog, owl]\ntrain: data/list.txt\n")
    assert names_of(objects.open(data / "data.yaml")) == ["data/images/deep/000.png", "elsewhere/a.png"]

"""Groups: from a CSV file, from attributes of objects, measured, crossed; what is wrong with a file is said."""

import numpy as np
import pytest

from jaxvision.data import placement, synthetic, target
from jaxvision.data.streams import evaluation
from jaxvision.errors import DataError
from jaxvision.trust import group_file, groups
from jaxvision.types import About

ABOUT = About(3, ("x",), lambda index: f"{'abc'[index]}.jpg", "")


def written(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_column_of_a_file_groups_the_examples_by_name(tmp_path):
    path = written(tmp_path, '\ufefffile, colour,age\nc.jpg,red,old\n\n"a.jpg",blue,\nb.jpg,red,young\n')
    found = group_file.from_csv(path, "colour", ABOUT)
    rows = {"index": np.array([0, 1, 2, 2])}
    assert found.names == ("blue", "red")
    assert found.number(rows).tolist() == [0, 1, 1, 1]
    age = group_file.from_csv(path, "age", ABOUT)
    assert age.number(rows).tolist() == [-1, 1, 0, 0]
    both = groups.cross(found, age)
    assert both.attribute == "colour & age"
    assert both.names == ("blue & old", "blue & young", "red & old", "red & young")
    assert both.number(rows).tolist() == [-1, 3, 2, 2]


WRONG = {
    "a name of no image": (
        "file,c\na.jpg,x\nb.jpg,x\nc.jpg,x\nb.jpeg,x\n",
        "1 name of no image of the data, the first is ",
    ),
    "an image without a line": ("file,c\na.jpg,x\nb.jpg,x\n", "lacks 1 image of 3, the first is 'c.jpg'"),
    "an image twice": ("file,c\na.jpg,x\nb.jpg,x\na.jpg,y\n", "'a.jpg' is in line 2 and again in line 4"),
    "a line too short": ("file,c\na.jpg\n", "line 2 has 1 cell, the first line 2"),
    "no attribute": ("file\na.jpg\n", "has no groups: needed are a first line"),
    "nothing": ("", "has no groups"),
    "a column twice": ("file,c,c\na.jpg,x,y\n", "column 'c' is there twice"),
    "an open quote": ('file,c\na.jpg,"x\n', "damaged or cut off"),
    "no text": (b"file,c\n\xff\xfe,x\n", "damaged or cut off"),
    "another column": ("file,colour\na.jpg,x\nb.jpg,x\nc.jpg,x\n", "has no column 'c'; there are: colour"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said(tmp_path, case):
    text, message = WRONG[case]
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=message) as told:
        group_file.from_csv(path, "c", ABOUT)
    assert str(path) in str(told.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="can't be read: No such file"):
        group_file.read(tmp_path / "none.csv")


def test_attributes_of_objects_come_with_the_target():
    source = synthetic.shapes(4, seed=1, size=64)
    options = {"placer": placement.keep(64), "batch_size": 4}
    stream = evaluation(lambda: source, target=target.objects(8, attributes=("colour",)), **options)
    assert stream.spec.target.attributes["colour"].shape == (4, 8)
    batch = next(stream.batches(0))
    colour = groups.of_objects("colour", synthetic.COLOURS)
    number = colour.number({name: np.asarray(column) for name, column in colour.observe(batch).items()})
    expected = source.objects()
    for row in range(4):
        n = len(expected[row].labels)
        assert number[row, :n].tolist() == expected[row].attributes["colour"].tolist()
        assert (number[row, n:] == -1).all()
    with pytest.raises(TypeError, match="have no attribute 'age'"):
        groups.of_objects("age", ("young", "old")).observe(batch)
    unknown = evaluation(lambda: source, target=target.objects(8, attributes=("color",)), **options)
    with pytest.raises(ValueError, match="no attribute 'color'; did you mean 'colour'"):
        next(unknown.batches(0))


def test_brightness_is_of_the_content_alone(colour_batch):
    batch = colour_batch(count=3)
    image = np.full(batch.image.shape, 255, np.uint8)
    image[0, :8], image[1, :8], image[2, :8] = 20, 85, 200
    batch = batch.replace(image=image, size=np.array([[8, 16]] * 3, np.int32))
    bright = groups.brightness()
    measured = {name: np.asarray(column) for name, column in bright.observe(batch).items()}
    np.testing.assert_allclose(measured["measured:brightness"], [20, 85, 200])
    assert [bright.names[number] for number in bright.number(measured)] == ["below 85", "85 to 170", "from 170"]
    with pytest.raises(ValueError, match="allowed are numbers that rise"):
        groups.brightness((3, 3))


def test_sizes_are_those_of_coco_and_cross_with_groups_of_images():
    rows = {"area": np.array([[1.0, 32**2, 96**2]]), "index": np.array([0])}
    assert groups.size().number(rows).tolist() == [[0, 1, 2]]
    both = groups.cross(groups.listed("place", ("a", "b"), np.array([1])), groups.size())
    assert both.objects
    assert [both.names[number] for number in both.number(rows)[0]] == ["b & small", "b & medium", "b & large"]
    assert groups.by_class(("u", "v")).number({"label": np.array([1, 0])}).tolist() == [1, 0]
    with pytest.raises(ValueError, match="allowed are -1 to 1"):
        groups.listed("place", ("a", "b"), np.array([2]))
    with pytest.raises(ValueError, match="allowed are names that differ"):
        groups.listed("place", ("a", "a"), np.array([1]))

import codecs

import numpy as np
import pytest
from data_encoding import encoded, smooth
from detection_files import CLASSES, OBJECTS, name, write_yolo
from PIL import Image

from jaxvision.data import objects
from jaxvision.data.decode import decode
from jaxvision.data.placement import stretch
from jaxvision.formats import check, yolo
from jaxvision.formats.image_file import upright_size

DESCRIPTION = """
path: ..
train: images
val: lists/val.txt
test:
names: {names}
"""


def read(root):
    return objects.yolo_folder(root / "images", root / "labels", CLASSES)


def assert_holds(source, order):
    for number, example, alone in zip(order, source.read(np.arange(len(order))), source.objects(), strict=True):
        boxes = np.reshape([box for _, box, _ in OBJECTS[number]], (-1, 4))
        np.testing.assert_allclose(example.objects.boxes, boxes, atol=1e-4)
        np.testing.assert_array_equal(alone.boxes, example.objects.boxes)
        assert example.objects.labels.tolist() == [label for label, _, _ in OBJECTS[number]]
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
        np.testing.assert_allclose(example.objects.area, areas, rtol=1e-4)
        assert not example.objects.ignore.any()


def test_texts_become_boxes_in_pixels_of_their_image(tmp_path):
    root = write_yolo(tmp_path)
    (root / "labels" / "deep" / "002.txt").write_text("\n \n")
    source = read(root)
    assert [source.name(index) for index in range(4)] == [f"deep/{name(index)}" for index in range(4)]
    assert_holds(source, range(4))


def test_of_several_folders_called_images_the_last_lies_beside_labels(tmp_path):
    root = write_yolo(tmp_path / "images" / "set")
    (root / "data.yaml").write_text("train: images\nval: all.txt\nnames: [cat, dog, owl]")
    (root / "all.txt").write_text("\n".join(f"images/deep/{name(number)}" for number in range(4)))
    for split in ("train", "val"):
        assert_holds(objects.yolo(root / "data.yaml", split), range(4))


@pytest.mark.parametrize("value", ["../train/images", "[../train/images]"])
def test_roboflow_writes_its_splits_from_beside_the_description(tmp_path, value):
    root = tmp_path / "export"
    write_yolo(root / "train")
    (root / "data.yaml").write_text(f"train: {value}\nval: ../valid/images\nnames: [cat, dog, owl]")
    assert_holds(objects.yolo(root / "data.yaml", "train"), range(4))
    with pytest.raises(FileNotFoundError, match=r"export/\.\./valid/images"):
        objects.yolo(root / "data.yaml", "val")
    (write_yolo(tmp_path / "train") / "images" / "deep" / name(3)).unlink()
    assert_holds(objects.yolo(root / "data.yaml", "train"), range(3))


def test_a_byte_order_mark_belongs_to_no_text(tmp_path):
    root = write_yolo(tmp_path)
    (root / "data.yaml").write_text("train: all.txt\nnames: [cat, dog, owl]")
    (root / "all.txt").write_text("\r\n".join(f"images/deep/{name(number)}" for number in range(4)))
    for path in (root / "data.yaml", root / "all.txt", *(root / "labels" / "deep").iterdir()):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert_holds(objects.yolo(root / "data.yaml", "train"), range(4))


def test_what_is_no_utf_8_is_refused_with_its_file_and_line(tmp_path):
    root = write_yolo(tmp_path)
    (root / "data.yaml").write_text("train: all.txt\nnames: [cat, dog, owl]")
    (root / "all.txt").write_bytes(b"images/a.jpg\nimages/caf\xe9.jpg\n")
    with pytest.raises(ValueError, match=r"all\.txt: line 2: byte 0xe9 is no UTF-8"):
        objects.yolo(root / "data.yaml", "train")
    (root / "data.yaml").write_text("names: [cat]", encoding="utf-16")
    with pytest.raises(ValueError, match=r"data\.yaml: line 1: byte 0xff is no UTF-8"):
        yolo.read_yaml(root / "data.yaml")
    (root / "labels" / "deep" / "001.txt").write_text("0 .5 .5 .1 .1", encoding="utf-16")
    with pytest.raises(ValueError, match=r"001\.txt: line 1: is .*; allowed are a whole number"):
        read(root)


def test_an_empty_line_among_the_classes_is_refused(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes(codecs.BOM_UTF8 + "cat\r\nkäse\r\n \r\n\r\n".encode())
    assert yolo.read_classes(path) == ("cat", "käse")
    path.write_text("cat\n\ndog\n")
    with pytest.raises(ValueError, match=r"classes\.txt: line 2 is empty; allowed is a name, for line 2 names class 1"):
        yolo.read_classes(path)
    path.write_text("\n")
    assert yolo.read_classes(path) == ()


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path):
    elsewhere, root = write_yolo(tmp_path / "elsewhere"), tmp_path / "root"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
        (root / kind / "linked").symlink_to(elsewhere / kind)
        (root / kind / "circle").symlink_to(root / kind)
        (root / kind / "broken").symlink_to(root / "absent")
    source = read(root)
    assert [source.name(index) for index in range(source.length)] == [f"linked/deep/{name(n)}" for n in range(4)]
    assert_holds(source, range(4))


@pytest.mark.parametrize("names", ["[cat, dog, owl]", "{0: cat, 1: dog, 2: owl}"])
def test_a_description_names_splits_and_classes(tmp_path, names):
    root = write_yolo(tmp_path)
    (root / "a").mkdir()
    (root / "lists").mkdir()
    (root / "lists" / "val.txt").write_text(f"../images/deep/{name(3)}\n../images/deep/{name(1)}\n")
    (root / "a" / "data.yaml").write_text(DESCRIPTION.format(names=names))
    train = objects.yolo(root / "a" / "data.yaml", "train")
    assert train.classes == CLASSES
    assert train.name(0) == f"images/deep/{name(0)}"
    assert_holds(train, range(4))
    assert_holds(objects.yolo(root / "a" / "data.yaml", "val"), (3, 1))
    with pytest.raises(ValueError, match=r"has no split 'test'; there are: train, val"):
        objects.yolo(root / "a" / "data.yaml", "test")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[", r"data\.yaml is no YAML: "),
        ("- 3", r"data\.yaml has no `names` of classes"),
        ("names: {1: a, 2: b}", r"names is \{1: 'a', 2: 'b'\}; allowed are a list, or numbers from 0 without a gap"),
        ("names: {0: a, b: c}", r"names is \{0: 'a', 'b': 'c'\}; allowed are a list, or numbers from 0"),
        ("names: {no: a, yes: b}", r"names is \{False: 'a', True: 'b'\}; allowed are a list, or numbers from 0"),
        ("names: cat", r"names is 'cat'; allowed are a list, or numbers from 0"),
        ("names: []", r"names is \[\]; allowed are a list, or numbers from 0"),
        ("names: [a, ' ']", r"data\.yaml: names: 1 is ' '; allowed are names that are not empty"),
        ("names:\n- a\n-\n", r"names: 1 is ''; allowed are names that are not empty"),
        ("names: [yes, no]", r"names: 0 is yes, which YAML takes for True; allowed are texts: quote it, 'yes'"),
        ("names: {1: b, 0: ~}", r"names: 0 is ~, which YAML takes for None; .* quote it, '~'"),
        ("names: [a, 010]", r"names: 1 is 010, which YAML takes for 8; .* quote it, '010'"),
        ("names: [1.5]", r"names: 0 is 1.5, which YAML takes for 1.5; .* quote it, '1.5'"),
        ("names: [2020-02-31]", r"data\.yaml is no YAML: day is out of range"),
        ("nc: 3\nnames: [a, b]", r"data\.yaml: nc is 3, and names are 2; allowed is their number"),
        ("names: !!python/object/apply:os.system [exit]", r"data\.yaml is no YAML"),
        ("train: nowhere\nnames: [a]", r"there is no file or folder .*nowhere"),
    ],
)
def test_what_describes_nothing_is_refused(tmp_path, text, match):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=match) as raised:
        objects.yolo(tmp_path / "data.yaml", "train")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("names", ["[8, 'no', '010', '~']", "{3: '~', 1: 'no', 0: 8, 2: '010'}"])
def test_quoted_names_and_whole_numbers_are_taken_as_written(tmp_path, names):
    (tmp_path / "data.yaml").write_text(f"nc: 4\nnames: {names}")
    assert yolo.read_yaml(tmp_path / "data.yaml").classes == ("8", "no", "010", "~")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("3 .5 .5 .1 .1", r"class is 3; allowed are 0 to 2 \(cat, dog, owl\)"),
        ("-1 .5 .5 .1 .1", "class is -1; allowed are 0 to 2"),
        ("1.5 .5 .5 .1 .1", "is '1.5 .5 .5 .1 .1'; allowed are a whole number and four finite ones"),
        ("cat .5 .5 .1 .1", "is 'cat .5 .5 .1 .1'; allowed are a whole number"),
        ("1 .5 .5 .1", "is '1 .5 .5 .1'; allowed are a whole number"),
        ("1 .5 .5 .1 .1 .9", "is '1 .5 .5 .1 .1 .9'; allowed"),
        ("1 .1 .1 .9 .1 .5 .9 .5", r"four finite ones, .* or six or more, an even number of them, class x y"),
        ("1 .1 .1 .9 .1 .5 x", "is '1 .1 .1 .9 .1 .5 x'; allowed"),
        ("1.5 .1 .1 .9 .1 .5 .9", "allowed are a whole number"),
        (
            "1 .1 .1 .9 .1 .5 1.2",
            r"is '1 .1 .1 .9 .1 .5 1.2'; allowed are x y in fractions of the image's sides, 0 to 1",
        ),
        ("3 .1 .1 .9 .1 .5 .9", "class is 3; allowed are 0 to 2"),
        ("1 .5 .5 nan .1", "is '1 .5 .5 nan .1'; allowed"),
        ("1 320 .5 .1 .1", r"is '1 320 .5 .1 .1'; allowed are cx cy width height in fractions .* 0 to 1"),
        ("1 .5 .5 -.005 .1", r"is '1 .5 .5 -.005 .1'; allowed are cx cy width height in fractions"),
    ],
)
def test_what_can_not_be_used_is_refused_with_file_line_and_value(tmp_path, line, match):
    root = write_yolo(tmp_path)
    path = root / "labels" / "deep" / "001.txt"
    path.write_text(f"0 .5 .5 .1 .1\n\n{line}\n")
    with pytest.raises(ValueError, match=match) as raised:
        read(root)
    assert str(raised.value).startswith(f"{path}: line 3: ")


@pytest.mark.parametrize(
    "line", ["1 .5 .25 .25 .5 .375 .75", "1 .25 .5 .5 .25 .5 .75 .4 .6", "1 .25 .25 .5 .25 .5 .75 .25 .75 .3 .3"]
)
def test_polygons_and_rotated_boxes_become_the_boxes_around_them(tmp_path, line):
    root = write_yolo(tmp_path)
    (root / "labels" / "deep" / "001.txt").write_text(f"0 .5 .5 .25 .5\n{line}\n")
    (example,) = read(root).read(np.array([1]))
    np.testing.assert_array_equal(example.objects.boxes, [[24, 16, 40, 48], [16, 16, 32, 48]])
    assert example.objects.labels.tolist() == [0, 1]
    assert example.objects.area.tolist() == [512, 512]


def test_a_repaired_copy_has_the_boxes_around_polygons(tmp_path):
    root = write_yolo(tmp_path)
    (root / "labels" / "deep" / "001.txt").write_text("1 .5 .25 .25 .5 .375 1.005\n1 .5 .25 .25 .5 .375 .75 .3\n")
    command = [str(root), f"--classes={','.join(CLASSES)}", f"--repaired={root / 'copy.json'}"]
    assert check.main(command) == 1
    assert check.main([str(root / "copy.json"), f"--images={root / 'images'}"]) == 0
    copy = objects.coco(root / "copy.json", root / "images").objects()
    np.testing.assert_array_equal(copy[1].boxes, [[16, 16, 32, 64]])


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*images"):
        read(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_sizes_are_those_of_the_upright_image(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(20, 30), kind, exif=exif)
    assert upright_size(data) == ((20, 30) if orientation < 5 else (30, 20))
    assert upright_size(data) == decode(data, stretch(4)).original_size
    (tmp_path / "x").write_bytes(data)
    assert upright_size(tmp_path / "x") == upright_size(data)


def test_an_image_that_can_not_be_read_has_no_objects_and_is_left_to_decoding(tmp_path):
    root = write_yolo(tmp_path)
    (root / "images" / "deep" / name(0)).write_bytes(b"<html>")
    source = read(root)
    example = source.read(np.array([0]))[0]
    assert (example.image, len(example.objects.labels)) == (b"<html>", 0)
    assert [len(each.labels) for each in source.objects()] == [0, 1, 0, 3]


def test_a_text_is_found_in_the_other_unicode_form_of_the_name_of_its_image(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "images/é.png")
    (tmp_path / "labels/e\u0301.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (example,) = objects.yolo_folder(tmp_path / "images", tmp_path / "labels", ["a"]).read(np.array([0]))
    np.testing.assert_allclose(example.objects.boxes, [[4, 4, 6, 6]], atol=1e-5)

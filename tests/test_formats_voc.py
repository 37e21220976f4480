import numpy as np
import pytest
from detection_files import CLASSES, OBJECTS, name, write_voc

from jaxvision.data import objects
from jaxvision.formats import voc


def read(year, split="train"):
    return objects.voc(year, split, classes=CLASSES)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_split_is_read_in_its_order_with_boxes_counted_from_0(tmp_path, levels):
    root = year = write_voc(tmp_path)
    for _ in range(levels):
        root = root.parent
    source = read(root)
    assert [source.name(index) for index in range(4)] == [name(number) for number in (3, 2, 1, 0)]
    for number, example in zip((3, 2, 1, 0), source.read(np.arange(4)), strict=True):
        assert example.image == (year / "JPEGImages" / name(number)).read_bytes()
        np.testing.assert_array_equal(
            example.objects.boxes, np.reshape([box for _, box, _ in OBJECTS[number]], (-1, 4))
        )
        assert example.objects.labels.tolist() == [label for label, _, _ in OBJECTS[number]]
        assert example.objects.ignore.tolist() == [ignore for _, _, ignore in OBJECTS[number]]
        areas = [(x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), _ in OBJECTS[number]]
        np.testing.assert_array_equal(example.objects.area, areas)
    assert [len(each.labels) for each in source.objects()] == [3, 0, 1, 2]
    assert read(root, "val").length == 1
    assert read(root, "val").fingerprint != source.fingerprint
    assert len(voc.VOC_CLASSES) == 20


def change(year, old, new):
    path = year / "Annotations" / "001.xml"
    path.write_text(path.read_text().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("<name>dog", "<name>dug", r"object 1: name is 'dug'; did you mean 'dog'"),
        ("<xmin>11</xmin>", "", r"object 1: bndbox is xmin None, ymin 21, xmax 42, ymax 28; allowed are four finite"),
        ("<xmin>11", "<xmin>x", r"object 1: bndbox is xmin x"),
        ("<xmin>11", "<xmin>nan", r"object 1: bndbox is xmin nan"),
        ("<xmin>11", "<xmin>60", r"object 1: bndbox is xmin 60, .* no maximum below its minimum"),
        ("</name>", "</name><difficult>maybe</difficult>", r"object 1: difficult is 'maybe'; allowed are 0 and 1"),
        ("</annotation>", "", "is no XML"),
        (
            "<annotation>",
            '<?xml version="1.0" encoding="latin-99"?><annotation>',
            r"is no XML: unknown encoding.* latin-99",
        ),
        ("annotation>", "html>", "its root is <html>, allowed is <annotation>"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', r"it has a DOCTYPE \(a\), which is not read"),
    ],
)
def test_what_can_not_be_used_is_refused_with_file_object_and_value(tmp_path, old, new, match):
    year = write_voc(tmp_path)
    path = change(year, old, new)
    with pytest.raises(ValueError, match=match) as raised:
        read(year)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).count(str(path)) == 1
    assert "\n" not in str(raised.value)


def test_entities_are_not_expanded_and_files_not_read(tmp_path):
    year = write_voc(tmp_path)
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 30))
    secret = tmp_path / "secret"
    secret.write_text("cat")
    for body in (f'<!ENTITY e0 "x">{lines}', f'<!ENTITY e29 SYSTEM "file://{secret}">'):
        text = f"<!DOCTYPE annotation [{body}]><annotation><object><name>&e29;</name></object></annotation>"
        (year / "Annotations" / "001.xml").write_text(text)
        with pytest.raises(ValueError, match="DOCTYPE"):
            read(year)


def test_what_is_missing_is_named(tmp_path):
    year = write_voc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no split 'trian': .*; did you mean 'train'"):
        read(year, "trian")
    with pytest.raises(FileNotFoundError, match="is no VOC folder"):
        read(year / "ImageSets")
    (year.parent / "VOC2012" / "Annotations").mkdir(parents=True)
    (year.parent / "VOC2012" / "JPEGImages").mkdir()
    with pytest.raises(ValueError, match=r"several VOC folders, name one: .*VOC2007, .*VOC2012"):
        read(year.parent)
    (year / "JPEGImages" / name(1)).unlink()
    with pytest.raises(FileNotFoundError, match=r"001\.xml: image 3: there is no file .* \(1 of 4 are missing"):
        read(year)
    (year / "Annotations" / "002.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt: 002: there is no file .*002\.xml"):
        read(year)


def test_an_image_of_another_size_than_stated_is_told(tmp_path):
    year = write_voc(tmp_path)
    path = change(year, "<width>64", "<width>65")
    source = read(year)
    faults = [each.fault for each in source.read(np.arange(4))]
    assert [fault is None for fault in faults] == [True, True, False, True]
    assert faults[2].startswith(f"{path}: image 3: 001.png is 65x64 here, and 64x64 in its file")


def test_two_images_of_one_name_are_refused(tmp_path):
    year = write_voc(tmp_path)
    (year / "JPEGImages" / "001.jpg").write_bytes((year / "JPEGImages" / name(1)).read_bytes())
    with pytest.raises(ValueError, match=r"001\.xml: 2 images have its name: 001\.jpg, 001\.png; allowed is one"):
        read(year)


def test_a_class_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="classes has 'cat' twice, allowed is once: cat, dog, cat"):
        objects.voc(write_voc(tmp_path), "train", classes=("cat", "dog", "cat"))


def test_names_with_spaces_and_splits_with_underscores_are_read(tmp_path):
    year = write_voc(tmp_path)
    for number, stem in ((0, "my photo"), (1, "photo 1")):
        (year / "JPEGImages" / name(number)).rename(year / "JPEGImages" / f"{stem}.png")
        (year / "Annotations" / f"{number:03d}.xml").rename(year / "Annotations" / f"{stem}.xml")
    main = year / "ImageSets" / "Main"
    (main / "train_part.txt").write_text("my photo\nphoto 1\n  002 \n")
    (main / "cat_train.txt").write_text("my photo  1\nphoto 1 -1\n002  0\n")
    (main / "val.txt").write_text("002\n")
    (main / "train.txt").write_text("003\n")
    (main / "._val.txt").write_bytes(b"\xff")
    assert sorted(voc.splits(year)) == ["train", "train_part", "val"]
    for split in ("train_part", "cat_train"):
        source = read(year, split)
        assert [source.name(index) for index in range(source.length)] == ["my photo.png", "photo 1.png", name(2)]


def test_hidden_files_are_passed_over(tmp_path):
    year = write_voc(tmp_path)
    for folder, file in (("Annotations", "._001.xml"), ("JPEGImages", "._001.png")):
        (year / folder / file).write_bytes(b"\x00\x05\x16\x07")
    assert voc.annotated(year) == ["000", "001", "002", "003"]
    assert sorted(voc.image_files(year)) == ["000", "001", "002", "003"]


def test_a_split_may_begin_with_a_byte_order_mark(tmp_path):
    year = write_voc(tmp_path)
    path = year / "ImageSets" / "Main" / "train.txt"
    expected, text = read(year).length, path.read_text()
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert read(year).length == expected
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"train\.txt: line 1: byte 0xe9 is no UTF-8"):
        read(year)

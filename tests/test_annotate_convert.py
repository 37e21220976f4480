"""The commands `annotate convert` and `annotate export`: what they write, what they tell, what they refuse."""

import json

import pytest
from labelled_datasets import write_images
from test_formats_converting import everything

from jaxvision.annotate import __main__ as annotate
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.store import NAME, Change, Store
from jaxvision.formats import converting
from jaxvision.formats.converting import Format


def run(*arguments):
    return annotate.main([str(each) for each in arguments])


@pytest.fixture
def coco(tmp_path):
    converting.write(everything(), tmp_path / "all.json", Format.COCO)
    return tmp_path / "all.json"


@pytest.mark.parametrize("format", list(Format))
def test_a_file_of_coco_becomes_any_format_and_again_coco(tmp_path, coco, format, capsys):
    there, back = tmp_path / f"there{converting.SUFFIXES.get(format, '')}", tmp_path / "back.json"
    assert run("convert", coco, f"--output={there}", f"--format={format}") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{there}: {converting.NAMES[format]}, 2 images, 3 objects\n")
    if format is Format.YOLO:
        assert "YOLO has no place for: 1 attribute big, 2 attributes colour, " in told
        write_images(everything(), there / "images")
    assert run("convert", there, f"--output={back}", "--format=coco") == 0
    content = json.loads(back.read_text())
    assert [each["file_name"] for each in content["images"]] == ["a.jpg", "b.jpg"]
    assert [each["category_id"] for each in content["annotations"]] == (
        [2, 7, 7] if format is Format.COCO else [1, 2, 2]
    )
    assert content["annotations"][2]["bbox"] == [0, 0, 2, 2]


def test_what_convert_refuses_is_told_in_one_line(tmp_path, coco, capsys):
    def refused(*arguments):
        assert run("convert", *arguments) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    assert "there is no file or folder" in refused(tmp_path / "no", f"--output={tmp_path}/a", "--format=voc")
    assert "is there already; --replace writes it again" in refused(coco, f"--output={coco}", "--format=coco")
    assert "name a folder" in refused(coco, f"--output={coco}", "--format=yolo", "--replace")
    assert "CVAT is a file whose name ends in .xml" in refused(coco, f"--output={tmp_path}/a.json", "--format=cvat")
    for arguments, message in (
        (["--format=kitti"], "invalid choice: 'kitti'"),
        (["--format=voc", "--config.x=1"], "sets no field"),
    ):
        with pytest.raises(SystemExit) as ended:
            run("convert", coco, f"--output={tmp_path}/a", *arguments)
        told = capsys.readouterr().err
        assert (ended.value.code, told.count("\n")) == (2, 1)
        assert message in told


SSD = Source("ssd_mobilenet_v2", "0123456789abcdef")


def thing(label, score, **more):
    return Annotation(0, label, (1.5, 2.0, 9.25, 8.0), None, score, sources=(SSD,), **more)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "labels").mkdir()
    with Store(tmp_path / "labels" / "annotations.sqlite", create=True) as opened:
        opened.settings["classes"] = '["cup", "cat", "owl"]'
        found = (thing("cat", 0.9, probability=0.8, attributes={"colour": "red"}), thing("cup", 0.4, probability=0.2))
        for name in ("b.jpg", "a <é>.jpg"):
            opened.put(ImageRecord(name, "00", (12, 16), found), who="ssd")
        opened.put(ImageRecord("empty.jpg", "01", (12, 16)), who="ssd")
        opened.put(ImageRecord("broken.jpg", "", (0, 0), failure="not an image"), who="ssd")
        record = opened.get("b.jpg")
        low = next(each for each in record.objects if each.label == "cup")
        record = opened.apply("b.jpg", Change("accept", low.id, None), who="human:ada", version=record.version)
        opened.apply("b.jpg", Change("reviewed", None, True), who="human:ada", version=record.version)
    return tmp_path / "labels"


def exported(tmp_path, store, *arguments):
    output = tmp_path / "out.json"
    assert run("export", store, f"--output={output}", "--format=coco", "--replace", *arguments) == 0
    content = json.loads(output.read_text())
    names = {each["id"]: each["file_name"] for each in content["images"]}
    classes = {each["id"]: each["name"] for each in content["categories"]}
    found = [(names[each["image_id"]], classes[each["category_id"]]) for each in content["annotations"]]
    return sorted(names.values()), sorted(found), content


def test_a_store_is_exported_with_all_that_is_known(tmp_path, store, capsys):
    names, found, content = exported(tmp_path, store)
    told = capsys.readouterr().out
    assert names == ["a <é>.jpg", "b.jpg", "empty.jpg"]
    assert len(found) == 4
    assert [each["name"] for each in content["categories"]] == ["cup", "cat", "owl"]
    first = next(each for each in content["annotations"] if each["score"] == 0.9)
    assert first["bbox"] == [1.5, 2, 7.75, 6]
    assert first["attributes"] == {"colour": "red", "probability": 0.8}
    assert first["model"] == "ssd_mobilenet_v2 0123456789ab"
    assert "3 images, 4 objects" in told
    assert f"left out of {store}: 1 image that can't be read" in told


@pytest.mark.parametrize(
    ("flags", "objects"),
    [
        (["--state=reviewed"], [("b.jpg", "cat"), ("b.jpg", "cup")]),
        (["--state=new,accepted"], [("a <é>.jpg", "cat"), ("a <é>.jpg", "cup")]),
        (["--least-score=0.5"], [("a <é>.jpg", "cat"), ("b.jpg", "cat"), ("b.jpg", "cup")]),
        (["--least-probability=0.5"], [("a <é>.jpg", "cat"), ("b.jpg", "cat"), ("b.jpg", "cup")]),
        (["--least-probability=0.9"], [("b.jpg", "cat"), ("b.jpg", "cup")]),
        (["--state=reviewed", "--least-score=0.95"], [("b.jpg", "cat"), ("b.jpg", "cup")]),
    ],
)
def test_what_is_wanted_is_exported_and_what_a_person_touched_or_let_stand_always(tmp_path, store, flags, objects):
    assert exported(tmp_path, store, *flags)[1] == objects


@pytest.mark.parametrize("format", list(Format))
def test_every_format_is_exported_the_same_each_time(tmp_path, store, format):
    one, two = (tmp_path / f"{name}{converting.SUFFIXES.get(format, '')}" for name in ("one", "two"))
    for output in (one, two):
        assert run("export", store / NAME, f"--output={output}", f"--format={format}") == 0
    files = sorted(each.relative_to(one) for each in one.rglob("*") if each.is_file()) if one.is_dir() else [""]
    assert files
    assert [(one / each).read_bytes() for each in files] == [(two / each).read_bytes() for each in files]


def test_what_export_refuses_is_told_in_one_line(tmp_path, store, capsys):
    assert run("export", tmp_path / "no", f"--output={tmp_path}/a", "--format=voc") == 2
    assert capsys.readouterr().err.count("\n") == 1
    for flag, message in (
        ("--state=nwe", "'nwe' is no state; did you mean 'new'?"),
        ("--least-score=2", "'2' is no number from 0 to 1"),
        ("--least-probability=x", "'x' is no number from 0 to 1"),
        ("--config.x=1", "sets no field"),
    ):
        with pytest.raises(SystemExit):
            run("export", store, f"--output={tmp_path}/a", "--format=voc", flag)
        assert message in capsys.readouterr().err

"""Annotations in another convention, without objects, or not of these images: named by sources, check and preflight."""

import json

import numpy as np
import pytest
from check_command import run
from data_encoding import encoded, smooth
from detection_files import (
    CLASSES,
    coco_content,
    corners,
    fractions,
    name,
    with_boxes,
    write_coco,
    write_voc,
    write_yolo,
    yolo_corners,
)

from jaxvision.data import objects
from jaxvision.data.subset import held_out


def yolo(root):
    return objects.yolo_folder(root / "images", root / "labels", CLASSES)


def voc_fractions(root):
    year = write_voc(root)
    for path in (year / "Annotations").iterdir():
        box = "<bndbox><xmin>.1</xmin><ymin>.2</ymin><xmax>.6</xmax><ymax>.8</ymax></bndbox>"
        head, *rest = path.read_text().split("<object>")
        kept = [each[: each.index("</name>") + 7] + box + "</object>" for each in rest]
        path.write_text("<object>".join([head, *kept]) + "</annotation>" * bool(kept))
    return year


def test_good_annotations_raise_no_doubt(tmp_path):
    for source in (
        objects.coco(write_coco(tmp_path / "coco")),
        objects.voc(write_voc(tmp_path / "voc"), "train", classes=CLASSES),
        yolo(write_yolo(tmp_path / "yolo")),
    ):
        assert source.doubts == ()


def test_corners_in_place_of_sides_are_named(tmp_path, capsys):
    path = with_boxes(tmp_path / "coco", corners)
    root = yolo_corners(tmp_path / "yolo")
    [doubt] = objects.coco(path).doubts
    assert doubt.startswith(f"{path}: annotation 10")
    assert "all 6 boxes look like corners, x0 y0 x1 y1; read as x y width height" in doubt
    [doubt] = yolo(root).doubts
    assert "all 6 boxes look like corners, x0 y0 x1 y1; read as cx cy width height" in doubt
    assert doubt.startswith(str(root / "labels/deep"))
    for place, options in ((path, []), (root, [f"--classes={','.join(CLASSES)}"])):
        status, text = run(capsys, place, *options)
        assert status == 1
        assert "boxes that look like corners  1" in text


def test_fractions_in_place_of_pixels_are_named(tmp_path, capsys):
    path, year = with_boxes(tmp_path / "coco", fractions), voc_fractions(tmp_path / "voc")
    [doubt] = objects.coco(path).doubts
    assert doubt.startswith(f"{path}: annotation 10")
    assert "all 6 boxes look like fractions of the image's sides; expected are pixels" in doubt
    [doubt] = objects.voc(year, "train", classes=CLASSES).doubts
    assert "object 1: 0.1 0.2 0.6 0.8 of " in doubt
    status, text = run(capsys, path)
    assert status == 1
    assert "boxes that look like fractions  1" in text


def test_data_without_an_object_are_named(tmp_path):
    path = write_coco(tmp_path, {**coco_content(), "annotations": []})
    source = objects.coco(path)
    assert source.doubts == (f"{path}: none of 4 images has an object",)
    assert [part.doubts for part in held_out(source, 0.5, 0)] == [source.doubts] * 2


def test_images_without_a_text_and_texts_without_an_image_are_counted(tmp_path):
    root = write_yolo(tmp_path)
    assert yolo(root).notes == (f"{root / 'images'}: 1 of 4 images without annotations, first deep/{name(2)}",)
    for number in (0, 1):
        text = root / "labels/deep" / f"{number:03d}.txt"
        text.rename(text.with_stem(f"image{number}"))
    source = yolo(root)
    assert source.notes[0] == (
        f"{root / 'images'}: left out 2 texts without an image, first {root / 'labels/deep/image0.txt'}"
    )
    image, text = root / "images/deep" / name(0), root / "labels/deep/000.txt"
    assert source.doubts == (f"{root / 'images'}: 1 of 4 images has a text, that of {image} would be {text}",)


@pytest.mark.parametrize("place", ["train", "train/images", "list.txt"])
def test_a_split_may_be_named_by_the_folder_above_its_images(tmp_path, place):
    (tmp_path / "train/images").mkdir(parents=True)
    (tmp_path / "train/labels").mkdir()
    for stem in "ab":
        (tmp_path / "train/images" / f"{stem}.png").write_bytes(encoded(smooth(20, 40)))
        (tmp_path / "train/labels" / f"{stem}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "list.txt").write_text("train/images/a.png\ntrain/images/b.png\n")
    (tmp_path / "data.yaml").write_text(f"names: [thing]\ntrain: {place}\n")
    for source in (objects.yolo(tmp_path / "data.yaml", "train"), objects.open(tmp_path / "data.yaml", "train")):
        assert [source.name(index) for index in range(2)] == ["train/images/a.png", "train/images/b.png"]
        for each in source.objects():
            np.testing.assert_allclose(each.boxes, [[10, 5, 30, 15]])
        assert source.notes == source.doubts == ()


def test_other_files_among_yolo_images_are_counted(tmp_path):
    root = write_yolo(tmp_path)
    for other in ("a.HEIC", "deep/b.heic", "deep/notes.md", ".hidden.heic", "classes.txt"):
        (root / "images" / other).write_bytes(b"")
    assert yolo(root).notes[0] == f"{root / 'images'}: left out 3 of 7 files: 2 .heic, 1 .md"


def test_boxes_whose_images_have_no_stated_size_are_checked_against_the_files(tmp_path, capsys):
    path = with_boxes(tmp_path, corners)
    content = json.loads(path.read_text())
    for image in content["images"]:
        del image["height"], image["width"]
    path.write_text(json.dumps(content))
    assert objects.coco(path).doubts == ()
    assert "boxes that look like corners  1" in run(capsys, path)[1]


def test_images_that_no_annotation_file_lists_are_counted(tmp_path):
    path = write_coco(tmp_path / "coco")
    (tmp_path / "coco/small/more.png").write_bytes(b"")
    note = f"{tmp_path / 'coco/small'}: left out 1 of 5 images, which are not in small.json, first more.png"
    assert objects.coco(path).notes == (note,)
    year = write_voc(tmp_path / "voc")
    assert objects.voc(year, "train", classes=CLASSES).notes == ()
    note = f"{year / 'JPEGImages'}: left out 3 of 4 images, which are not listed, first {name(1)}"
    assert objects.voc(year, "val", classes=CLASSES).notes == (note,)

"""What each format has no place for is told; what is there already stays; what can't be used is named with file and field."""

import json
import os
import subprocess
import sys
import weakref
from decimal import Decimal
from pathlib import Path

import detection_files
import numpy as np
import pytest
from labelled_datasets import hull, write_images

from jaxvision.errors import DataError
from jaxvision.formats import brush, converting, decimals, destination, opening, voc_file, voc_folder, xml_file
from jaxvision.formats.converting import Format
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss
from jaxvision.formats.losses import told
from jaxvision.masks import polygons, runs

SIZE = (12, 16)
SQUARE = (1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0)
RING = np.zeros(SIZE, bool)
RING[2:9, 3:12] = True
RING[4:6, 5:8] = False
OUTPUTS = {Format.COCO: "a.json", Format.CVAT: "a.xml"}


def everything():
    """Two images with all that a dataset can have, ids with gaps among it."""
    objects = (
        LabelledObject("cat", (1.0, 1.0, 5.0, 5.5), (SQUARE,), 0.5, {"colour": "red"}, True, True, "ssd", 7),
        LabelledObject("dog", (3.0, 2.0, 12.0, 9.0), runs.encode(RING), 0.25, {"colour": "blue", "big": True}, id=9),
        LabelledObject("dog", (0.0, 0.0, 2.0, 2.0), None, None, {}, id=11),
    )
    images = [LabelledImage("a.jpg", SIZE, objects, 3, {"night": False}), LabelledImage("b.jpg", SIZE, (), 5)]
    return Dataset(("cat", "dog", "owl"), images, (2, 7, 90))


IDS = {"id of an image": 2, "id of an object": 3}
LOST = {
    Format.COCO: {},
    Format.VOC: {
        **IDS,
        "attribute night of an image": 1,
        "id of a category": 3,
        "mark as crowd": 1,
        "mask": 2,
        "name of a model": 1,
        "score": 2,
    },
    Format.YOLO: {
        **IDS,
        "attribute big": 1,
        "attribute colour": 2,
        "attribute night of an image": 1,
        "box beside its mask": 1,
        "id of a category": 3,
        "mark as crowd": 1,
        "mark as difficult": 1,
        "name of a model": 1,
        "score": 2,
    },
    Format.LABELME: {"id of a category": 3},
    Format.CVAT: {
        **IDS,
        "attribute night of an image": 1,
        "box beside its mask": 1,
        "id of a category": 3,
        "mark as crowd": 1,
        "mark as difficult": 1,
    },
    Format.LABEL_STUDIO: {
        **IDS,
        "box beside its mask": 1,
        "id of a category": 3,
        "mark as crowd": 1,
        "mark as difficult": 1,
    },
}


def written(tmp_path, format, dataset=None, **more):
    output = tmp_path / OUTPUTS.get(format, "a")
    return output, converting.write(dataset or everything(), output, format, **more)


@pytest.mark.parametrize("format", list(Format))
def test_what_a_format_has_no_place_for_is_told(tmp_path, format):
    output, losses = written(tmp_path, format)
    assert {loss.what: loss.count for loss in losses} == LOST[format]
    if format is Format.YOLO:
        write_images(everything(), output / "images")
    found = {image.name: image for image in converting.read(output)[1].dataset.images}
    assert [len(found[name].objects) for name in ("a.jpg", "b.jpg")] == [3, 0]
    kept = [each.box for each in everything().images[0].objects]
    kept[0] = kept[0] if "box beside its mask" not in LOST[format] else hull((SQUARE,))
    assert [each.box for each in found["a.jpg"].objects] == kept


def test_coco_keeps_ids_with_gaps(tmp_path):
    output, _ = written(tmp_path, Format.COCO)
    assert converting.read(output)[1].dataset == everything()


def test_an_area_of_coco_that_is_not_that_of_mask_or_box_is_kept_and_lost_by_others_is_told(tmp_path):
    output, _ = written(tmp_path, Format.COCO)
    content = json.loads(output.read_text())
    assert [each["area"] for each in content["annotations"]] == [16, 57, 4]
    areas = [700.5, 0, 4.0000001]
    for each, area in zip(content["annotations"], areas, strict=True):
        each["area"] = area
    output.write_text(json.dumps(content))
    dataset, left_out = converting.read(output)[1]
    assert ([each.area for each in dataset.images[0].objects], left_out) == ([700.5, 0, None], [])
    assert converting.write(dataset, tmp_path / "again.json", Format.COCO) == []
    again = json.loads((tmp_path / "again.json").read_text())
    assert [each["area"] for each in again["annotations"]] == [700.5, 0, 4]
    for format in set(Format) - {Format.COCO}:
        losses = converting.write(dataset, tmp_path / f"{format}{converting.SUFFIXES.get(format, '')}", format)
        assert Loss("area beside its mask or box", 2) in losses
    with pytest.raises(DataError, match="object 1: area is -1"):
        converting.write(thing(area=-1.0), tmp_path / "bad.json", Format.COCO)


def test_losses_are_told_as_people_count():
    losses = [Loss("score", 212), Loss("attribute colour", 14), Loss("mask with a hole", 1), Loss("mark as crowd", 2)]
    assert told(losses) == "212 scores, 14 attributes colour, 1 mask with a hole, 2 marks as crowd"
    assert told([Loss("attribute \x1b[2J\nx", 2)]) == "2 attributes \\x1b[2J x"


@pytest.mark.parametrize(("a", "b", "expected"), [(0.1, 0.2, 0.3), (473.07, 38.65, 511.72), (1e-9, 5.0, 5.000000001)])
def test_sums_are_those_of_decimals(a, b, expected):
    assert decimals.plus(a, b) == expected
    assert decimals.span(a, expected) == (a, b)


def test_an_extent_leads_to_its_end():
    rng = np.random.default_rng(0)
    for digits in range(11):
        for start, end in np.sort(
            rng.integers(-3000, 9 * 10**4, (50, 2)) * 10**digits + rng.integers(0, 10**digits, (50, 2))
        ):
            start, end = (float(Decimal(int(side)).scaleb(-digits)) for side in (start, end))
            assert decimals.plus(*decimals.span(start, end)) == end
    for start, extent in rng.uniform(0, 5000, (300, 2)).tolist():
        found = decimals.plus(*decimals.span(start, start + extent))
        assert abs(found - (start + extent)) <= np.spacing(start + extent)


def test_a_mask_with_holes_and_parts_is_one_polygon_of_the_same_pixels(tmp_path):
    rng = np.random.default_rng(1)
    masks = [RING, *(rng.random(SIZE) < density for density in (0.2, 0.5, 0.8, 0.8))]
    objects = tuple(LabelledObject("cat", hull(runs.encode(mask)), runs.encode(mask)) for mask in masks)
    dataset = Dataset(("cat",), [LabelledImage("a.jpg", SIZE, objects)])
    output, losses = written(tmp_path, Format.YOLO, dataset)
    assert losses == []
    write_images(dataset, output / "images")
    found = converting.read(output)[1].dataset.images[0].objects
    for each, mask in zip(found, masks, strict=True):
        assert len(each.segmentation) == 1
        np.testing.assert_array_equal(runs.decode(polygons.of_polygons(each.segmentation, SIZE)), mask)


def test_polygons_that_cover_each_other_stay_filled_in_yolo(tmp_path):
    other = tuple(side + 2 for side in SQUARE)
    each = LabelledObject("cat", hull((SQUARE, other)), (SQUARE, other))
    dataset = Dataset(("cat",), [LabelledImage("a.jpg", SIZE, (each,))])
    output, losses = written(tmp_path, Format.YOLO, dataset)
    assert losses == [Loss("outline of polygons that cover each other", 1)]
    write_images(dataset, output / "images")
    (found,) = converting.read(output)[1].dataset.images[0].objects
    assert polygons.of_polygons(found.segmentation, SIZE) == polygons.of_polygons(each.segmentation, SIZE)


@pytest.mark.parametrize("format", [Format.YOLO, Format.LABEL_STUDIO])
def test_what_reaches_out_of_an_image_is_cut_and_told(tmp_path, format):
    dataset = Dataset(("cat",), [LabelledImage("a.jpg", SIZE, (LabelledObject("cat", (-3.0, 2.0, 20.0, 5.0)),))])
    output, losses = written(tmp_path, format, dataset)
    assert losses == [Loss("part beyond the border of its image", 1)]
    write_images(dataset, output / "images")
    assert converting.read(output)[1].dataset.images[0].objects[0].box == (0.0, 2.0, 16.0, 5.0)


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_masks_are_all_of_one_form_if_that_is_asked(tmp_path, form):
    output, losses = written(tmp_path, Format.COCO, masks=form)
    first, second, third = converting.read(output)[1].dataset.images[0].objects
    assert third.segmentation is None
    assert second.segmentation == runs.encode(RING)
    if form == "rle":
        assert (first.segmentation, losses) == (polygons.of_polygons([SQUARE], SIZE), [])
    else:
        what = "polygon of a mask with a hole or without a pixel, which stays run lengths"
        assert (first.segmentation, losses) == ((SQUARE,), [Loss(what, 1)])


@pytest.mark.parametrize("format", list(Format))
def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path, format):
    output, _ = written(tmp_path, format)
    before = snapshot(output)
    with pytest.raises(DataError, match="--replace writes it again"):
        written(tmp_path, format)
    assert snapshot(output) == before
    smaller = everything()._replace(images=everything().images[1:])
    written(tmp_path, format, smaller, replace=True)
    after = snapshot(output)
    assert after != before
    assert not [name for name in after if "a.txt" in name or "a.json" in name[2:]]
    assert [each.name for each in tmp_path.iterdir()] == [output.name]
    written(tmp_path, format, replace=True)
    assert snapshot(output) == before


def snapshot(path):
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {os.path.relpath(each, path): each.read_bytes() for each in files}


@pytest.mark.parametrize("format", [Format.VOC, Format.YOLO, Format.LABELME, Format.LABEL_STUDIO])
def test_a_folder_with_anything_else_is_never_replaced(tmp_path, format):
    output, _ = written(tmp_path, format)
    (output / "thesis.odt").write_bytes(b"precious")
    before = snapshot(output)
    with pytest.raises(DataError, match=r"has 'thesis.odt', which is none of the files to replace"):
        written(tmp_path, format, replace=True)
    assert snapshot(output) == before
    (output / "thesis.odt").rename(tmp_path / "thesis.odt")
    (output / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="has 'link'"):
        written(tmp_path, format, replace=True)


IMAGES = {Format.VOC: "JPEGImages", Format.YOLO: "images", Format.LABELME: ""}


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("format", IMAGES)
def test_images_where_the_format_has_them_stay_when_it_is_written_again(tmp_path, format, linked, monkeypatch):
    def refused(*arguments):
        raise PermissionError(*arguments)

    output, _ = written(tmp_path, format)
    if not linked:
        monkeypatch.setattr(os, "link", refused)
    images = output / IMAGES[format]
    (images / "night").mkdir()
    for name in ("a.jpg", "night/b.JPG"):
        (images / name).write_bytes(name.encode())
    before = snapshot(output)
    written(tmp_path, format, everything()._replace(images=everything().images[1:]), replace=True)
    assert snapshot(output) != before
    written(tmp_path, format, replace=True)
    assert snapshot(output) == before
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    (images / "thesis.odt").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"thesis.odt', which is none of the files to replace"):
        written(tmp_path, format, replace=True)


@pytest.mark.parametrize("format", [Format.VOC, Format.YOLO])
def test_a_link_to_the_images_stays_when_the_format_is_written_again(tmp_path, format):
    output, _ = written(tmp_path, format)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"precious")
    (output / IMAGES[format]).rmdir()
    (output / IMAGES[format]).symlink_to("../photos")
    written(tmp_path, format, replace=True)
    assert (output / IMAGES[format] / "a.jpg").read_bytes() == b"precious"
    assert (output / IMAGES[format]).is_symlink()


KILLED = """
import os, sys
from pathlib import Path
from jaxvision.formats import destination

def rename(source, target, real=os.rename):
    if moves.pop() == 0:
        os._exit(9)
    real(source, target)

moves = list(range(int(sys.argv[2]) + 1))
os.rename = rename
with destination.folder(Path(sys.argv[1]), True, lambda path: True) as partial:
    (partial / "new.txt").write_text("new")
"""


@pytest.mark.parametrize("moves", [0, 1])
def test_what_a_killed_process_has_left_in_the_place_of_a_folder_is_the_old_one_at_the_next_call(tmp_path, moves):
    output, other = tmp_path / "labels", tmp_path / "labels.2"
    for each in (output, other):
        each.mkdir()
        (each / "old.txt").write_text(each.name)
    done = subprocess.run([sys.executable, "-c", KILLED, str(output), str(moves)], check=False, timeout=120)
    assert (done.returncode, output.exists()) == (9, moves == 0)
    with pytest.raises(DataError, match="labels is not empty"), destination.folder(output, False, lambda path: True):
        pass
    assert (output / "old.txt").read_text() == "labels"
    with destination.folder(output, True, lambda path: True) as partial:
        (partial / "new.txt").write_text("newer")
    assert snapshot(output) == {"new.txt": b"newer"}
    assert snapshot(other) == {"old.txt": b"labels.2"}
    left = sorted(each.name for each in tmp_path.iterdir())
    assert [each for each in left if not each.endswith(".partial")] == ["labels", "labels.2"]
    assert len(left) == 3 - moves


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    output, _ = written(tmp_path, Format.VOC)
    before = snapshot(output)
    with pytest.raises(RuntimeError, match="cut off"):
        half_written(output)
    assert snapshot(output) == before
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def half_written(output):
    with destination.folder(output, True, voc_file.belongs) as partial:
        (partial / "labelmap.txt").write_text("half")
        raise RuntimeError("cut off")


def image(**changes):
    return everything()._replace(images=[LabelledImage("a.jpg", SIZE)._replace(**changes)])


def thing(**changes):
    return image(objects=(LabelledObject("cat", (0.0, 0.0, 1.0, 1.0))._replace(**changes),))


UNSOUND = [
    (Format.COCO, thing(label="cta"), r"'a.jpg': object 1: label is 'cta'; did you mean 'cat'\?"),
    (Format.COCO, thing(box=(0.0, 0.0, float("nan"), 1.0)), "box is .*nan.*allowed are finite"),
    (Format.COCO, thing(box=(2.0, 0.0, 1.0, 1.0)), "no maximum below its minimum"),
    (Format.COCO, thing(score=1.5), "score is 1.5; allowed is 0 to 1"),
    (Format.COCO, thing(segmentation=((1.0, 2.0),)), "polygon is .*; allowed are three points or more"),
    (Format.COCO, thing(segmentation=runs.encode(RING[:4])), r"its mask is of \(4, 16\) pixels"),
    (Format.COCO, thing(attributes={"x": float("inf")}), "attribute 'x' is inf; allowed are finite"),
    (Format.COCO, image(size=(0, 4)), "size is .0, 4.; allowed are heights and widths"),
    (Format.COCO, everything()._replace(classes=("cat", "cat")), "classes has 'cat' twice"),
    (Format.COCO, everything()._replace(category_ids=(1, 1, 2)), "category_ids is .*another number for each"),
    (Format.VOC, image(name="../a.jpg"), "allowed are paths of files below the folder"),
    (Format.YOLO, image(name="/a.jpg"), "allowed are paths of files below the folder"),
    (
        Format.YOLO,
        everything()._replace(images=[LabelledImage(f"a.{s}", SIZE) for s in ("jpg", "png")]),
        "both have the file",
    ),
    (Format.YOLO, Dataset(("cat", " "), []), "class ' ' can't be written as YOLO: it is empty"),
    (Format.VOC, Dataset((" cat",), []), "begins or ends with a space; give it another name"),
    (Format.VOC, Dataset(("a\x07",), []), "has a character that XML has not"),
    (Format.CVAT, Dataset(("a\x07",), []), "has a character that XML has not"),
    (Format.LABEL_STUDIO, Dataset(("",), []), "it is empty"),
    (Format.LABELME, Dataset(("a\nb",), []), "it has a line break"),
    (Format.LABELME, Dataset(("\udcff",), []), "it is no Unicode"),
]


@pytest.mark.parametrize(("format", "dataset", "message"), UNSOUND)
def test_what_no_file_can_hold_is_refused_before_anything_is_written(tmp_path, format, dataset, message):
    with pytest.raises(DataError, match=message):
        written(tmp_path, format, dataset)
    assert list(tmp_path.iterdir()) == []


def changed(file, old, new, times=1):
    def spoil(output):
        path = output / file if file else output
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, times), encoding="utf-8")
        return path

    return spoil


SPOILT = [
    (Format.COCO, changed("", '"score": 0.5', '"score": 7'), r"annotation 7: score is 7; allowed is 0 to 1"),
    (Format.COCO, changed("", "[[1, 1, 5, 1,", "[[1, 1, 5,"), "annotation 7: segmentation is .*allowed are polygons"),
    (Format.COCO, changed("", '"bbox": [1', '"bbox": ["x"'), "annotation 7: bbox is .*allowed are four finite numbers"),
    (
        Format.COCO,
        changed("", '"attributes": {"colour": "red"}', '"attributes": 3'),
        "attributes is 3; allowed is an object",
    ),
    (Format.COCO, changed("", '"name": "dog"', '"name": "cat"'), "categories 2, 7 all have the name 'cat'"),
    (Format.COCO, changed("", '"images": [', '"images": [,'), "is no JSON"),
    (Format.VOC, changed("Annotations/a.xml", "<xmin>2<", "<xmin>x<"), "object 1: bndbox is xmin x"),
    (
        Format.VOC,
        changed("Annotations/a.xml", "<width>16<", "<width>-1<"),
        "size is not said, and .*a.jpg can't be read",
    ),
    (
        Format.VOC,
        changed("Annotations/a.xml", "<value>red</value>", ""),
        "object 1: an attribute has no name or no value",
    ),
    (
        Format.VOC,
        changed("Annotations/a.xml", "<value>red", '<value type="number">red'),
        "'colour' is 'red'; allowed is a finite",
    ),
    (Format.VOC, changed("Annotations/a.xml", "<annotation>", "<!DOCTYPE a><annotation>"), "it has a DOCTYPE"),
    (
        Format.LABELME,
        changed("a.json", '"score": 0.5', '"score": "high"'),
        "shape 1: score is 'high'; allowed is 0 to 1",
    ),
    (Format.LABELME, changed("a.json", '"label": "cat"', '"label": 3'), "shape 1: label is 3; allowed is a text"),
    (
        Format.LABELME,
        changed("a.json", '"shape_type": "rectangle"', '"shape_type": "polygon"'),
        "a polygon of 2 points",
    ),
    (
        Format.LABELME,
        changed("a.json", '"mask": "iVBOR', '"mask": "xVBOR'),
        "shape 2: mask .*allowed is a PNG in base64",
    ),
    (
        Format.LABELME,
        changed("a.json", '"big": true', '"big": 1'),
        "shape 2: flags is .*allowed are names with true or false",
    ),
    (
        Format.LABELME,
        changed("a.json", '"imageHeight": 12', '"imageHeight": null'),
        "imageHeight is None .*can't be read",
    ),
    (
        Format.CVAT,
        changed("", 'points="1,1;', 'points="1;1,1;'),
        r"image 0 \(a.jpg\): polygon 1: points is .*three or more",
    ),
    (Format.CVAT, changed("", 'xtl="0"', 'xtl="left"'), "box 3: xtl is 'left'; allowed is a finite number"),
    (
        Format.CVAT,
        changed("", 'xtl="0"', 'xtl="9"'),
        "box 3: xtl ytl xbr ybr are 9.0 0.0 2.0 2.0; allowed is no maximum",
    ),
    (Format.CVAT, changed("", ' label="cat"', ""), "polygon 1: there is no label"),
    (Format.CVAT, changed("", 'rle="0, ', 'rle="5, '), "mask 2: rle is .*allowed are run lengths, 63 pixels together"),
    (Format.CVAT, changed("", 'left="3"', 'left="30"'), "mask 2: left top width height are 30 .*outside of the image"),
    (Format.CVAT, changed("", 'height="12"', 'height="0"'), "height and width are 0 and 16"),
    (
        Format.LABEL_STUDIO,
        changed("tasks.json", '"result": [', '"result": 3, "x": ['),
        "task 1: annotation: result is 3",
    ),
    (
        Format.LABEL_STUDIO,
        changed("tasks.json", '"score": 0.5,\n', '"score": 5,\n', 2),
        "score is 5; allowed is 0 to 1",
    ),
    (
        Format.LABEL_STUDIO,
        changed("tasks.json", '"x": 0.0', '"x": null'),
        "annotation: result 1: x is None; allowed is a finite",
    ),
    (Format.LABEL_STUDIO, changed("tasks.json", '"image": "/data', '"photo": "/data'), "task 1: data: image is None"),
]


@pytest.mark.parametrize(("format", "spoil", "message"), SPOILT)
def test_what_can_not_be_used_is_named_with_its_file_and_field(tmp_path, format, spoil, message):
    output, _ = written(tmp_path, format)
    path = spoil(output)
    with pytest.raises(DataError, match=message) as told_error:
        converting.read(output)
    assert str(told_error.value).startswith(str(path))


def test_yolo_needs_its_images(tmp_path):
    output, _ = written(tmp_path, Format.YOLO)
    with pytest.raises(DataError, match="has 2 texts, first .*a.txt, and no image: the sizes of the images are needed"):
        converting.read(output)
    write_images(everything(), tmp_path / "photos")
    assert [each.name for each in converting.read(output, tmp_path / "photos")[1].dataset.images] == ["a.jpg", "b.jpg"]
    (tmp_path / "photos" / "b.jpg").unlink()
    assert converting.read(output, tmp_path / "photos")[1].left_out == [Loss("text without an image", 1)]


def test_what_of_a_file_has_no_place_is_told(tmp_path):
    output, _ = written(tmp_path, Format.COCO)
    content = json.loads(output.read_text())
    content["info"] = {"year": 2017}
    content["annotations"][0] |= {"keypoints": [1, 2, 3], "attributes": {"colour": "red", "x": {"deep": 1}}}
    output.write_text(json.dumps(content))
    told_of = {loss.what: loss.count for loss in converting.read(output)[1].left_out}
    what = "attribute x that is no text, number, true or false"
    assert told_of == {"field info": 1, "field keypoints": 1, what: 1}


CVAT = """<annotations><version>1.1</version><meta><task><labels><label><name>cat</name><attributes><attribute>
<name>age</name><input_type>number</input_type></attribute></attributes></label></labels></task></meta>
<image id="7" name="a.jpg" width="16" height="12"><box label="cat" source="semi-auto" occluded="1" xtl="4" ytl="4" xbr="8"
ybr="6" rotation="90"><attribute name="age">7</attribute><attribute name="note">true</attribute></box>
<polyline label="cat" points="1,2;3,4"/><tag label="night"/></image><track id="0" label="cat"/></annotations>"""


def test_cvat_of_others(tmp_path):
    (tmp_path / "annotations.xml").write_text(CVAT)
    format, (dataset, left_out) = converting.read(tmp_path)
    assert format is Format.CVAT
    (found,) = dataset.images[0].objects
    assert found.attributes == {"age": 7, "note": "true", "occluded": True}
    assert (found.model, found.score, dataset.classes) == ("semi-auto", None, ("cat",))
    np.testing.assert_allclose(found.segmentation, [[7, 3, 7, 7, 5, 7, 5, 3]], atol=1e-12)
    assert told(left_out) == "1 element polyline, 1 element tag, 1 video track"


def test_tasks_that_label_studio_exports(tmp_path):
    region = {
        "original_width": 16,
        "original_height": 12,
        "id": "x7",
        "from_name": "l",
        "to_name": "i",
        "type": "rectanglelabels",
    }
    value = {"x": 25, "y": 50, "width": 12.5, "height": 25, "rotation": 0, "rectanglelabels": ["cat"]}
    drawn, guess = {**region, "value": value}, {**region, "value": value, "score": 0.5}
    annotations = [
        {"id": 1, "was_cancelled": True, "result": []},
        {"id": 2, "result": [drawn]},
        {"id": 3, "result": [drawn, drawn]},
    ]
    data = {"image": "/data/upload/1/0a1b2c3d-one%20two.jpg"}
    tasks = [{"id": 5, "data": data, "annotations": annotations, "predictions": [{"result": [guess]}]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    format, (dataset, left_out) = converting.read(tmp_path / "export.json")
    assert format is Format.LABEL_STUDIO
    assert dataset == Dataset(
        ("cat",), [LabelledImage("one two.jpg", (12, 16), (LabelledObject("cat", (4.0, 6.0, 6.0, 9.0)),))]
    )
    told_of = "1 annotation after the first of a task, 1 cancelled annotation, 1 prediction before an annotation"
    assert told(left_out) == told_of


def label_studio_box(id="r", **more):
    value = {"x": 50, "y": 50, "width": 40, "height": 10, "rotation": 0, "rectanglelabels": ["cup"]}
    side = {"original_width": 200, "original_height": 100}
    return {"id": id, "from_name": "b", "to_name": "image", "type": "rectanglelabels", **side, "value": value | more}


def label_studio_choice(id, value):
    return {"id": id, "from_name": "colour", "to_name": "image", "type": "choices", "value": {"choices": [value]}}


def read_tasks(tmp_path, *tasks):
    (tmp_path / "export.json").write_text(json.dumps([{"data": {"image": "a.jpg"}, **each} for each in tasks]))
    dataset, left_out = converting.read(tmp_path / "export.json")[1]
    return dataset.images[0].objects, told(left_out)


@pytest.mark.parametrize(
    ("degrees", "corners"),
    [
        (90, [100, 50, 100, 130, 90, 130, 90, 50]),
        (180, [100, 50, 20, 50, 20, 40, 100, 40]),
        (-90, [100, 50, 100, -30, 110, -30, 110, 50]),
        (450, [100, 50, 100, 130, 90, 130, 90, 50]),
    ],
)
def test_boxes_that_label_studio_has_turned_about_their_top_left_corner_are_polygons(tmp_path, degrees, corners):
    (found,), left_out = read_tasks(tmp_path, {"annotations": [{"result": [label_studio_box(rotation=degrees)]}]})
    assert (list(found.segmentation[0]), left_out) == (corners, "")
    assert found.box == (min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2]))
    assert (found.label, found.segmentation) == ("cup", (tuple(map(float, corners)),))


def test_boxes_of_label_studio_that_are_turned_by_nothing_stay_boxes_and_turns_are_numbers(tmp_path):
    plain = (100, 50, 180, 60)
    for degrees in (0, 360, None):
        (found,), _ = read_tasks(tmp_path, {"annotations": [{"result": [label_studio_box(rotation=degrees)]}]})
        assert (found.box, found.segmentation) == (plain, None)
    turned = label_studio_box() | {"image_rotation": 90}
    (found,), left_out = read_tasks(tmp_path, {"annotations": [{"result": [turned]}]})
    assert (found.box, left_out) == (plain, "1 rotation of the image of a region")
    with pytest.raises(DataError, match="annotation: result 1: rotation is 'up'; allowed is a finite number"):
        read_tasks(tmp_path, {"annotations": [{"result": [label_studio_box(rotation="up")]}]})


def test_regions_of_two_predictions_of_label_studio_keep_apart_though_their_ids_are_the_same(tmp_path):
    def prediction(model, label, colour):
        box = label_studio_box("1", rectanglelabels=[label])
        return {"model_version": model, "result": [box, label_studio_choice("1", colour)]}

    predictions = [prediction("A", "cup", "red"), prediction("B", "cat", "black")]
    found, left_out = read_tasks(tmp_path, {"predictions": predictions})
    assert [(each.label, each.model, each.attributes) for each in found] == [
        ("cup", "A", {"colour": "red"}),
        ("cat", "B", {"colour": "black"}),
    ]
    drawn = [{"result": [label_studio_box("1"), label_studio_choice("1", "red")]}]
    found, _ = read_tasks(tmp_path, {"annotations": drawn, "predictions": predictions[1:]})
    assert [(each.model, each.attributes) for each in found] == [(None, {"colour": "red"}), ("B", {"colour": "black"})]
    assert left_out == ""


def test_labelme_of_others(tmp_path):
    shapes = [
        {"label": "cat", "points": [[9, 8], [1, 2]], "shape_type": "rectangle", "group_id": 4},
        {"label": "cat", "points": [[1, 2]], "shape_type": "point"},
        {"label": "dog", "points": [[1, 1], [3, 1], [3, 4], [1, 4]], "shape_type": "rotation", "description": "EXIT"},
    ]
    content = {
        "shapes": shapes,
        "imagePath": "..\\photos\\a.jpg",
        "imageData": None,
        "imageHeight": 12,
        "imageWidth": 16,
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    format, (dataset, left_out) = converting.read(tmp_path / "a.json")
    assert (format, dataset.images[0].name, dataset.classes) == (Format.LABELME, "a.jpg", ("cat", "dog"))
    first, second = dataset.images[0].objects
    assert (first.box, first.segmentation) == ((1, 2, 9, 8), None)
    assert (second.box, second.attributes) == ((1, 1, 3, 4), {"description": "EXIT"})
    assert told(left_out) == "1 number of a group, 1 shape point"
    assert converting.read(tmp_path / "a.json", tmp_path.parent / "photos")[1].dataset.images[0].name == "a.jpg"


@pytest.mark.skipif(os.name == "nt", reason="there it is a path that leads somewhere")
@pytest.mark.parametrize("path", ["C:\\photos\\a.jpg", "d:/photos/a.jpg", "\\\\server\\photos\\a.jpg"])
def test_images_on_a_drive_of_windows_lie_beside_their_files_of_labelme(tmp_path, path):
    content = {"shapes": [], "imagePath": path, "imageData": None, "imageHeight": 12, "imageWidth": 16}
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / "a.json").write_text(json.dumps(content))
    assert [image.name for image in converting.read(tmp_path)[1].dataset.images] == ["night/a.jpg"]


VOC = """<annotation><folder>x</folder><filename>/home/x/other.png</filename><size><width>16</width><height>12</height></size>
<object><name> cat </name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult><part><name>head</name></part>
<bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def test_voc_of_others(tmp_path):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main", "SegmentationObject"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Annotations" / "a.xml").write_text(VOC)
    (tmp_path / "JPEGImages" / "a.JPEG").write_bytes(b"")
    (tmp_path / "SegmentationObject" / "a.png").write_bytes(b"")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\nowl:0,1,2:a,b:\n"
    )
    for split in ("train", "val"):
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text("a\n")
    format, (dataset, left_out) = converting.read(tmp_path)
    each = LabelledObject("cat", (0.0, 1.5, 8.0, 9.0), attributes={"pose": "Left", "truncated": True}, difficult=True)
    assert (format, dataset) == (Format.VOC, Dataset(("cat", "owl"), [LabelledImage("a.JPEG", (12, 16), (each,))]))
    assert told(left_out) == "1 field part, 1 map of objects, 2 splits"


def test_of_voc_a_folder_is_listed_once_and_one_file_is_in_memory(tmp_path, monkeypatch):
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir()
    for number in range(20):
        (tmp_path / "JPEGImages" / f"{number:02}.png").write_bytes(b"")
        (tmp_path / "JPEGImages" / f"{number:02}.webp").write_bytes(b"")
        (tmp_path / "Annotations" / f"{number:02}.xml").write_text(VOC)
    listed, alive, iterdir, root_of = [], [], Path.iterdir, voc_folder._root

    def root(path):
        assert [each for each in alive if each() is not None] == []
        found = root_of(path)
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or iterdir(self))
    monkeypatch.setattr(voc_folder, "_root", root)
    dataset, _ = voc_folder.read(tmp_path)
    assert [image.name for image in dataset.images] == [f"{number:02}.png" for number in range(20)]
    assert (dataset.classes, len(alive), listed) == (("cat",), 20, [tmp_path / "JPEGImages"])


def test_splits_of_yolo_are_told(tmp_path):
    dataset = everything()
    for split in ("train", "val"):
        write_images(dataset, tmp_path / "images" / split)
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    format, (found, left_out) = converting.read(tmp_path)
    assert (format, left_out) == (Format.YOLO, [Loss("split", 2)])
    assert [image.name for image in found.images] == ["train/a.jpg", "train/b.jpg", "val/a.jpg", "val/b.jpg"]
    assert [each.box for each in found.images[0].objects] == [(6.0, 3.0, 10.0, 9.0)]


@pytest.mark.parametrize("write", [detection_files.write_coco, detection_files.write_voc, detection_files.write_yolo])
def test_the_same_is_read_as_for_training(tmp_path, write):
    path = write(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(detection_files.CLASSES))
    listing, dataset = opening.open(path), converting.read(path)[1].dataset
    assert dataset.classes == listing.classes
    images = {image.name: image for image in dataset.images}
    assert len(images) == len(listing.images) > 0
    for image in listing.images:
        found = next(each for name, each in images.items() if image.name.endswith(name))
        scale = np.array([*found.size[::-1]] * 2) if listing.relative else 1.0
        sides = np.reshape([each.box for each in image.objects], (-1, 4)) * scale
        np.testing.assert_allclose(np.reshape([each.box for each in found.objects], (-1, 4)), sides, atol=1e-9)
        assert [each.label for each in found.objects] == [listing.classes[each.label] for each in image.objects]


def test_brushes_of_any_mask_come_back():
    rng = np.random.default_rng(2)
    for mask in (np.zeros((1, 1), bool), np.ones((300, 400), bool), rng.random((7, 9)) < 0.5, RING):
        np.testing.assert_array_equal(brush.decode(brush.encode(mask), mask.shape), mask)
    for spoil in ([], [1, 2], brush.encode(RING)[:-3], brush.encode(RING[:4]), [300], ["x"]):
        with pytest.raises(ValueError, match="rle"):
            brush.decode(spoil, SIZE)


def test_xml_that_does_harm_is_not_read(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotations>&c;</annotations>'
    (tmp_path / "bomb.xml").write_text(bomb)
    with pytest.raises(DataError, match=r"bomb.xml is no CVAT XML|it has a DOCTYPE"):
        converting.read(tmp_path / "bomb.xml")
    deep = "<annotations>" + "<a>" * 500 + "</a>" * 500 + "</annotations>"
    (tmp_path / "deep.xml").write_text(deep)
    with pytest.raises(DataError, match="nest more than 100 levels"):
        converting.read(tmp_path / "deep.xml")
    text = "".join(map(chr, range(1, 0x300))) + "\ufffe\U0001f600"
    root = xml_file.parsed(f'<a b="{xml_file.escaped(text)}">{xml_file.escaped(text)}</a>'.encode(), "a", "a")
    assert root.text == root.get("b") == xml_file.writable(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", "<annotation/>", "is no CVAT XML: its root is no <annotations>; of VOC, name the folder"),
        ("a.json", '{"annotations": []}', "is no COCO file of instances"),
        ("a.json", '[{"data": 3}]', "task 1: data is 3; allowed is an object"),
        ("a.json", "[", "is no JSON"),
        ("a.txt", "cat", "is no dataset known here: a COCO .json"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        converting.read(tmp_path / name)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        converting.read(tmp_path / "nothing")
    with pytest.raises(DataError, match="there is no folder .* to write"):
        converting.write(everything(), tmp_path / "no" / "a.json", Format.COCO)
    assert Path(tmp_path).is_dir()

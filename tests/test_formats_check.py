import json
import subprocess
import sys

import numpy as np
import pytest
from check_command import run
from data_encoding import encoded, smooth
from detection_files import CLASSES, coco_content, masked_content, name, write_coco, write_voc, write_yolo

from jaxvision.data import objects, samples
from jaxvision.formats import check, faults

NAMES = ",".join(CLASSES)


@pytest.mark.parametrize("folder", [samples.trees_dir(), samples.nuclei_dir()])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_samples_are_without_faults(capsys, folder, split):
    status, text = run(capsys, folder / f"{split}.json")
    assert status == 0
    assert text.endswith("no faults\n")
    assert len(text.splitlines()) == 2


def test_every_form_is_found_and_can_be_clean(tmp_path, capsys):
    path = write_coco(tmp_path / "coco")
    year = write_voc(tmp_path / "voc")
    root = write_yolo(tmp_path / "yolo")
    (tmp_path / "yolo" / "data.yaml").write_text(f"train: images\nval: images\nnames: [{NAMES}]")
    plain = write_yolo(tmp_path / "plain")
    (plain / "classes.txt").write_text("cat\ndog\nowl\n")
    for arguments, form in (
        ((path,), "COCO JSON"),
        ((path, "--images", path.with_suffix("")), "COCO JSON"),
        ((year, f"--classes={NAMES}"), "Pascal VOC"),
        ((tmp_path / "voc", f"--classes={NAMES}"), "Pascal VOC"),
        ((root,), "YOLO text"),
        ((root / "data.yaml",), "YOLO text"),
        ((plain,), "YOLO text"),
    ):
        status, text = run(capsys, *arguments)
        assert (status, f": {form}, 4 images in " in text, ", 6 boxes, 3 classes" in text) == (0, True, True), text


def broken_coco(root):
    """A file with one fault of each kind, at least."""
    content = coco_content()
    images, annotations = content["images"], content["annotations"]
    extra = {"image_id": 17, "category_id": 3, "iscrowd": 0, "area": 4.0}
    annotations += [
        {**extra, "id": 1, "bbox": [60, 60, 9, 2]},
        {**extra, "id": 2, "bbox": [-40, 3, 5, 5]},
        {**extra, "id": 3, "bbox": [5, 5, 0, 7]},
        {**extra, "id": 4, "bbox": [30, 30, 8, 8], "keypoints": [1, 2, 3]},
        {**extra, "id": 5, "bbox": [30, 30, 8, 8]},
        {**extra, "id": 0, "bbox": [1, 1, 8, 8]},
        {**extra, "id": 100, "bbox": [2, 2, 8, 8]},
        {**extra, "bbox": [3, 3, 8, 8]},
        {**extra, "id": 6, "bbox": [3, 3, 8, "8"]},
        {**extra, "id": 7, "bbox": [3, 3, 8, 8], "category_id": 4},
        {**extra, "id": 8, "bbox": [3, 3, 8, 8], "image_id": 4},
        {**extra, "id": 9, "bbox": [3, 3, 8, 8], "image_id": 40},
        {**extra, "id": 10, "bbox": [3, 3, 8, 8], "image_id": 47},
        {**extra, "id": 11, "bbox": [3, 3, 8, 8], "image_id": 54},
        {**extra, "id": 12, "bbox": [56.002, 3, 8, 8]},
        {**extra, "id": 13, "bbox": [50, 50, 20, 8]},
        {**extra, "id": 14, "bbox": [50, 50, 30, 8]},
        {**extra, "id": 15, "bbox": [3, 3, 8, 8], "image_id": 68},
        {**extra, "id": 16, "bbox": [300, 3, 8, 8], "image_id": 68},
        {**extra, "id": 17, "bbox": [20, 3, 8, 8], "image_id": 61},
    ]
    images += [
        {"id": 40, "file_name": "gone.png", "width": 9, "height": 9},
        {"id": 47, "file_name": "cut.jpg", "width": 64, "height": 64},
        {"id": 54, "file_name": "turned.jpg", "width": 64, "height": 32},
        {"id": 68, "file_name": "this.png"},
        {"id": 68, "file_name": "that.png"},
        {"id": 61, "file_name": "plain.jpg"},
        {"id": 61, "file_name": "plain.jpg"},
    ]
    path = write_coco(root, content)
    folder = path.with_suffix("")
    (folder / "cut.jpg").write_bytes(encoded(smooth(64, 64), "JPEG")[:400])
    exif = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    (folder / "turned.jpg").write_bytes(encoded(smooth(32, 64), "JPEG", exif=exif))
    (folder / "plain.jpg").write_bytes(encoded(smooth(32, 64), "JPEG"))
    return path


def test_every_fault_of_a_coco_file_is_told_with_file_id_and_value(tmp_path, capsys):
    path = broken_coco(tmp_path)
    status, text = run(capsys, path, "--all")
    assert status == 1
    folder = path.with_suffix("")
    for line in (
        "annotation 1: box 60 60 69 62 (x0 y0 x1 y1) of 001.png, which is 64x64 (width x height)",
        "annotation 2: box -40 3 -35 8 (x0 y0 x1 y1) of 001.png, which is 64x64 (width x height)",
        "annotation 3: box 5 5 5 12 (x0 y0 x1 y1) of 001.png has no area",
        "annotation 5: box 30 30 38 38 (x0 y0 x1 y1) of 001.png is that of annotation 4, of the same category",
        "annotation 0: of image 17 (001.png): an evaluation may lose a match with it; allowed are whole numbers from 1",
        "annotation 100: of image 17 (001.png): one of image 10 (000.png) has this id",
        "annotation number 13: of image 17 (001.png): id is None; allowed are whole numbers from 1",
        "annotation 6: bbox is [3, 3, 8, '8']; allowed are four finite numbers, x y width height, no side below 0",
        "annotation 7: category_id is 4; allowed are 3 (cat), 17 (dog), 90 (owl)",
        "annotation 8: image_id is 4, and no image has this id",
        f"image 40: there is no file {folder / 'gone.png'}",
        "image 54: turned.jpg is 64x32 here, and 32x64 in its file (width x height; turned by its EXIF orientation)",
        "image 68: two images have this id: this.png, that.png",
        "image 61: plain.jpg is listed twice with this id",
        "annotation 14: box 50 50 80 58 (x0 y0 x1 y1) of 001.png is, cut to the image, that of annotation 13, of the",
    ):
        assert f"  {path}: {line}" in text, line
    assert f"  {folder / 'cut.jpg'}: image 47 of {path}: can't be decoded: " in text
    counts = dict(line.strip().rsplit("  ", 1) for line in text.split("\n\n")[0].splitlines()[1:])
    found = {kind.strip(): int(count) for kind, count in counts.items()}
    assert found == {
        **{"malformed": 1, "unknown category": 1, "annotation of an unknown image": 1, "duplicate image id": 1},
        **{"image listed twice": 1},
        **{"box outside the image": 5, "zero area": 1, "duplicate box": 2, "annotation without an id": 1},
        **{"annotation id 0": 1, "duplicate annotation id": 1, "missing image": 1, "unreadable image": 1},
        "image of another size": 1,
    }


def changed_coco(root, change, content=coco_content):
    content = content()
    change(content)
    return write_coco(root, content)


def annotation_of_17(**more):
    return {"image_id": 17, "category_id": 3, "bbox": [30, 30, 8, 8], "iscrowd": 0, "area": 64.0, **more}


def copy_of(capsys, root, change, content=coco_content):
    """The faults that were printed, the changes, and the content of the copy, which is checked to be clean."""
    path, out = changed_coco(root, change, content), root / "out.json"
    _, text = run(capsys, path, "--all", f"--repaired={out}")
    told, changes = text.split("\nwrote ")
    assert run(capsys, out, "--images", path.with_suffix(""))[0] == 0
    return told, changes, json.loads(out.read_text())


SQUARE = [30, 30, 38, 30, 38, 38, 30, 38]


@pytest.mark.parametrize(
    ("segmentation", "match", "left"),
    [
        ([[1, 2, 3, 4]], "segmentation is [[1, 2, 3, 4]]; allowed are polygons", None),
        ([SQUARE, [1, 2, 3, 4]], "allowed are polygons [[x, y, ...], ...] of three points or more", [SQUARE]),
        ([SQUARE[:7]], "allowed are polygons", None),
        ([[*SQUARE[:7], float("nan")]], "allowed are polygons", None),
        ({"size": [4, 6], "counts": [24]}, "segmentation is of [4, 6] pixels, the image of [64, 64]", None),
        ({"size": [64, 64], "counts": [9000]}, "segmentation: ", None),
    ],
)
def test_an_object_whose_mask_is_broken_is_told_and_not_copied(tmp_path, capsys, segmentation, match, left):
    broken = annotation_of_17(id=1, segmentation=segmentation)
    sound = [{"size": [64, 64], "counts": [66, 2, 62, 2, 3964]}, [[3, 1, 5, 1, 5, 3, 3, 3]]]
    more = [
        annotation_of_17(id=n, bbox=[n, 1, 2, 2], area=4, segmentation=each) for n, each in enumerate(sound, start=2)
    ]
    told, changes, content = copy_of(
        capsys, tmp_path, lambda c: c["annotations"].extend([broken, *more]), masked_content
    )
    assert "  broken segmentation  1\n" in told
    assert "small.json: annotation 1: of 001.png: " in told
    assert match in told
    assert f"{'left out' if left is None else 'mended'}: broken segmentation  1\n" in changes
    kept = {tuple(each["bbox"]): each["segmentation"] for each in content["annotations"]}
    assert kept.get((30, 30, 8, 8)) == left
    assert [kept[n, 1, 2, 2] for n in (2, 3)] == sound


def test_a_copy_of_a_file_with_masks_can_be_read_with_them(tmp_path, capsys):
    broken = [annotation_of_17(id=n, segmentation=[[n, n, n, n]]) for n in range(1, 8)]
    mended = [annotation_of_17(id=n, segmentation=[SQUARE, [n, n, n, n]]) for n in (8, 9)]
    without = [annotation_of_17(id=10), annotation_of_17(id=11, segmentation=[])]
    change = lambda c: c["annotations"].extend([*broken, *mended, *without])
    told, changes, content = copy_of(capsys, tmp_path, change, masked_content)
    assert "  object without a mask  2\n" in told
    assert "annotation 10: of 001.png: there is no segmentation, and others of the file have one" in told
    assert "annotation 11: of 001.png: segmentation is [], and others of the file have one" in told
    for line in (
        *("left out: broken segmentation  7", "mended: broken segmentation  2", "left out: duplicate box  1"),
        "left out: object without a mask  2",
    ):
        assert f"  {line}\n" in changes, line
    assert len(content["annotations"]) == 6 + 1
    source = objects.coco(tmp_path / "out.json", tmp_path / "small", masks=True)
    assert sum(len(each.objects.masks) for each in source.read(np.arange(source.length))) == 7


def test_a_copy_of_a_file_whose_masks_are_all_broken_has_boxes(tmp_path, capsys):
    broken = [annotation_of_17(id=1, segmentation=[[1, 1]]), annotation_of_17(id=2, segmentation=[[2, 2]])]
    _, changes, content = copy_of(capsys, tmp_path, lambda c: c["annotations"].extend(broken))
    assert "  left out, its box stays: broken segmentation  2\n  left out: duplicate box  1\n" in changes
    assert len(content["annotations"]) == 6 + 1


@pytest.mark.parametrize(
    ("change", "kind", "value", "count"),
    [
        (
            {"area": 129.0},
            "area that is not the mask's",
            "area is 129, its mask has 64 pixels; allowed is half to twice as much",
            7,
        ),
        ({"area": 30}, "area that is not the mask's", "area is 30, its mask has 64 pixels", 7),
        ({"area": 0}, "area that is not the mask's", "area is 0, its mask has 64 pixels", 7),
        (
            {"segmentation": {"size": [64, 64], "counts": [4096]}},
            "mask without a pixel",
            "segmentation covers no pixel of the image",
            6,
        ),
        ({"segmentation": [[70, 70, 80, 70, 80, 80]]}, "mask without a pixel", "segmentation covers no pixel", 6),
        (
            {"segmentation": [[0.5, 0.5, 0.6, 0.5, 0.6, 0.7]]},
            "object that looks like fractions",
            "segmentation looks like fractions of the image's sides; expected are pixels",
            6,
        ),
        (
            {"segmentation": [[0.5, 0.5, 0.6, 0.5, 0.6, 0.7]], "bbox": [0.5, 0.5, 0.1, 0.2]},
            "object that looks like fractions",
            "box 0.5 0.5 0.6 0.7 (x0 y0 x1 y1) of 001.png looks like fractions of the image's sides; expected are pixels",
            6,
        ),
    ],
)
def test_other_faults_of_masks_are_told_and_mended(tmp_path, capsys, change, kind, value, count):
    more = annotation_of_17(id=1, **{"segmentation": [SQUARE], **change})
    told, changes, content = copy_of(capsys, tmp_path, lambda c: c["annotations"].append(more), masked_content)
    assert f"  {kind}  1\n\n" in told
    assert "annotation 1: " in told
    assert value in told
    assert f"  {'put right' if count == 7 else 'left out'}: {kind}  1\n" in changes
    assert len(content["annotations"]) == count
    if count == 7:
        assert [each["area"] for each in content["annotations"] if each["bbox"] == [30, 30, 8, 8]] == [64]


def test_an_area_near_enough_and_a_crowd_of_polygons_are_no_fault(tmp_path, capsys):
    from pycocotools import mask
    from pycocotools.coco import COCO

    more = [
        annotation_of_17(id=1, area=33, segmentation=[SQUARE]),
        annotation_of_17(id=2, area=127, bbox=[3, 3, 8, 8], segmentation=[[3, 3, 11, 3, 11, 11, 3, 11]]),
        annotation_of_17(id=3, area=6, bbox=[3, 20, 2, 2], segmentation=[[3, 20, 5, 20, 5, 22, 3, 22]]),
        annotation_of_17(id=4, iscrowd=1, bbox=[20, 20, 8, 8], segmentation=[[20, 20, 28, 20, 28, 28, 20, 28]]),
    ]
    path = changed_coco(tmp_path, lambda c: c["annotations"].extend(more), masked_content)
    assert run(capsys, path)[0] == 0
    reference = COCO(str(path))
    assert mask.area(reference.annToRLE(reference.anns[4])) == 64
    capsys.readouterr()


def test_a_copy_is_strict_json(tmp_path, capsys):
    more = annotation_of_17(id=1, score=float("nan"), other=[1.5, float("inf")])
    _, changes, content = copy_of(capsys, tmp_path, lambda c: c["annotations"].append(more))
    assert "set to null: number that is not finite  2" in changes
    kept = next(each for each in content["annotations"] if "score" in each)
    assert (kept["score"], kept["other"]) == (None, [1.5, None])


@pytest.mark.parametrize(("mask", "area"), [(None, 16), ([[60, 60, 70, 60, 70, 70]], 90.0)])
def test_the_area_of_a_cut_box_is_no_larger_than_it_unless_a_mask_gives_it(tmp_path, capsys, mask, area):
    entry = annotation_of_17(id=1, bbox=[60, 60, 10, 10], area=90.0)
    entry |= {} if mask is None else {"segmentation": mask}
    contents = coco_content if mask is None else masked_content
    _, _, content = copy_of(capsys, tmp_path, lambda c: c["annotations"].append(entry), contents)
    [found] = [each for each in content["annotations"] if each["bbox"][0] == 60]
    assert (found.get("segmentation"), found["area"]) == (mask, area)


def test_a_duplicate_has_the_same_crowd_flag_and_segmentation(tmp_path, capsys):
    other = [[30, 30, 38, 30, 38, 38]]
    more = [
        annotation_of_17(id=1, iscrowd=1, segmentation=[SQUARE]),
        annotation_of_17(id=3, segmentation=[SQUARE]),
        annotation_of_17(id=4, segmentation=other, area=32),
        annotation_of_17(id=5, segmentation=[SQUARE]),
    ]
    told, changes, content = copy_of(capsys, tmp_path, lambda c: c["annotations"].extend(more), masked_content)
    assert "annotation 5: box 30 30 38 38 (x0 y0 x1 y1) of 001.png is that of annotation 3" in told
    assert "  duplicate box  1\n" in told
    assert "left out: duplicate box  1" in changes
    assert len(content["annotations"]) == 6 + 3


def test_no_segmentation_is_an_empty_one(tmp_path, capsys):
    more = [annotation_of_17(id=2), annotation_of_17(id=6, segmentation=[])]
    told, changes, content = copy_of(capsys, tmp_path, lambda c: c["annotations"].extend(more))
    assert "annotation 6: box 30 30 38 38 (x0 y0 x1 y1) of 001.png is that of annotation 2" in told
    assert "left out: duplicate box  1" in changes
    assert len(content["annotations"]) == 6 + 1


def test_a_size_that_is_none_is_told_and_put_right(tmp_path, capsys):
    told, changes, content = copy_of(capsys, tmp_path, lambda c: c["images"][2].update(width="64"))
    assert "image 17: height is 64 and width '64'; allowed are whole numbers above 0" in told
    assert "put right: malformed image size  1" in changes
    assert "left out" not in changes
    assert next(each for each in content["images"] if each["id"] == 17)["width"] == 64


def test_names_and_files_that_stand_twice_are_told_and_left(tmp_path, capsys):
    def change(content):
        content["categories"].append({"id": 91, "name": "cat"})
        content["images"].append({"id": 50, "file_name": f"./{name(1)}"})

    path, out = changed_coco(tmp_path, change), tmp_path / "out.json"
    status, text = run(capsys, path, f"--repaired={out}")
    assert status == 1
    assert f"  {path}: categories 3, 91: all have the name 'cat'" in text
    assert f"  {path}: image 50: ./001.png is the file of image 17, too" in text
    assert "  2 faults remain: duplicate category name 1, image file under two ids 1\n" in text
    assert run(capsys, out, "--images", path.with_suffix(""))[0] == 1
    assert len(json.loads(out.read_text())["images"]) == 5


def test_a_file_name_that_no_file_can_have_is_told(tmp_path, capsys):
    path = changed_coco(tmp_path, lambda c: c["images"].append({"id": 50, "file_name": "a\0.png"}))
    status, text = run(capsys, path)
    assert status == 1
    assert f"  {path}: image 50: file_name is 'a\\x00.png'; allowed is the path of a file" in text


def test_without_any_image_there_is_nothing_to_check(tmp_path, capsys):
    path = changed_coco(tmp_path, lambda c: c.update(images=[], annotations=[]))
    assert check.main([str(path)]) == 2
    assert capsys.readouterr().err == f"jaxvision: {path} has no image\n"


def test_only_an_orientation_is_called_one(tmp_path, capsys):
    content = coco_content()
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    _, text = run(capsys, write_coco(tmp_path, content), "--all")
    assert "image 10: 000.png is 40x60 here, and 60x40 in its file (width x height)\n" in text


def test_only_the_first_of_each_kind_are_shown(tmp_path, capsys):
    _, text = run(capsys, broken_coco(tmp_path))
    assert "annotation 14: box 50 50 80 58 (x0 y0 x1 y1) of 001.png, which" not in text
    assert "  ... and 2 more (--all)" in text


def test_a_repaired_copy_is_clean_and_keeps_all_that_is_sound(tmp_path, capsys):
    path = broken_coco(tmp_path)
    before, out = path.read_bytes(), tmp_path / "repaired.json"
    status, text = run(capsys, path, f"--repaired={out}")
    assert status == 1
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["repaired.json", "small", "small.json"]
    for line in (
        f"wrote {out}: COCO JSON of images in {path.with_suffix('')}, 5 images, 14 boxes, annotations numbered from 1",
        "left out: missing image  1",
        "left out: unreadable image  1",
        "left out: image of another size  1",
        "left out: duplicate image id  2",
        "left out: image listed twice  1",
        "left out: box of an image left out  5",
        "left out: zero area  1",
        "left out: box wholly outside its image  1",
        "left out: duplicate box  2",
        "cut to the image: box outside  2",
        "left out: unknown category  1",
    ):
        assert f"{line}\n" in text, line
    assert run(capsys, out, "--images", path.with_suffix(""))[0] == 0
    content = json.loads(out.read_text())
    assert [each["id"] for each in content["annotations"]] == list(range(1, 15))
    kept = {tuple(each["bbox"]): each for each in content["annotations"]}
    assert kept[60, 60, 4, 2]["area"] == 4.0
    assert kept[30, 30, 8, 8]["keypoints"] == [1, 2, 3]
    assert kept[50, 50, 14, 8]["image_id"] == 17
    assert next(each for each in content["images"] if each["id"] == 61)["width"] == 64
    original = {tuple(each["bbox"]): each for each in coco_content()["annotations"]}
    for box, annotation in original.items():
        assert {**kept[box], "id": annotation["id"]} == annotation
    assert objects.coco(out, path.with_suffix("")).length == 5


def test_a_copy_of_the_other_forms_is_coco_json_of_the_same_objects(tmp_path, capsys):
    year, root = write_voc(tmp_path / "voc"), write_yolo(tmp_path / "yolo")
    copies = []
    for number, (place, images) in enumerate(((year, year / "JPEGImages"), (root, root / "images"))):
        out = tmp_path / f"{number}.json"
        status, _ = run(capsys, place, f"--classes={NAMES}", "--repaired", out)
        assert status == 0
        assert run(capsys, out, "--images", images)[0] == 0
        copies.append(objects.coco(out, images))
    path = write_coco(tmp_path / "coco")
    for copy in copies:
        for found, expected in zip(copy.objects(), objects.coco(path, path.with_suffix("")).objects(), strict=True):
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
            assert found.labels.tolist() == expected.labels.tolist()
    ignored = [each.ignore.tolist() for each in objects.coco(path, path.with_suffix("")).objects()]
    assert [each.ignore.tolist() for each in copies[0].objects()] == ignored


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["{root}/absent.json"], "there is no file or folder {root}/absent.json"),
        (
            ["{root}/small.json", "--images={root}"],
            "no image is there (4 missing), first {root}/000.png; 003.png is in {root}/small: give --images={root}/small",
        ),
        (["{root}/text.json"], "text.json is no JSON: "),
        (
            ["{root}/text.txt"],
            "text.txt is no dataset known here: a COCO .json, a folder of them, a data.yaml, a folder of VOC (",
        ),
        (["{root}"], "{root} has several COCO files, name one of them, or its split: small, text"),
        (["{root}/small"], "{root}/small is no dataset known here: a COCO .json, a folder of them, a data.yaml, a"),
        (["{root}/yolo"], "name the classes in their order, --classes=A,B,..."),
        (["{root}/yolo", "--images={root}"], "--images names the images of a COCO file, and {root}/yolo is none"),
    ],
)
def test_what_can_not_be_opened_is_told_in_one_line(tmp_path, capsys, arguments, match):
    write_coco(tmp_path)
    write_yolo(tmp_path / "yolo")
    (tmp_path / "text.json").write_text("text")
    (tmp_path / "text.txt").write_text("text")
    assert check.main([each.format(root=tmp_path) for each in arguments]) == 2
    printed = capsys.readouterr()
    assert match.format(root=tmp_path) in printed.err
    assert printed.err.startswith("jaxvision: ")
    assert printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize(("out", "match"), [("small.json", "is there already"), ("no/x.json", "there is no folder")])
def test_a_copy_overwrites_nothing(tmp_path, capsys, out, match):
    path = write_coco(tmp_path)
    before = path.read_bytes()
    with pytest.raises(SystemExit) as ended:
        check.main([str(path), f"--repaired={tmp_path / out}"])
    assert ended.value.code == 2
    assert match in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "fault"), [("cat,cat", "a name twice"), ("cat,,dog", "an empty name"), ("", "an empty name")]
)
def test_classes_are_named_once(tmp_path, capsys, names, fault):
    with pytest.raises(SystemExit) as ended:
        check.main([str(write_voc(tmp_path)), f"--classes={names}"])
    assert ended.value.code == 2
    assert f"{names!r} has {fault}; allowed are names" in capsys.readouterr().err


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, capsys, monkeypatch, links):
    path, out = write_coco(tmp_path), tmp_path / "out.json"
    images = faults.image_sizes

    def no_link(file, to):
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr("os.link", no_link)
    assert run(capsys, path, f"--repaired={tmp_path / 'first.json'}")[0] == 0
    assert json.loads((tmp_path / "first.json").read_text())["images"]
    monkeypatch.setattr(faults, "image_sizes", lambda listing: out.write_text("mine") and images(listing))
    assert check.main([str(path), f"--repaired={out}"]) == 2
    assert f"--repaired: {out} is there by now; nothing was written" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


@pytest.mark.slow
def test_the_command_runs_by_its_name(tmp_path):
    path = broken_coco(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "jaxvision.formats.check", path], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "zero area" in done.stdout


def test_a_dataset_without_any_object_is_a_fault(tmp_path, capsys):
    path = write_coco(tmp_path, {**coco_content(), "annotations": []})
    status, text = run(capsys, path)
    assert status == 1
    assert f"\nno object at all:\n  {path}: none of 4 images has an object" in text


def test_images_in_a_folder_of_another_name_are_found(tmp_path, capsys):
    path, told = write_coco(tmp_path), f"jaxvision: no image is there (4 missing), first {tmp_path}"
    images = path.with_suffix("").rename(tmp_path / "img")
    assert check.main([str(path)]) == 2
    assert capsys.readouterr().err == f"{told}/000.png; 003.png is in {images}: give --images={images}\n"
    assert run(capsys, path, "--images", images)[0] == 0
    deep = images.rename((tmp_path / "deep").mkdir() or tmp_path / "deep/photos")
    content = coco_content()
    for each in content["images"]:
        each["file_name"] = f"train/{each['file_name']}"
    path.write_text(json.dumps(content))
    assert check.main([str(path)]) == 2
    wrong = f"003.png is in {deep}, but its file_name is 'train/003.png': put the file names right, or move the images"
    assert capsys.readouterr().err == f"{told}/train/000.png; {wrong}\n"
    deep.rename(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    assert check.main([str(path)]) == 2
    assert capsys.readouterr().err == f"{told}/train/000.png; is it --images=DIR?\n"

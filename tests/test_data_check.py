import json
import subprocess
import sys

import numpy as np
import pytest
from data_encoding import encoded, smooth
from detection_files import CLASSES, coco_content, name, write_coco, write_voc, write_yolo

from jaxvision.data import check, coco, samples

NAMES = ",".join(CLASSES)


def run(capsys, *arguments):
    """Exit status and what was printed."""
    status = check.main([str(each) for each in arguments])
    printed = capsys.readouterr()
    assert not printed.err
    return status, printed.out


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
    ]
    images += [
        {"id": 40, "file_name": "gone.png", "width": 9, "height": 9},
        {"id": 47, "file_name": "cut.jpg", "width": 64, "height": 64},
        {"id": 54, "file_name": "turned.jpg", "width": 64, "height": 32},
        {"id": 17, "file_name": "again.png"},
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
        f"image 47: {folder / 'cut.jpg'}: can't be decoded",
        "image 54: turned.jpg is 64x32 here, and 32x64 in its file (width x height; turned by its EXIF orientation)",
        "image 17: two images have this id: 001.png, again.png",
    ):
        assert f"  {path}: {line}" in text, line
    counts = dict(line.strip().rsplit("  ", 1) for line in text.split("\n\n")[0].splitlines()[1:])
    found = {kind.strip(): int(count) for kind, count in counts.items()}
    assert found == {
        **{"malformed": 1, "unknown category": 1, "annotation of an unknown image": 1, "duplicate image id": 1},
        **{"box outside the image": 5, "zero area": 1, "duplicate box": 1, "annotation without an id": 1},
        **{"annotation id 0": 1, "duplicate annotation id": 1, "missing image": 1, "unreadable image": 1},
        "image of another size": 1,
    }


def test_only_an_orientation_is_called_one(tmp_path, capsys):
    content = coco_content()
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    _, text = run(capsys, write_coco(tmp_path, content), "--all")
    assert "image 10: 000.png is 40x60 here, and 60x40 in its file (width x height)\n" in text


def test_only_the_first_of_each_kind_are_shown(tmp_path, capsys):
    _, text = run(capsys, broken_coco(tmp_path))
    assert "box 50 50 80 58" not in text
    assert "  ... and 2 more (--all)" in text


def test_a_repaired_copy_is_clean_and_keeps_all_that_is_sound(tmp_path, capsys):
    path = broken_coco(tmp_path)
    before, out = path.read_bytes(), tmp_path / "repaired.json"
    status, text = run(capsys, path, f"--repaired={out}")
    assert status == 1
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["repaired.json", "small", "small.json"]
    for line in (
        f"wrote {out}: COCO JSON of images in {path.with_suffix('')}, 5 images, 13 boxes, annotations numbered from 1",
        "left out: missing image  1",
        "left out: unreadable image  1",
        "left out: image of another size  1",
        "left out: box of an image left out  3",
        "left out: zero area  1",
        "left out: box wholly outside its image  1",
        "left out: duplicate box  2",
        "cut to the image: box outside  2",
        "left out: unknown category  1",
    ):
        assert line in text, line
    assert run(capsys, out, "--images", path.with_suffix(""))[0] == 0
    content = json.loads(out.read_text())
    assert [each["id"] for each in content["annotations"]] == list(range(1, 14))
    kept = {tuple(each["bbox"]): each for each in content["annotations"]}
    assert kept[60, 60, 4, 2]["area"] == 4.0
    assert kept[30, 30, 8, 8]["keypoints"] == [1, 2, 3]
    assert kept[50, 50, 14, 8]["image_id"] == 17
    assert next(each for each in content["images"] if each["id"] == 61)["width"] == 64
    original = {tuple(each["bbox"]): each for each in coco_content()["annotations"]}
    for box, annotation in original.items():
        assert {**kept[box], "id": annotation["id"]} == annotation
    assert coco.source(out, path.with_suffix("")).length == 5


def test_a_copy_of_the_other_forms_is_coco_json_of_the_same_objects(tmp_path, capsys):
    year, root = write_voc(tmp_path / "voc"), write_yolo(tmp_path / "yolo")
    copies = []
    for number, (place, images) in enumerate(((year, year / "JPEGImages"), (root, root / "images"))):
        out = tmp_path / f"{number}.json"
        status, _ = run(capsys, place, f"--classes={NAMES}", "--repaired", out)
        assert status == 0
        assert run(capsys, out, "--images", images)[0] == 0
        copies.append(coco.source(out, images))
    path = write_coco(tmp_path / "coco")
    for copy in copies:
        for found, expected in zip(copy.objects(), coco.source(path, path.with_suffix("")).objects(), strict=True):
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
            assert found.labels.tolist() == expected.labels.tolist()
    ignored = [each.ignore.tolist() for each in coco.source(path, path.with_suffix("")).objects()]
    assert [each.ignore.tolist() for each in copies[0].objects()] == ignored


def test_faults_of_a_voc_folder(tmp_path, capsys):
    year = write_voc(tmp_path)
    path = year / "Annotations" / "001.xml"
    sound = path.read_text()
    thing = (
        "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>5</ymax></bndbox></object>"
    )
    more = "".join(
        thing.format(*each) for each in (("sheep", 1, 2), ("cat", 0, 9), ("cat", 5, 4), ("cat", 5, 3), ("cat", 0, 9))
    )
    path.write_text(sound.replace("</annotation>", f"{more}</annotation>").replace("<width>64", "<width>65"))
    (year / "Annotations" / "000.xml").write_text("<annotation>")
    (year / "Annotations" / "002.xml").unlink()
    (year / "JPEGImages" / name(3)).unlink()
    status, text = run(capsys, year, f"--classes={NAMES}", "--repaired", tmp_path / "out.json")
    assert status == 1
    for line in (
        f"{path}: object 2: name is 'sheep'; allowed are cat, dog, owl",
        f"{path}: object 3: box -1 0 9 5 (x0 y0 x1 y1) of 001.png, which is 65x64 (width x height)",
        f"{path}: object 4: box 4 0 4 5 (x0 y0 x1 y1) of 001.png has no area",
        f"{path}: object 5: bndbox is xmin 5, ymin 1, xmax 3, ymax 5; allowed are four finite numbers",
        f"{path}: object 6: box -1 0 9 5 (x0 y0 x1 y1) of 001.png is that of object 3, of the same category",
        f"{path}: image 2: 001.png is 65x64 here, and 64x64 in its file (width x height)",
        f"{year / 'Annotations' / '000.xml'}: is no XML",
        f"{year / 'ImageSets' / 'Main' / 'train.txt'}: 002: there is no file {year / 'Annotations' / '002.xml'}",
        f"{year / 'Annotations' / '003.xml'}: image 3: there is no file {year / 'JPEGImages' / '003.jpg'}",
    ):
        assert f"  {line}" in text, line


def test_faults_of_a_yolo_folder(tmp_path, capsys):
    root = write_yolo(tmp_path)
    path = root / "labels" / "deep" / "001.txt"
    path.write_text("0 .5 .5 .25 .25\n7 .5 .5 .1 .1\n0 1 .5 .25 .25\n0 .5 .5 .25 0\n0 .5 .5 .25 .25\n0 3 3 3 3\n")
    (root / "labels" / "deep" / "orphan.txt").write_text("")
    (root / "images" / "deep" / name(0)).write_bytes(b"")
    status, text = run(capsys, root, f"--classes={NAMES}")
    assert status == 1
    for line in (
        f"{path}: line 2: class is 7; allowed are 0 to 2 (cat, dog, owl)",
        f"{path}: line 3: box 56 24 72 40 (x0 y0 x1 y1) of deep/001.png, which is 64x64 (width x height)",
        f"{path}: line 4: box 24 32 40 32 (x0 y0 x1 y1) of deep/001.png has no area",
        f"{path}: line 5: box 24 24 40 40 (x0 y0 x1 y1) of deep/001.png is that of line 1, of the same category",
        f"{path}: line 6: is '0 3 3 3 3'; allowed are cx cy width height",
        f"{root / 'labels' / 'deep' / 'orphan.txt'}: there is no image of its name below {root / 'images'}",
        f"{root / 'labels' / 'deep' / '000.txt'}: image 1: {root / 'images' / 'deep' / name(0)}: the file is empty",
    ):
        assert f"  {line}" in text, line


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["{root}/absent.json"], "there is no file or folder {root}/absent.json"),
        (
            ["{root}/small.json", "--images={root}"],
            "none of 4 images is there, first {root}/000.png; is it --images=DIR?",
        ),
        (["{root}/text.json"], "text.json is no JSON: "),
        (["{root}/text.txt"], "is no dataset known here: a COCO .json, a data.yaml, a folder of VOC or of YOLO"),
        (["{root}"], "{root} is no VOC folder: it holds no Annotations and JPEGImages"),
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


def test_images_are_looked_for_where_coco_has_them(tmp_path):
    json = tmp_path / "annotations" / "instances_val2017.json"
    for folder, expected in (
        (tmp_path / "annotations", tmp_path / "annotations"),
        (tmp_path / "val2017", tmp_path / "val2017"),
    ):
        folder.mkdir()
        assert check.images_of(json) == expected


@pytest.mark.slow
def test_the_command_runs_by_its_name(tmp_path):
    path = broken_coco(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "jaxvision.data.check", path], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "zero area" in done.stdout

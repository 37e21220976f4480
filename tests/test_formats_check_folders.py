from check_command import run
from detection_files import CLASSES, name, write_voc, write_yolo

from jaxvision.formats import check

NAMES = ",".join(CLASSES)


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
        f"{path}: object 2: name is 'sheep'; there are: cat, dog, owl",
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


def test_what_a_voc_folder_can_hold_twice_or_not_at_all(tmp_path, capsys):
    year = write_voc(tmp_path)
    images = year / "JPEGImages"
    (images / "001.jpg").write_bytes((images / name(1)).read_bytes())
    (images / "bare.png").write_bytes((images / name(1)).read_bytes())
    (year / "Annotations" / "._000.xml").write_bytes(b"\x00\x05")
    status, text = run(capsys, year, f"--classes={NAMES}", "--repaired", tmp_path / "out.json")
    assert status == 1
    assert "\n  1 image without an annotation file, first bare.png\n  two image files of one name  1\n\n" in text
    assert f"  {year / 'Annotations' / '001.xml'}: 2 images have its name: 001.jpg, 001.png; allowed is one" in text
    crowd = "a crowd (iscrowd 1), which pycocotools matches by intersection over the detection's area"
    assert f"  written as {crowd}: difficult object  1\n" in text


def test_annotations_that_are_all_absent_are_a_fault(tmp_path, capsys):
    year, root = write_voc(tmp_path / "voc"), write_yolo(tmp_path / "yolo")
    status, text = run(capsys, root, f"--classes={NAMES}")
    assert status == 0
    assert f"\n  1 image without an annotation file, first deep/{name(2)}\n  no faults" in text
    (root / "data.yaml").write_text(f"train: images\nnames: [{NAMES}]")
    for file in [*(year / "Annotations").iterdir(), *(root / "labels" / "deep").iterdir()]:
        file.unlink()
    for place, value in (
        (year, f"{year}: none of 4 images in JPEGImages has an XML file in Annotations"),
        (
            root,
            f"{root}: none of 4 images has a text, that of {root / 'images' / 'deep' / name(0)} would be"
            f" {root / 'labels' / 'deep' / '000.txt'}",
        ),
    ):
        (year / "ImageSets" / "Main" / "train.txt").unlink(missing_ok=True)
        (year / "ImageSets" / "Main" / "val.txt").unlink(missing_ok=True)
        status, text = run(capsys, place)
        assert status == 1
        assert "\n  4 images without an annotation file, first " in text
        assert f"most images without annotations:\n  {value}" in text


def test_faults_of_a_yolo_description(tmp_path, capsys):
    root = write_yolo(tmp_path)
    path, orphan = root / "data.yaml", root / "labels" / "deep" / "orphan.txt"
    orphan.write_text("")
    (root / "labels" / "elsewhere.txt").write_text("")
    path.write_text(f"train: images/deep\nval: [absent, images/deep]\ntest: no.txt\nnames: [{NAMES}]")
    status, text = run(capsys, path)
    assert status == 1
    for line in (
        "4 images in",
        f"missing image:\n  {orphan}: there is no image of its name below {root / 'images' / 'deep'}",
        f"  {path}: there is no file or folder {root / 'absent'}\n",
        f"  {path}: there is no file or folder {root / 'no.txt'}\n",
    ):
        assert line in text, line
    assert "elsewhere" not in text
    path.write_text(f"train: absent\nval: no.txt\nnames: [{NAMES}]")
    assert check.main([str(path)]) == 2
    assert capsys.readouterr().err == f"jaxvision: there is no file or folder {root / 'absent'}\n"
    path.write_text(f"names: [{NAMES}]")
    assert check.main([str(path)]) == 2
    assert "names no images: it has no train, val and test" in capsys.readouterr().err


def test_only_a_coco_file_is_asked_for_the_folder_of_its_images(tmp_path, capsys):
    root = write_yolo(tmp_path)
    (root / "data.yaml").write_text(f"train: list.txt\nnames: [{NAMES}]")
    (root / "list.txt").write_text("images/deep/no.png\n")
    assert check.main([str(root)]) == 2
    assert capsys.readouterr().err == f"jaxvision: no image is there (1 missing), first {root / 'images/deep/no.png'}\n"


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
        f"{root / 'images' / 'deep' / name(0)}: the file is empty",
    ):
        assert f"  {line}" in text, line


def test_an_empty_line_among_the_classes_is_refused(tmp_path, capsys):
    root = write_yolo(tmp_path)
    (root / "classes.txt").write_text("cat\n\ndog\nowl\n")
    assert check.main([str(root)]) == 2
    assert f"{root / 'classes.txt'}: line 2 is empty; allowed is a name" in capsys.readouterr().err

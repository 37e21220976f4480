import json

import numpy as np
import pytest
from check_command import run
from data_encoding import encoded
from detection_files import masked_content, write_coco
from map_files import (
    image_bytes,
    palette_png,
    panoptic_content,
    put,
    regions,
    segment_id,
    write_cityscapes,
    write_map_folder,
    write_panoptic,
    write_voc_maps,
)

from jaxvision import formats
from jaxvision.data import maps
from jaxvision.errors import DataError
from jaxvision.formats import check, opening
from jaxvision.formats.opening import Layout


def found(capsys, *arguments):
    """The lines of the faults, once the status is that of some."""
    status, text = run(capsys, *arguments, "--all")
    assert status == 1, text
    return [line.strip() for line in text.split("\n\n", 1)[1].splitlines() if line.startswith("  ")]


@pytest.mark.parametrize(
    ("write", "form", "layout"),
    [
        (write_map_folder, "folder of maps, 3 images in {root}/images, 3 maps, 3 classes", Layout.MAP_FOLDER),
        (write_voc_maps, "Pascal VOC, 3 images in {root}/VOC2012/JPEGImages, 3 maps, 21 classes", Layout.VOC),
        (write_cityscapes, "Cityscapes, 3 images in {root}/leftImg8bit, 3 maps, 19 classes", Layout.CITYSCAPES),
        (write_panoptic, "COCO panoptic JSON, 3 images in {root}/annotations/../val2017", Layout.PANOPTIC),
    ],
)
def test_every_form_of_maps_is_found_and_can_be_clean(tmp_path, capsys, write, form, layout):
    path = write(tmp_path)
    assert opening.recognise(path).layout is layout
    status, text = run(capsys, path)
    assert status == 0, text
    assert text.endswith("no faults\n")
    assert form.format(root=tmp_path).replace("annotations/../", "") in text.replace("annotations/../", "")
    if layout in opening.OF_MAPS:
        with pytest.raises(DataError, match=r"a class for every pixel: a function of jaxvision\.data\.maps reads it"):
            formats.open(path)


COLOURS = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "kind", "value"),
    [
        (
            encoded(np.zeros((60, 40), np.uint8)),
            "map of another size",
            "is 40x60, and its image 60x40 (width x height): it is transposed",
        ),
        (
            encoded(np.zeros((40, 59), np.uint8)),
            "map of another size",
            "is 59x40, and its image 60x40 (width x height)",
        ),
        (
            encoded(np.full((40, 60), 3, np.uint8)),
            "label outside the classes",
            "has 2,400 pixels of value 3, first at x 0, y 0; allowed are 0 to 2, 255",
        ),
        (
            encoded(np.zeros((40, 60), np.uint8), "JPEG"),
            "map that is no image of numbers",
            "is stored as JPEG, which changes",
        ),
        (
            encoded(COLOURS),
            "map that is no image of numbers",
            "has colours (RGB) where numbers are meant; allowed are a",
        ),
        (encoded(np.dstack([COLOURS, COLOURS[..., :1]])), "map that is no image of numbers", "has colours (RGBA)"),
        (b"", "map that is no image of numbers", "the file is empty (0 bytes)"),
        (palette_png(regions(0)[0])[:200], "map that is no image of numbers", "can't be decoded"),
    ],
    ids=["transposed", "narrower", "label", "JPEG", "RGB", "RGBA", "empty", "cut off"],
)
def test_each_fault_of_a_map_is_told_with_its_file(tmp_path, capsys, data, kind, value):
    for write, file in (
        (write_map_folder, "masks/deep/000.png"),
        (write_voc_maps, "VOC2012/SegmentationClass/000.png"),
        (write_voc_maps, "VOC2012/SegmentationObject/000.png"),
    ):
        if kind.startswith("label") and "masks" not in file:
            continue
        root = tmp_path / file.split("/")[-2]
        write(root)
        put(root / file, data)
        (line,) = found(capsys, root)
        assert line.startswith(f"{root / file}: {value}"), line


def test_labels_of_voc_and_cityscapes_are_those_of_their_tables(tmp_path, capsys):
    write_voc_maps(tmp_path / "voc")
    map = tmp_path / "voc/VOC2012/SegmentationClass/001.png"
    put(map, palette_png(np.full((48, 32), 21, np.uint8)))
    assert found(capsys, tmp_path / "voc") == [
        f"{map}: has 1,536 pixels of value 21, first at x 0, y 0; allowed are 0 to 20, 255"
    ]
    root = write_cityscapes(tmp_path / "city")
    put(root / "gtFine/train/aachen/aachen_0_gtFine_labelIds.png", encoded(np.full((40, 60), 34, np.uint8)))
    put(root / "gtFine/train/bonn/bonn_1_gtFine_instanceIds.png", encoded(np.full((48, 32), 35_002, np.uint16)))
    first, second = found(capsys, root)
    assert first.endswith("labelIds.png: has 2,400 pixels of value 34, first at x 0, y 0; allowed are 0 to 33, 255")
    assert second.endswith(
        "instanceIds.png: has pixels of value 35002; allowed are 0 to 33, and these times 1000 plus a number below that"
    )


def test_maps_and_images_that_are_missing_are_told(tmp_path, capsys):
    root = write_map_folder(tmp_path / "folder")
    (root / "masks/deep/001.png").unlink()
    put(root / "masks/deep/other.png", palette_png(regions(0)[0]))
    put(root / "masks/deep/002.tif", encoded(regions(2)[0], "TIFF"))
    lines = found(capsys, root)
    assert f"{root}/masks/deep/other.png: there is no image of its name below {root}/images" in lines
    assert f"{root}/masks/deep/001.png: there is no such file, the map of {root}/images/deep/001.png" in lines
    assert any("has the same name but for its ending; allowed is one of them" in line for line in lines)
    assert len(lines) == 3
    year = write_voc_maps(tmp_path / "voc")
    (year / "SegmentationClass/002.png").unlink()
    (year / "JPEGImages/000.png").unlink()
    lines = found(capsys, year)
    assert f"{year}/ImageSets/Segmentation/train.txt: 002: there is no file {year}/SegmentationClass/002.png" in lines
    assert any(f"there is no file {year}/JPEGImages/000.jpg" in line for line in lines)
    assert len(lines) == 2


def test_panoptic_ids_that_one_side_lacks_are_told(tmp_path, capsys):
    content = panoptic_content()
    first = next(each for each in content["annotations"] if each["image_id"] == 10)
    gone = first["segments_info"].pop(1)
    second = next(each for each in content["annotations"] if each["image_id"] == 17)
    second["segments_info"] += [
        {**gone, "id": 5},
        {**gone, "id": 5},
        {**gone, "id": 0},
        {**gone, "id": 6, "category_id": 4},
        {**gone, "id": 8, "bbox": [1, 2, float("nan"), 4]},
        {**gone, "id": 9, "iscrowd": 2},
        {**gone, "id": 10, "area": -1},
    ]
    second["segments_info"][1]["bbox"][0] += 9
    content["annotations"] += [
        {"image_id": 3, "file_name": "a.png", "segments_info": []},
        {"image_id": 10},
        dict(second),
    ]
    path = write_panoptic(tmp_path, content)
    lines = found(capsys, path)
    folder = path.with_suffix("")
    for line in (
        f"{path}: image 10: {folder}/000.png has 320 pixels of id {segment_id(0, 1)}, which segments_info does not speak of",
        f"{path}: image 17: segment 5: {folder}/001.png has no pixel of this id",
        f"{path}: image 17: segment 5: two segments of the image have this id",
        f"{path}: image 17: segment 6: category_id is 4, and no category has this id",
        f"{path}: image 17: segment 8: bbox is [1, 2, nan, 4]; allowed are four finite numbers, x y width height, no side"
        " below 0",
        f"{path}: image 17: segment 9: iscrowd is 2; allowed are 0 and 1",
        f"{path}: image 17: segment 10: area is -1; allowed is a finite number, not below 0",
        f"{path}: annotation number 3: image_id is 3, and no image has this id",
        f"{path}: annotation number 5: image 17 has an annotation before this one",
    ):
        assert line in lines, (line, lines)
    for part in (
        "segment 0: is {",
        f"segment {segment_id(1, 1)}: its pixels lie in 3 3 30 40 (x0 y0 x1 y1), its box is 12 3 39 40",
        "annotation number 4: is {'image_id': 10}; it needs a list `segments_info`",
    ):
        assert any(part in line for line in lines), (part, lines)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (encoded(np.zeros((60, 40, 3), np.uint8)), "is 40x60, and its image 60x40 (width x height): it is transposed"),
        (encoded(np.zeros((40, 60), np.uint8)), "has no colours (L) to make ids of; allowed is RGB"),
        (encoded(COLOURS, "JPEG"), "is stored as JPEG"),
        (None, "there is no file"),
    ],
    ids=["transposed", "grey", "JPEG", "missing"],
)
def test_each_fault_of_a_panoptic_map_is_told_with_file_and_id(tmp_path, capsys, data, value):
    path = write_panoptic(tmp_path)
    map = path.with_suffix("") / "000.png"
    put(map, data) if data is not None else map.unlink()
    (line,) = found(capsys, path)
    assert line.startswith(f"{path}: image 10: ")
    assert str(map) in line
    assert value in line


def test_an_image_without_a_panoptic_annotation_and_of_another_size_is_told(tmp_path, capsys):
    content = panoptic_content()
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 24]
    content["images"][1]["height"] = 47
    path = write_panoptic(tmp_path, content)
    lines = found(capsys, path)
    assert f"{path}: image 24: 002.png has no annotation" in lines
    assert f"{path}: image 17: 001.png is 32x47 here, and 32x48 in its file (width x height)" in lines


SOUND = [[30, 30, 38, 30, 38, 38, 30, 38]]


def runs_of(rows, columns, size=(64, 64)):
    mask = np.zeros(size, np.uint8)
    mask[rows, columns] = 1
    from pycocotools import mask as pycoco

    counts = pycoco.encode(np.asfortranarray(mask))["counts"].decode()
    return {"size": list(size), "counts": counts}


IN_BOX = runs_of(slice(30, 38), slice(30, 38))


@pytest.mark.parametrize(
    ("segmentation", "value"),
    [
        ({**IN_BOX, "size": [64, 63]}, "segmentation is of [64, 63] pixels, the image of [64, 64]"),
        (
            {**runs_of(0, 0, (64, 63)), "size": [64, 64]},
            "which stand for 4,032 pixels; allowed are lengths from 0, 4,096",
        ),
        ({**IN_BOX, "counts": IN_BOX["counts"] + "1"}, "which stand for"),
        ({**IN_BOX, "counts": "P"}, "allowed are a list, or COCO's text of run lengths"),
        ({"size": [64, 64], "counts": [4000, 90]}, "allowed are whole numbers from 0, 4,096 together"),
        ({"size": [64, 64], "counts": [5000, -904]}, "allowed are whole numbers from 0, 4,096 together"),
        ([[1, 2, 3, 4]], "allowed are polygons [[x, y, ...], ...] of three points or more"),
        ([[30, 30, 38, float("nan"), 38, 38]], "allowed are polygons"),
        (
            runs_of(slice(20, 25), slice(30, 38)),
            "the mask lies in 30 20 38 25 (x0 y0 x1 y1), the box is 30 30 38 38; allowed",
        ),
        (
            [[30, 30, 41, 30, 38, 38]],
            "the mask lies in 30 30 41 38 (x0 y0 x1 y1), the box is 30 30 38 38; allowed are 2",
        ),
        (IN_BOX, None),
        (SOUND, None),
        ([[28, 30, 38, 30, 38, 40]], None),
    ],
)
def test_faults_of_coco_masks_are_told_with_file_and_id(tmp_path, capsys, segmentation, value):
    content = masked_content()
    entry = {"id": 7, "image_id": 17, "category_id": 3, "bbox": [30, 30, 8, 8], "iscrowd": 0, "area": 64.0}
    content["annotations"].append({**entry, "segmentation": segmentation})
    path = write_coco(tmp_path, content)
    if value is None:
        assert run(capsys, path)[0] == 0
        return
    (line,) = found(capsys, path)
    assert line.startswith(f"{path}: annotation 7: of 001.png: "), line
    assert value in line


def test_a_transposed_mask_is_called_so(tmp_path, capsys):
    content = masked_content()
    entry = {"id": 7, "image_id": 10, "category_id": 3, "bbox": [3, 3, 8, 8], "iscrowd": 0, "area": 64.0}
    turned = runs_of(slice(3, 11), slice(3, 11), (60, 40))
    content["annotations"].append({**entry, "segmentation": turned})
    (line,) = found(capsys, write_coco(tmp_path, content))
    assert line.endswith(
        "annotation 7: of 000.png: segmentation is of [60, 40] pixels, the image of [40, 60]: it is transposed"
    )


def test_a_mask_outside_its_box_stays_in_a_copy_and_is_told(tmp_path, capsys):
    content = masked_content()
    entry = {"id": 7, "image_id": 17, "category_id": 3, "bbox": [3, 3, 8, 8], "iscrowd": 0, "area": 64.0}
    content["annotations"].append({**entry, "segmentation": SOUND})
    path, out = write_coco(tmp_path, content), tmp_path / "out.json"
    status, text = run(capsys, path, f"--repaired={out}")
    assert status == 1
    assert text.endswith("  nothing else was changed\n  1 fault remains: mask outside its box 1\n")
    assert SOUND in [each["segmentation"] for each in json.loads(out.read_text())["annotations"]]


def test_maps_have_no_repaired_copy_and_need_names(tmp_path, capsys):
    root = write_map_folder(tmp_path / "a")
    assert check.main([str(root), f"--repaired={tmp_path / 'out.json'}"]) == 2
    told = capsys.readouterr().err
    assert (
        f"--repaired writes boxes (COCO, VOC and YOLO only), and {root} has maps: check it without --repaired" in told
    )
    assert "mend or remove the files that are named" in told
    (root / "classes.txt").unlink()
    assert check.main([str(root)]) == 2
    assert "has no classes.txt: name the classes in the order of their values" in capsys.readouterr().err
    assert run(capsys, root, "--classes=a,b,c")[0] == 0


def test_voc_boxes_and_maps_are_checked_together(tmp_path, capsys):
    year = write_voc_maps(tmp_path)
    size = "<size><width>60</width><height>40</height></size>"
    box = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>70</xmax><ymax>9</ymax></bndbox></object>"
    put(year / "Annotations" / "000.xml", f"<annotation>{size}{box}</annotation>".encode())
    put(year / "SegmentationClass" / "000.png", encoded(np.zeros((40, 61), np.uint8)))
    lines = found(capsys, tmp_path)
    assert any("000.xml: object 1: box 0 0 70 9" in line for line in lines)
    assert any("SegmentationClass/000.png: is 61x40, and its image 60x40" in line for line in lines)
    assert len(lines) == 2


def test_an_image_at_fault_is_named_and_not_its_map(tmp_path, capsys):
    root = write_map_folder(tmp_path)
    put(root / "images/deep/001.png", image_bytes(1)[:200])
    (line,) = found(capsys, root)
    assert line.startswith(f"{root}/images/deep/001.png: can't be decoded: "), line


def in_black_and_white(number):
    return encoded(np.where(regions(number)[0] > 0, 255, 0).astype(np.uint8))


def test_a_mask_in_black_and_white_among_others_is_told(tmp_path, capsys):
    root = write_map_folder(tmp_path)
    put(root / "masks/deep/001.png", in_black_and_white(1))
    (line,) = found(capsys, root)
    white = np.count_nonzero(regions(1)[0] > 0)
    assert line == (
        f"{root}/masks/deep/001.png: has {white:,} pixels of 255, which is void, and no class but the first (ground);"
        " is 255 a class?"
    )
    assert "\nmap in black and white:\n" in run(capsys, root)[1]


def test_a_map_that_is_void_as_a_whole_is_told(tmp_path, capsys):
    for root in (write_map_folder(tmp_path / "folder"), write_voc_maps(tmp_path / "voc")):
        (map,) = root.rglob("*asks/deep/001.png") if root.name == "folder" else [root / "SegmentationClass/001.png"]
        put(map, encoded(np.full((48, 32), 255, np.uint8)))
        (line,) = found(capsys, root)
        assert line == f"{map}: none of its pixels has a class; they are 255, which is void"
    content = panoptic_content()
    next(each for each in content["annotations"] if each["image_id"] == 17)["segments_info"] = []
    path = write_panoptic(tmp_path / "panoptic", content)
    map = path.with_suffix("") / "001.png"
    put(map, encoded(np.zeros((48, 32, 3), np.uint8)))
    assert found(capsys, path) == [f"{path}: image 17: {map} has no segment, nor segments_info"]


def test_of_masks_in_black_and_white_the_flag_is_named_and_their_folder(tmp_path, capsys):
    root = write_map_folder(tmp_path)
    for number in range(3):
        put(root / f"masks/deep/{number:03d}.png", in_black_and_white(number))
    (line,) = found(capsys, root)
    assert line.startswith(f"{root}/masks/deep: none of the maps has a class but the first, and ")
    assert (
        "--values 0:0,255:1 of formats.check, in Python values={0: 0, 255: 1} says that 255 is the second class" in line
    )
    assert run(capsys, root, "--values", "0:0,255:1")[0] == 0


def test_the_help_says_of_what_there_is_a_copy(capsys):
    with pytest.raises(SystemExit):
        check.main(["--help"])
    assert "(COCO, VOC and YOLO only; maps are mended by hand)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("{}_mask", "end in '_mask': rename 000_mask.png to 000.png"),
        ("{}.jpg", "end in '.jpg': rename 000.jpg.png to 000.png"),
        ("gt-{}", "begin with 'gt-': rename gt-000.png to 000.png"),
        ("m_{}_L", "begin with 'm_' and end in '_L': rename m_000_L.png to 000.png"),
    ],
)
def test_masks_with_more_in_their_names_than_their_images_are_told_at_once_and_checked(tmp_path, capsys, new, said):
    root = write_map_folder(tmp_path)
    for mask in sorted((root / "masks/deep").iterdir()):
        mask.rename(mask.with_name(new.format(mask.stem) + ".png"))
    strange = root / "masks/deep" / (new.format("001") + ".png")
    put(strange, palette_png(np.full((48, 32), 3, np.uint8)))
    assert found(capsys, root) == [
        f"{root}/masks: all 3 masks without an image {said}, and the others so",
        f"{strange}: has 1,536 pixels of value 3, first at x 0, y 0; allowed are 0 to 2, 255",
    ]
    with pytest.raises(ValueError, match="all 3 masks without an image"):
        maps.folder(root)


def test_one_mask_of_another_name_is_not_guessed_to_be_of_an_image(tmp_path, capsys):
    root = write_map_folder(tmp_path)
    (root / "masks/deep/000.png").rename(root / "masks/deep/0001.png")
    lines = found(capsys, root)
    assert lines == [
        f"{root}/masks/deep/000.png: there is no such file, the map of {root}/images/deep/000.png",
        f"{root}/masks/deep/0001.png: there is no image of its name below {root}/images",
    ]

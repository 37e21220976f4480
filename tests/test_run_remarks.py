import pytest
from detection_files import CLASSES, coco_content, corners, fractions, with_boxes, write_coco, write_yolo, yolo_corners

from jaxvision.data import objects, order, placement, streams, target
from jaxvision.run.preflight.data import check_data
from jaxvision.run.preflight.findings import Finder
from jaxvision.run.remarks import remarks
from jaxvision.types import About


def about(classes, **more):
    return About(3, classes, str, "", **more)


def test_what_two_streams_say_is_there_once():
    same = {"notes": ("x: left out 1 of 4 files: 1 .heic",), "doubts": ("boxes look like corners",)}
    assert remarks({"train": about(("a",), **same), "evaluation test": about(("a",), **same)}) == [
        "train: x: left out 1 of 4 files: 1 .heic",
        "train: boxes look like corners",
    ]


@pytest.mark.parametrize(
    ("classes", "how"),
    [(("a", "b", "c"), "only here: c"), (("a",), "only in train: b"), (("b", "a"), "they are in another order")],
)
def test_classes_of_an_evaluation_that_are_not_those_of_training_are_named(classes, how):
    found = remarks({"train": about(("a", "b")), "evaluation test": about(classes)})
    assert found == [f"evaluation test: its classes are not those of train: {how}"]


def without_texts(root):
    for path in (write_yolo(root) / "labels/deep").iterdir():
        path.rename(path.with_suffix(".text"))
    return root


WRONG = {
    "look like corners, x0 y0 x1 y1; read as x y": lambda root: objects.coco(with_boxes(root, corners)),
    "look like corners, x0 y0 x1 y1; read as cx cy": lambda root: yolo(yolo_corners(root)),
    "look like fractions of the image's sides": lambda root: objects.coco(with_boxes(root, fractions)),
    "none of 4 images has an object": lambda root: objects.coco(
        write_coco(root, {**coco_content(), "annotations": []})
    ),
    "none of 4 images has a text, that of ": lambda root: yolo(without_texts(root)),
}


def yolo(root):
    return objects.yolo_folder(root / "images", root / "labels", CLASSES)


def train_on(source):
    options = {"placer": placement.stretch(32), "batch_size": 2, "target": target.objects(8)}
    return streams.training(lambda: source, order=order.shuffled(0), **options)


@pytest.mark.parametrize("doubt", WRONG)
def test_what_looks_wrong_with_boxes_is_a_problem_of_preflight_and_a_remark_of_a_run(doubt, tmp_path):
    stream, found = train_on(WRONG[doubt](tmp_path)), Finder()
    check_data(found, {"train": stream}, tmp_path)
    [problem] = found.problems
    assert doubt in problem
    assert problem in remarks({"train": stream.about()})


def test_what_is_left_out_and_has_no_text_is_told_by_preflight_and_a_run(tmp_path):
    root = write_yolo(tmp_path)
    for name in ("a.heic", "b.heic"):
        (root / "images" / name).write_bytes(b"")
    stream, found = train_on(yolo(root)), Finder()
    check_data(found, {"train": stream}, tmp_path)
    notes = [
        f"{root / 'images'}: left out 2 of 6 files: 2 .heic",
        f"{root / 'images'}: 1 of 4 images without annotations, first deep/002.png",
    ]
    assert not found.problems
    assert [line.strip() for line in found.lines if line.strip() in notes] == notes
    assert remarks({"train": stream.about()}) == [f"train: {note}" for note in notes]

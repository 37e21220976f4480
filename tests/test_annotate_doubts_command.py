"""The doubts command: predictions from files and from runs, its tables and pictures, and what can't be used."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from boxes_experiment import CLASSES, COUNT, SCORES, scene
from detection_files import write_coco, write_voc, write_yolo
from finished_run import one_line, save
from PIL import Image

from jaxvision import main as training
from jaxvision import predict
from jaxvision.annotate import __main__ as annotate
from jaxvision.annotate import folds, listed
from jaxvision.data import objects
from jaxvision.errors import DataError
from jaxvision.formats import opening

HERE = Path(__file__).parent
SPOILT = {1: "removed", 2: "renamed", 3: "moved"}


def annotations(number):
    """What is annotated in a scene: the truth, or the first object spoilt."""
    boxes = [list(map(float, box)) for box in scene(number)[1]]
    said = [[label, *box] for label, box in enumerate(boxes)]
    way, (x0, y0, x1, y1) = SPOILT.get(number), boxes[0]
    if way == "removed":
        return said[1:]
    if way == "renamed":
        said[0][0] = 2
    if way == "moved":
        said[0][1:] = [x0 + 0.4 * (x1 - x0), y0, x1 + 0.4 * (x1 - x0), y1]
    return said


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The scenes, annotations of them with three mistakes, and predictions that are the truth."""
    place = tmp_path_factory.mktemp("doubts")
    images, told, lines = [], [], []
    for number in range(COUNT):
        pixels, boxes = scene(number)
        save(place / "scenes" / f"{number}.png", pixels)
        size = {"height": pixels.shape[0], "width": pixels.shape[1]}
        images.append({"id": number, "file_name": f"{number}.png", **size})
        for label, x0, y0, x1, y1 in annotations(number):
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            told.append({"id": len(told) + 1, "image_id": number, "category_id": label + 1, **box})
        found = zip(CLASSES, SCORES, boxes.tolist(), strict=False)
        objects = [{"label": label, "score": score, "box": box} for label, score, box in found]
        lines.append(json.dumps({"file": f"elsewhere/scenes/{number}.png", **size, "objects": objects}))
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": told, "categories": categories}
    (place / "scenes.json").write_text(json.dumps(content))
    (place / "found.jsonl").write_text("\n".join(lines))
    return place


@pytest.fixture(scope="module")
def finished(place):
    """A run that finds the objects of the scenes."""
    assert training.main([f"--config={HERE / 'boxes_experiment.py'}", f"--workdir={place / 'run'}", "--no-report"]) == 0
    return place / "run"


@pytest.fixture
def command(place, tmp_path, capfd):
    def run(*flags, name="doubts.jsonl"):
        capfd.readouterr()
        status = annotate.main(["doubts", str(place / "scenes.json"), f"--output={tmp_path / name}", *map(str, flags)])
        printed = capfd.readouterr()
        return status, printed.out + printed.err, tmp_path / name

    return run


def check(lines):
    """The three mistakes come first, by the score of what contradicts them."""
    assert [line["rank"] for line in lines] == list(range(1, len(lines) + 1))
    first = {line["image"]: line for line in lines[:3]}
    assert {name: line["doubt"] for name, line in first.items()} == {
        "1.png": "missing",
        "2.png": "misnamed",
        "3.png": "misplaced",
    }
    assert all(float(line["score"]) > 0.6 for line in first.values())
    assert (first["1.png"]["predicted"], first["2.png"]["label"]) == (CLASSES[0], CLASSES[2])
    x0, x1 = (float(first["3.png"][name]) for name in ("x0", "x1"))
    assert (x0, x1) == pytest.approx((annotations(3)[0][1], annotations(3)[0][3]), abs=0.01)
    found = [float(first["3.png"][f"predicted_{name}"]) for name in ("x0", "y0", "x1", "y1")]
    np.testing.assert_allclose(found, scene(3)[1][0], atol=5)


def test_predictions_find_the_mistakes_and_draw_them(place, command, tmp_path):
    status, said, path = command(
        f"--predictions={place / 'found.jsonl'}", f"--draw={tmp_path / 'pictures'}", "--first=4"
    )
    assert status == 0
    assert "1 missing, 1 misplaced, 1 misnamed, 0 spurious" in said
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    check(lines)
    assert "object" not in next(line for line in lines if line["doubt"] == "missing")
    names = sorted(each.name for each in (tmp_path / "pictures").iterdir())
    assert [int(name.split("_")[0]) for name in names] == [1, 2, 3, 4]
    for name, line in zip(names, lines, strict=False):
        before = scene(int(line["image"][0]))[0]
        times = 480 // max(before.shape)  # small images are enlarged
        before = before.repeat(times, 0).repeat(times, 1)
        after = np.asarray(Image.open(tmp_path / "pictures" / name))
        assert after.shape == before.shape
        assert (np.abs(after.astype(int) - before).max(2) > 100).sum() > 20


@pytest.mark.slow
def test_a_run_and_files_of_its_predictions_give_the_same_table(place, finished, command, tmp_path):
    _, _, by_run = command(f"--workdir={finished}", name="a.csv")
    rows = list(csv.DictReader(by_run.read_text().splitlines()))
    check([{**row, "rank": int(row["rank"])} for row in rows])
    halves = []
    for half, suffix in enumerate((".jsonl", ".json")):
        files = [str(place / "scenes" / f"{number}.png") for number in range(half, COUNT, 2)]
        halves.append(tmp_path / f"half{half}{suffix}")
        flags = [f"--workdir={finished}", f"--output={halves[-1]}", "--score=0.05"]
        assert predict.main([*flags, *files]) == 0
    status, _, by_files = command(*(f"--predictions={half}" for half in halves), name="b.csv")
    assert status == 0
    assert by_files.read_text() == by_run.read_text()
    status, said, _ = command(*(f"--predictions={halves[0]}" for _ in range(2)))
    assert status == 2
    assert "0.png, of which another file has some, too" in one_line(said)
    status, said, few = command(f"--predictions={halves[0]}", name="few.csv")
    assert status == 1
    assert "3 images of 6 without predictions" in said
    names = {row["image"] for row in csv.DictReader(few.read_text().splitlines())}
    assert names <= {"0.png", "2.png", "4.png"}


@pytest.mark.slow
def test_several_runs_predict_their_folds(finished, command):
    one = command(f"--workdir={finished}", name="one.csv")[2].read_text()
    both = command(f"--workdir={finished}", f"--workdir={finished}", name="two.csv")
    assert (both[0], both[2].read_text()) == (0, one)
    assert {folds.fold_of(f"{number}.png", 2) for number in range(COUNT)} == {0, 1}


def test_what_can_not_be_used_is_told_in_a_line(place, command, tmp_path):
    told = {
        "other.jsonl": (
            {"file": "else.png", "objects": []},
            "the predictions are of none of 6 images, the first 0.png",
        ),
        "names.jsonl": (
            {"file": "0.png", "objects": [{"label": "rad", "score": 0.5, "box": [0, 0, 9, 9]}]},
            "the predictions are of class 'rad'; did you mean 'red'?",
        ),
        "box.jsonl": (
            {"file": "0.png", "objects": [{"label": "red", "score": 0.5, "box": [0, 0, 9]}]},
            "box is [0, 0, 9]; allowed are four finite numbers",
        ),
        "classes.jsonl": ({"file": "0.png", "classes": []}, "classes.jsonl: damaged or cut off ('objects')"),
        "twice.jsonl": ([{"file": "0.png", "objects": []}] * 2, "has two predictions for 0.png"),
        "table.csv": ({}, "predictions are .jsonl or .json"),
    }
    for name, (content, message) in told.items():
        lines = content if isinstance(content, list) else [content]
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
        status, said, path = command(f"--predictions={tmp_path / name}")
        assert status == 2, name
        assert message in one_line(said)
        assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "one of the arguments --workdir --predictions is required"),
        (("--workdir=a", "--predictions=b"), "not allowed with argument"),
        (("--workdir=a", "--score=2"), "'2' is no number from 0 to 1"),
        (("--workdir=a", "--score=nan"), "'nan' is no number from 0 to 1"),
        (("--workdir=a", "--first=0"), "'0' is no whole number from 1 on"),
        (("--workdir=a", "--output=a.txt"), "'a.txt' must end in .csv or .jsonl"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        annotate.main(["doubts", "data", f"--output={tmp_path / 'a.csv'}", *flags])
    assert message in one_line(capsys.readouterr().err)


def test_a_listing_of_any_format_gives_the_same_objects(tmp_path):
    paths = write_coco(tmp_path / "coco"), write_voc(tmp_path / "voc"), write_yolo(tmp_path / "yolo") / "data.yaml"
    found = [
        {
            Path(image.name).name: [(each.label, *np.round(each.box, 3)) for each in image.objects]
            for image in listed.images_of(opening.open(path, classes=("cat", "dog", "owl")))
        }
        for path in paths[:2]
    ]
    assert found[0] == found[1]
    ignored = [each.crowd for image in listed.images_of(opening.open(paths[0])) for each in image.objects]
    difficult = [each.difficult for image in listed.images_of(opening.open(paths[1])) for each in image.objects]
    assert sum(ignored) == sum(difficult) == 1


def test_masks_of_annotations_are_read(tmp_path):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[5, 6, 25, 6, 25, 36, 5, 36]]
    path.write_text(json.dumps(content))
    masks = [each.segmentation for image in listed.images_of(opening.open(path)) for each in image.objects]
    [mask] = [mask for mask in masks if mask is not None]
    assert mask.size in ((40, 60), (64, 64), (50, 30), (32, 48))
    content["annotations"][0]["segmentation"] = [[5, 6]]
    path.write_text(json.dumps(content))
    with pytest.raises((DataError, ValueError), match="segmentation"):
        list(listed.images_of(opening.open(path)))


def test_folds_part_a_source_by_name(tmp_path):
    source = objects.coco(write_coco(tmp_path))
    names = [source.name(number) for number in range(source.length)]
    for fold in range(2):
        part, rest = folds.part(source, fold, 2), folds.rest(source, fold, 2)
        found = [part.name(number) for number in range(part.length)], [rest.name(n) for n in range(rest.length)]
        assert sorted(found[0] + found[1]) == sorted(names)
        assert {folds.fold_of(name, 2) for name in found[0]} <= {fold}
    with pytest.raises(ValueError, match="fold 2 of 2: allowed"):
        folds.part(source, 2, 2)


def test_predictions_below_the_score_are_not_used(place, command):
    _, _, path = command(f"--predictions={place / 'found.jsonl'}", "--score=0.95")
    assert {json.loads(line)["doubt"] for line in path.read_text().splitlines()} == {"spurious"}
    assert max(SCORES) < 0.95

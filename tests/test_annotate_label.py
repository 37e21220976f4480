"""The command `annotate label`: its flags, and runs and published weights at work."""

import json
from pathlib import Path

import pytest
from boxes_experiment import COUNT
from finished_run import one_line
from labelled_scenes import scenes

from jaxvision import main, predict
from jaxvision.annotate import __main__ as annotate
from jaxvision.annotate.commands import label
from jaxvision.annotate.listing import Worker
from jaxvision.annotate.store import Store
from jaxvision.data import samples
from jaxvision.masks import runs
from jaxvision.run.tiles import checked

HERE = Path(__file__).parent
NEEDED = ("--images=.", "--output=out")


def stored(output):
    with Store(output / "annotations.sqlite", readonly=True) as store:
        return list(store.records())


def test_flags_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = label.parse([*NEEDED, "--workdir=a", "--weights=ssd_mobilenet_v2", "--workdir=b"])
    assert flags.models == ("a", "ssd_mobilenet_v2", "b")
    assert (flags.score, flags.worker, flags.tiles, flags.renamed, flags.classes) == (
        0.3,
        Worker(0, 1),
        None,
        None,
        None,
    )
    more = [
        "--map=a=b,c=",
        "--classes=b, d",
        "--worker=1/4",
        "--tiles=512",
        "--attributes=colour,shape",
        "--redo",
        "--tta",
    ]
    flags = label.parse([*NEEDED, "--weights=x", *more])
    assert (flags.renamed, flags.classes, flags.attributes) == ({"a": "b", "c": ""}, ("b", "d"), ("colour", "shape"))
    assert (flags.worker, flags.tiles, flags.redo, flags.tta) == (Worker(1, 4), checked(512), True, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--weights=a", "--images=b"], "--images= is given twice"),
        ([], "name a model"),
        (["--weights=a", "--worker=4/4"], "no worker"),
        (["--weights=a", "--score=2"], "0 to 1"),
        (["--weights=a", "--tiles=16"], "tiles of 16 pixels"),
        (["--weights=a", "--tiles=0"], "whole number from 1"),
        (["--weights=a", "--batch-size=0"], "whole number from 1"),
        (["--weights=a", "--map=none"], "--map=none"),
        (["--weights=a", "--classes=a,,b"], "empty name"),
        (["--weights=a", "--config.size=3"], "sets no field"),
    ],
)
def test_wrong_flags_are_told_in_a_line(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        annotate.main(["label", *NEEDED, *flags])
    assert ended.value.code == 2
    assert said in one_line(capsys.readouterr().err)


def test_what_is_not_there_is_told_before_models_are_loaded(tmp_path, capsys):
    place = [f"--output={tmp_path / 'out'}", "--weights=ssd_mobilenet_v2"]
    assert annotate.main(["label", f"--images={tmp_path / 'none'}", *place]) == 2
    assert "there is no folder" in one_line(capsys.readouterr().err)
    scenes(tmp_path / "images", range(1))
    assert annotate.main(["label", f"--images={tmp_path / 'images'}", *place, "--attributes=color"]) == 2
    assert "did you mean 'colour'" in one_line(capsys.readouterr().err)
    assert annotate.main(["label", f"--images={tmp_path / 'images'}", *place[:1], "--weights=ssd_mobilenet"]) == 2
    assert "did you mean 'ssd_mobilenet_v2'" in one_line(capsys.readouterr().err)
    assert stored(tmp_path / "out") == []


@pytest.mark.slow
def test_a_run_labels_what_it_predicts(tmp_path, capsys):
    assert main.main([f"--config={HERE / 'boxes_experiment.py'}", f"--workdir={tmp_path / 'run'}", "--no-report"]) == 0
    scenes(tmp_path / "images", range(COUNT))
    predicted = tmp_path / "predicted.jsonl"
    command = [f"--workdir={tmp_path / 'run'}", str(tmp_path / "images"), f"--output={predicted}"]
    assert predict.main(command) == 0
    capsys.readouterr()

    def labelled(output, *flags):
        images = f"--images={tmp_path / 'images'}"
        status = annotate.main(
            ["label", images, f"--output={tmp_path / output}", f"--workdir={tmp_path / 'run'}", *flags]
        )
        return status, capsys.readouterr()

    status, printed = labelled("one")
    assert status == 0, printed.err
    assert "red: 6" in printed.out
    found = stored(tmp_path / "one")
    lines = [json.loads(line) for line in predicted.read_text().splitlines()]
    for record, line in zip(found, lines, strict=True):
        assert Path(line["file"]).name == record.name
        assert [(each.label, each.score, list(each.box)) for each in record.objects] == [
            (each["label"], each["score"], each["box"]) for each in line["objects"]
        ]
        (source,) = record.objects[0].sources
        assert json.loads(source.settings) == {"score": 0.3, "step": 2, "weights": "current"}

    for worker in ("0/2", "1/2"):
        assert labelled("many", f"--worker={worker}")[0] == 0
    status, printed = labelled("many")
    assert "0 labelled now, 6 passed over" in printed.out
    assert stored(tmp_path / "many") == found

    (tmp_path / "images" / "empty.jpg").touch()
    status, printed = labelled("one")
    assert status == 1
    assert "empty.jpg: the file is empty" in printed.out
    assert stored(tmp_path / "one")[:COUNT] == found


@pytest.mark.network
def test_published_weights_find_what_is_in_the_photographs(tmp_path, capsys):
    expected = {
        "ssd_mobilenet_v2": {
            ("astronaut.jpg", "person"),
            ("chelsea.jpg", "cat"),
            ("coffee.jpg", "cup"),
            ("grace_hopper.jpg", "person"),
            ("grace_hopper.jpg", "tie"),
        },
        "yolov3_tiny": {("coffee.jpg", "cup"), ("grace_hopper.jpg", "tie")},
    }
    for weights, objects in expected.items():
        output = tmp_path / weights
        command = [f"--images={samples.photos_dir()}", f"--output={output}", f"--weights={weights}"]
        assert annotate.main(["label", *command, "--masks=u2netp", "--attributes=colour"]) == 0, capsys.readouterr()
        found = {(record.name, each.label): each for record in stored(output) for each in record.objects}
        assert objects <= set(found)
        for each in objects:
            x0, y0, x1, y1 = found[each].box
            area = runs.area(found[each].segmentation)
            assert 0.1 * (x1 - x0) * (y1 - y0) < area < 0.95 * (x1 - x0) * (y1 - y0)
            assert found[each].attributes["colour"]
            assert [source.model for source in found[each].sources] == [weights]

"""`python -m jaxvision.calibrate`: other commands read the run that it writes, and what it was fitted on judges nothing."""

import json
import shutil
from pathlib import Path

import boxes_experiment
import numpy as np
import pytest
from finished_run import finished_run, images, one_line

from jaxvision import calibrate, evaluate, main, run
from jaxvision.errors import ConfigError, DataError
from jaxvision.metrics.together import together
from jaxvision.trust.fitted_on import FittedOn, left_out
from jaxvision.types import About, Batch, Metric, Stream


def stream_of(examples=6, fingerprint="data"):
    def batches(step, shard=None):
        for first in range(0, examples, 4):
            index = np.arange(first, first + 4)
            size = np.ones((4, 2), int)
            yield Batch(np.zeros((4, 1, 1, 1)), size, size, index, index < examples)

    return Stream(None, batches, lambda: About(examples, ("a",), str, fingerprint))


def seen(stream):
    return [int(i) for batch in stream.batches(0) for i in batch.index[batch.valid]]


def test_what_was_fitted_on_is_left_out_or_refused():
    fitted = FittedOn("data", "held", 0.5, seed=3)
    rows = fitted.rows(6)
    assert len(rows) == 3
    assert sorted([*rows, *seen(left_out(stream_of(), fitted))]) == list(range(6))
    assert seen(left_out(stream_of(fingerprint="other"), fitted)) == list(range(6))
    with pytest.raises(DataError, match=r"was calibrated on these data \(evaluation 'held'\)"):
        left_out(stream_of(), fitted._replace(fraction=1.0)).batches(0)
    for wrong in (0.0, 1.5, 0.01):
        with pytest.raises(ConfigError, match="above 0, at most 1"):
            fitted._replace(fraction=wrong).rows(6)


def test_two_metrics_are_one():
    first = Metric(lambda p, b: {"x": p}, lambda rows: {"sum": float(rows["x"].sum()), "n": len(rows)}, ("a",))
    second = Metric(lambda p, b: {"x": 2 * p, "y": p}, lambda rows: {"sum": 0.0, "twice": float(rows["x"].sum())})
    both = together(first, second)
    rows = both.observe(np.arange(3), None) | {"index": np.arange(3)}
    assert both.compute(rows) == {"twice": 6.0, "sum": 3.0, "n": 4}
    assert both.classes == ("a",)
    halved = together(first._replace(condense=lambda rows: {"x": rows["x"][:1]}), second)
    assert {name: len(column) for name, column in halved.condense(rows).items()} == {
        "x": 1,
        "second_x": 3,
        "second_y": 3,
    }
    with pytest.raises(ValueError, match="condenses its rows"):
        together(first, first._replace(condense=dict))


def test_flags(capsys):
    needed = ["--workdir=a", "--data=test", "--output=b"]
    flags = calibrate.parse([*needed, "--method=platt", "--per-class", "--fraction=0.5", "--seed=3", "--coverage=0.9"])
    assert (flags.method, flags.per_class, flags.fraction, flags.seed, flags.coverage) == ("platt", True, 0.5, 3, 0.9)
    for wrong in (["--method=cold"], ["--method=platt", "--fraction=2"]):
        with pytest.raises(SystemExit):
            calibrate.parse([*needed, *wrong])
        assert one_line(capsys.readouterr().err)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, and other images beside it."""
    run_of = finished_run(tmp_path_factory.getbasetemp() / "finished_run")
    folder = tmp_path_factory.mktemp("calibrated")
    images(folder / "other", count=12, seed=500)
    return run_of, folder


def command(run_of, folder, name, *options):
    return calibrate.main(
        [
            f"--workdir={run_of}",
            "--data=test",
            f"--config.test_dir={folder / 'other'}",
            f"--output={folder / name}",
            *options,
        ]
    )


@pytest.mark.slow
def test_a_calibrated_run_is_a_run(place, capfd):
    run_of, folder = place
    assert command(run_of, folder, "new", "--method=temperature", "--fraction=0.5", "--coverage=0.8") == 0
    told = capfd.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.startswith(("ECE", "log_loss"))}
    assert (folder / "new/report/calibration.png").is_file()
    assert "conformal sets for a coverage of 80.0%" in told
    assert json.loads((folder / "new/report/conformal.json").read_text())["examples"] == 18
    found = run.evaluate(folder / "new", names=["test"], overrides={"test_dir": str(folder / "other")})
    assert len(found.evaluations["test"].rows["index"]) == 18  # the other half
    for name, (_, after) in table.items():
        assert found.evaluations["test"].metrics[name] == pytest.approx(float(after), abs=1e-4)
    before = run.evaluate(run_of, names=["test"], overrides={"test_dir": str(folder / "other")})
    ours = np.isin(before.evaluations["test"].rows["index"], found.evaluations["test"].rows["index"])
    predicted = found.evaluations["test"].rows["predicted"]
    np.testing.assert_array_equal(predicted, before.evaluations["test"].rows["predicted"][ours])
    model = run.load(folder / "new")
    old = run.load(run_of)
    file = next((folder / "other").rglob("*.png"))
    (new,), (uncalibrated,) = (each.predict([file]) for each in (model, old))
    new_one, old_one = new["classes"], uncalibrated["classes"]
    assert "set" not in uncalibrated
    assert set(new["set"]) <= {each["name"] for each in new_one}
    assert [c["name"] for c in new_one] == [c["name"] for c in old_one]
    assert new_one[0]["probability"] != old_one[0]["probability"]
    best = run.evaluate(folder / "new", "best", names=["test"], overrides={"test_dir": str(folder / "other")})
    assert best.evaluations["test"].metrics == found.evaluations["test"].metrics
    starts = [json.loads(line) for line in (folder / "new/starts.jsonl").read_text().splitlines()]
    assert starts[0]["parent"] == str(run_of.absolute())
    assert "jaxvision.calibrate" in (folder / "new/command.txt").read_text()


@pytest.mark.slow
def test_a_calibrated_detector_is_a_run(tmp_path, capfd):
    text = Path(boxes_experiment.__file__).read_text()
    other = "streams.evaluation(lambda: source()._replace(fingerprint='others'), **options)"
    assert "test = streams.evaluation(source, **options)" in text
    file = tmp_path / "boxes.py"
    file.write_text(text.replace("streams.evaluation(source, **options)", other))
    assert main.main([f"--config={file}", f"--workdir={tmp_path / 'run'}", "--no-report"]) == 0
    options = [f"--workdir={tmp_path / 'run'}", "--data=test", "--method=isotonic", "--fraction=0.5"]
    assert calibrate.main([*options, f"--output={tmp_path / 'new'}"]) == 0
    table = {line.split()[0]: line.split()[1:] for line in capfd.readouterr().out.splitlines() if "ECE " in line}
    found = run.evaluate(tmp_path / "new").evaluations["test"]
    assert len(found.rows["index"]) == 3
    for name in ("D_ECE", "LaECE"):
        assert found.metrics[name] == pytest.approx(float(table[name][1]), abs=1e-4)
    assert found.metrics["D_ECE"] < 1e-4 < float(table["D_ECE"][0])  # all its boxes are right
    (record,) = run.load(tmp_path / "new").predict([boxes_experiment.scene(1)[0]])
    assert [each["score"] for each in record["objects"]] == pytest.approx([1.0] * len(record["objects"]), abs=1e-4)
    assert calibrate.main([*options, f"--output={tmp_path / 'sets'}", "--coverage=0.9"]) == 2
    assert "conformal sets are of a classifier" in one_line(capfd.readouterr().err)
    assert not (tmp_path / "sets").exists()


@pytest.mark.slow
def test_what_can_not_be_calibrated_is_told_and_leaves_nothing(place, capfd, caplog):
    run_of, folder = place

    def told(*options, name="none"):
        before = {path.name for path in folder.iterdir()}
        capfd.readouterr()
        assert command(run_of, folder, name, *options) == 2
        assert {path.name for path in folder.iterdir()} == before
        return one_line(capfd.readouterr().err)

    assert "has no evaluation 'tset'" in told("--data=tset", "--method=temperature")
    assert "was trained on" in told("--method=isotonic", f"--config.test_dir={run_of.parent / 'images'}")
    assert "ask for it per class" in told("--method=platt")
    assert "fsdp" in told("--method=isotonic", "--fsdp=3")
    assert "above 0 and below 1" in told("--method=isotonic", "--coverage=1")
    assert "is there already" in told("--method=isotonic", name="other")
    assert command(run_of, folder, "whole", "--method=isotonic", "--per-class") == 0
    assert "evaluate the new run on others" in capfd.readouterr().out
    data = f"--config.test_dir={folder / 'other'}"
    assert evaluate.main([f"--workdir={folder / 'whole'}", data]) == 2
    assert "was calibrated on these data" in one_line(capfd.readouterr().err)
    assert evaluate.main([f"--workdir={folder / 'whole'}", "--eval=test"]) == 0
    capfd.readouterr()
    options = [
        f"--workdir={folder / 'whole'}",
        "--data=test",
        data,
        f"--output={folder / 'twice'}",
        "--method=isotonic",
    ]
    assert calibrate.main(options) == 2
    assert "is calibrated already" in one_line(capfd.readouterr().err)
    shutil.rmtree(folder / "whole")

"""The robustness command, on a finished run: its figures, its files, and that a killed one goes on to the same tables."""

import csv
import itertools
import json
import shutil

import av
import numpy as np
import pytest
from finished_run import finished_run, noise, one_line

from jaxvision import evaluate, robustness
from jaxvision.run import prediction
from jaxvision.run.evaluation import Evaluated
from jaxvision.trust import robustness as measuring
from jaxvision.trust.corruptions import COMMON

FILES = ("robustness.json", "robustness.csv", "robustness.md", "curves.png", "sheet.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


@pytest.fixture
def run(finished, tmp_path, capfd):
    """Runs the command on a copy of the finished run; gives the exit status and all that it said."""
    workdir = shutil.copytree(finished, tmp_path / "copy")

    def command(*options):
        capfd.readouterr()
        try:
            status = robustness.main([f"--workdir={workdir}", *options])
        except SystemExit as error:
            status = error.code
        printed = capfd.readouterr()
        return status, printed.out + printed.err

    return workdir, command


def test_tables_are_those_of_evaluate_and_of_a_loop_and_a_killed_command_goes_on_to_them(
    run, monkeypatch, tmp_path, capfd
):
    workdir, command = run
    options = ["--kinds=fog,contrast,frost", "--severities=5,1", "--eval=test", "--checkpoint=12"]
    status, said = command(*options, f"--output={tmp_path / 'whole'}")
    assert status == 0, said
    assert "frost is left out: its photographs are given with --frost=FOLDER" in said
    check_whole(tmp_path / "whole", workdir, capfd)

    write, written = measuring.write_atomically, []

    def killed(path, text):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, text)

    monkeypatch.setattr(measuring, "write_atomically", killed)
    assert command(*options)[0] == 130
    assert {path.name for path in (workdir / "robustness").iterdir()} == {"measured"}
    written.clear()
    monkeypatch.setattr(
        measuring, "write_atomically", lambda path, text: (written.append(path.name), write(path, text))
    )
    assert command(*options)[0] == 0
    assert written == ["contrast_1.json", "contrast_5.json"]
    for name in FILES:
        assert (workdir / "robustness" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def check_whole(folder, workdir, capfd):
    """Checks the files of a whole command."""
    assert {path.name for path in folder.iterdir()} == {*FILES, "measured"}
    data = json.loads((folder / "robustness.json").read_text())
    assert (data["metric"], data["constants"]) == ("accuracy", "cifar")
    capfd.readouterr()
    evaluate.main([f"--workdir={workdir}", "--eval=test", "--checkpoint=12"])
    evaluated = json.loads(capfd.readouterr().out.splitlines()[-1])["evaluations"]["test"]
    assert data["clean"] == evaluated
    scores = {
        name: [data["corrupted"][name][severity]["accuracy"] for severity in "15"] for name in ("fog", "contrast")
    }
    summary = data["summary"]
    assert summary["mean_error"] == pytest.approx(1 - np.mean(list(scores.values())))
    assert summary["clean_error"] == pytest.approx(1 - data["clean"]["accuracy"])
    assert "mCE" not in summary
    measured = {
        name: [
            json.loads((folder / f"measured/test/{each}.json").read_text())["predicted"] for each in ("clean", *keys)
        ]
        for name, keys in {"fog": ("fog_1", "fog_5"), "contrast": ("contrast_1", "contrast_5")}.items()
    }
    flips = [a != b for each in measured.values() for i in (0, 1) for a, b in zip(each[i], each[i + 1], strict=True)]
    assert summary["flip_rate"] == pytest.approx(np.mean(flips))
    lines = list(csv.DictReader((folder / "robustness.csv").read_text().splitlines()))
    assert [(line["corruption"], line["severity"]) for line in lines] == [
        ("clean", "0"),
        *((name, severity) for name in ("fog", "contrast") for severity in "15"),
    ]
    assert [float(line["accuracy"]) for line in lines[1:]] == [*scores["fog"], *scores["contrast"]]
    text = (folder / "robustness.md").read_text()
    assert f"| fog | {scores['fog'][0]:.4f} | {scores['fog'][1]:.4f} | {np.mean(scores['fog']):.4f} |" in text


@pytest.mark.slow
def test_a_run_against_another_has_paired_differences(run, tmp_path):
    workdir, command = run
    other = shutil.copytree(workdir, tmp_path / "other")
    options = ["--kinds=contrast,object_occlusion", "--severities=5", "--eval=test", f"--against={other}"]
    status, said = command(*options, "--checkpoint=12")
    assert status == 0, said
    assert "object_occlusion is left out: the data have no objects to be cut out" in said
    lines = list(csv.DictReader((workdir / "robustness/against_other.csv").read_text().splitlines()))
    assert [line["corruption"] for line in lines] == ["clean", "contrast", "mean"]
    assert [(float(line["difference"]), line["verdict"]) for line in lines] == [(0.0, "undecided")] * 3
    assert (other / "robustness/measured/test/contrast_5.json").is_file()
    status, said = command(*options, "--checkpoint=12", f"--config.test_dir={tmp_path / 'nowhere'}")
    assert status == 2


@pytest.mark.slow
def test_a_video_is_measured_as_its_frames_are_predicted(run, tmp_path):
    workdir, command = run
    frames = [noise(number // 2, 32, 48) for number in range(8)]
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "bgr0"
        for packet in [
            *(each for pixels in frames for each in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))),
            *stream.encode(),
        ]:
            container.mux(packet)
    status, said = command(f"--video={tmp_path / 'clip.mkv'}", "--checkpoint=12")
    assert status == 0, said
    records = prediction.load(workdir, 12).predict(frames)
    best = [each["classes"][0]["name"] for each in records]
    changed = [a != b for a, b in itertools.pairwise(best)]
    data = json.loads((workdir / "robustness/video_clip.json").read_text())
    assert [each["unstable"] for each in data["changes"]] == changed
    assert data["summary"] == {"frames": 8, "flip_rate": pytest.approx(np.mean(changed))}
    assert f"answers that change from one to the next: {np.mean(changed):.4f}" in said
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for file, text in (("none.mp4", "none.mp4"), ("broken.mp4", "broken.mp4: "), ("a.png", "is no video by its name")):
        status, said = command(f"--video={tmp_path / file}", "--score=0.5")
        assert status == 2
        assert text in one_line(said)


REFUSED = {
    "--kinds=object_occlusion --severities=1 --eval=test": "it needs data with boxes or masks of objects",
    "--kinds=fog --severities=1 --eval=test --against=/nowhere": "there is no workdir /nowhere",
    "--video=a.mp4 --score=2": "is no number from 0 to 1",
    "--kinds=fgo": "there is no corruption 'fgo'; did you mean 'fog'?",
    "--kinds=": "has an empty name",
    "--kinds=frost": "frost needs a folder with its photographs",
    "--kinds=fog --severities=0": "severity is 0; allowed are the whole numbers 1 to 5",
    "--kinds=fog --severities=strong": "severity is 'strong'; allowed are the whole numbers 1 to 5",
    "--kinds=fog --eval=tset": "has no evaluation 'tset'; there are: blind, test",
    "--kinds=frost --frost=/nowhere": "frost needs /nowhere/frost1.png",
    "--kinds=fog --constants=imagenet --eval=test": "fog can't corrupt an image of 24x24 pixels",
    "--kinds=fog --severities=1 --eval=test --metric=acuracy": "has no metric 'acuracy'; did you mean 'accuracy'?",
    "--constants=mnist": "invalid choice: 'mnist'",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_can_not_be_done_is_told_in_one_line(run, options):
    status, said = run[1](*options.split())
    assert status == 2
    assert REFUSED[options] in one_line(said)


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"of": {"step": 4}}', '{"of": {"step": 3}, "metrics": {}, "predicted": null}']
)
def test_a_measurement_that_is_torn_or_of_other_settings_is_made_again(tmp_path, text):
    path, of = tmp_path / "fog_1.json", {"step": 4}
    if text is not None:
        path.write_text(text)
    made = []

    def measured(stream):
        made.append(stream)
        return Evaluated({"loss": float("nan"), "accuracy": 0.5}, {"label": np.zeros(2), "predicted": np.array([1, 0])})

    keep = measuring._Kept(tmp_path, of, measured, lambda key: None)
    first, second = (keep.take("fog_1", lambda: "stream") for _ in range(2))
    assert made == ["stream"]
    assert first.metrics["accuracy"] == second.metrics["accuracy"] == 0.5
    assert np.isnan(second.metrics["loss"])
    assert first.predicted.tolist() == second.predicted.tolist() == [1, 0]


def test_names_stand_for_all_or_the_common_corruptions():
    assert robustness.parse(["--workdir=x"]).corruptions == ("common",)
    groups = {"common": COMMON, "two": ("fog", "rotation")}
    assert robustness._expanded(("common",), groups) == COMMON
    assert robustness._expanded(("rotation", "two", "snow"), groups) == ("rotation", "fog", "snow")


def test_metrics_are_those_asked_for_or_that_runs_are_judged_by():
    assert measuring.chosen_metric({"AP": 1, "AP50": 1}, None, None) == "AP"
    assert measuring.chosen_metric({"AP": 1, "AP50": 1}, None, "AP50") == "AP50"
    assert measuring.chosen_metric({"AP": 1, "AP50": 1}, "AP50", "AP") == "AP50"
    with pytest.raises(measuring.ConfigError, match=r"name the metric to judge by \(--metric=NAME\); there are: depth"):
        measuring.chosen_metric({"depth": 1}, None, "loss")


def test_detectors_are_judged_by_performance_under_corruption_and_have_no_flips():
    clean = measuring.Measured({"AP": 0.5}, None)
    table = {("fog", severity): measuring.Measured({"AP": 0.5 - severity / 20}, None) for severity in range(1, 6)}
    found = measuring.Robustness(clean, table)
    wanted = np.mean([0.5 - severity / 20 for severity in range(1, 6)])
    assert measuring.summary(found, "AP") == pytest.approx({"clean": 0.5, "mPC": wanted, "rPC": wanted / 0.5})


def test_a_classifier_with_all_severities_has_a_mean_corruption_error():
    clean = measuring.Measured({"accuracy": 0.9}, np.array([0, 1]))
    table = {
        (name, severity): measuring.Measured({"accuracy": 0.9 - severity / 10}, np.array([0, severity % 2]))
        for name in ("fog", "snow")
        for severity in range(1, 6)
    }
    rates = measuring.summary(measuring.Robustness(clean, table), "accuracy")
    assert rates["mean_error"] == pytest.approx(0.4)
    assert rates["mCE"] == pytest.approx((0.4 / 0.819324 + 0.4 / 0.866816) / 2)
    assert rates["relative_mCE"] == pytest.approx((0.3 / (0.819324 - 0.435) + 0.3 / (0.866816 - 0.435)) / 2)
    assert rates["flip_rate"] == pytest.approx(4 / 10)
    more = {("rotation", severity): measuring.Measured({"accuracy": 0.0}, np.array([1, 1])) for severity in range(1, 6)}
    assert measuring.summary(measuring.Robustness(clean, table | more), "accuracy") == rates
    assert measuring.summary(measuring.Robustness(clean, more), "accuracy")["mean_error"] == 1

"""The evaluate command, on finished runs of the tiny experiment: a workdir alone gives the figures of its log again."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_run import CLASSES, finished_run, images, one_line
from ml_collections import ConfigDict

from jaxvision import evaluate
from jaxvision.errors import ConfigError
from jaxvision.run import restore
from jaxvision.run.config import load, restored
from jaxvision.run.evaluation import Evaluated, Results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


@pytest.fixture
def run(finished, capfd, caplog):
    """Runs the command on the finished run; gives the exit status, what it said, and the JSON object at its end."""

    def command(*options, workdir=finished):
        capfd.readouterr()
        status = evaluate.main([f"--workdir={workdir}", *options])
        printed = capfd.readouterr()
        said = printed.err + "".join(record.getMessage() + "\n" for record in caplog.records)
        caplog.clear()
        return status, printed.out + said if status else said, printed.out if status == 0 else None

    return command


def last(printed):
    return json.loads(printed.splitlines()[-1])


def logged(workdir, step, name):
    """The figures of an evaluation at this step, from the log."""
    rows = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    row = next(row for row in rows if row["step"] == step and "test/accuracy" in row)
    return {key.removeprefix(f"{name}/"): v for key, v in row.items() if key.startswith(f"{name}/")}


def content(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def unsealed(finished, tmp_path):
    """A copy as an older version would have left it: without checksums, so that its files are taken as they are."""
    copy = copied(finished, tmp_path)
    (copy / "checksums.json").unlink()
    return copy


def test_a_workdir_alone_gives_the_figures_of_the_log_and_stays_as_it_is(run, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = content(finished)
    accuracy = {step: logged(finished, step, "test")["accuracy"] for step in (4, 8, 12)}
    best = max(accuracy, key=accuracy.__getitem__)  # of equal ones the earliest
    asked = {"--checkpoint=4": 4, "--checkpoint=8": 8, "--checkpoint=latest": 12, "--checkpoint=best": best}
    for option, step in {**asked, "--traceback": best}.items():
        status, said, printed = run(option, "--output=figures.json")
        assert status == 0, said
        found = last(printed)
        assert (found["step"], found["checkpoint"]) == (step, str(finished / "checkpoints" / str(step)))
        assert found["evaluations"] == {name: logged(finished, step, name) for name in ("blind", "test")}
        assert re.search(rf"^accuracy +{accuracy[step]:.5g} +{accuracy[step]:.5g}$", printed, re.MULTILINE)
        assert json.loads((tmp_path / "figures.json").read_text()) == found
        assert "warning" not in said
    assert content(finished) == before
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_metrics_of_classes_are_a_table_of_their_own():
    test = {"accuracy": 0.5, "recall/a/b": 0.25, "recall/c": 1.0, "f1/a/b": 0.125, "f1/c": 0.75}
    text = evaluate.table({"test": test, "blind": {"accuracy": 0.25}})
    assert [line.split() for line in text.splitlines()] == [
        ["test", "blind"],
        ["accuracy", "0.5", "0.25"],
        [],
        ["test,", "by", "class", "recall", "f1"],
        ["a/b", "0.25", "0.125"],
        ["c", "1", "0.75"],
    ]


def test_what_has_no_value_has_no_line_and_what_ap_lacks_comes_last():
    test = {"AP": 0.5, "AP_large": math.nan, "dAP_missed": 0.25, "f1": 0.75, "AP/cat": 0.5, "AP/dog": math.nan}
    text = evaluate.table({"test": test, "other": {"AP": math.nan, "AP_large": math.nan, "recall": 1.0}})
    assert [line.split() for line in text.splitlines()] == [
        ["test", "other"],
        ["AP", "0.5", "nan"],
        ["f1", "0.75"],
        ["recall", "1"],
        ["dAP_missed", "0.25"],
        [],
        ["test,", "by", "class", "AP"],
        ["cat", "0.5"],
    ]


def test_evaluations_are_chosen_by_name(run):
    status, said, printed = run("--eval=blind")
    assert status == 0, said
    assert list(last(printed)["evaluations"]) == ["blind"]
    status, said, _ = run("--eval=blind", "--eval=tset")
    assert status == 2
    assert "has no evaluation 'tset'; there are: blind, test" in one_line(said)


def test_other_data_are_evaluated_with_a_warning_that_names_the_stream(run, finished, tmp_path):
    other = images(tmp_path / "other", count=3, seed=1)
    (other / "dot" / "photo.heic").write_bytes(b"")
    status, said, printed = run("--eval=test", f"--config.test_dir={other}")
    assert status == 0, said
    assert f"evaluation test: {other}: left out 1 of 10 files: 1 .heic" in said
    assert re.search("warning: the data of 'evaluation test' are not those that .*run was made with", said)
    assert last(printed)["evaluations"]["test"] != logged(finished, last(printed)["step"], "test")
    accuracy = last(printed)["evaluations"]["test"]["accuracy"]
    assert accuracy * 9 == pytest.approx(round(accuracy * 9))


def test_data_that_are_gone_are_told(run, tmp_path):
    status, said, _ = run(f"--config.test_dir={tmp_path / 'gone'}")
    assert status == 2
    assert f"{tmp_path / 'gone'} is no folder" in one_line(said)


def test_a_checkpoint_that_is_not_there_or_does_not_fit_is_told(run, tmp_path, finished):
    status, said, _ = run("--checkpoint=5")
    assert status == 2
    assert re.search("checkpoints has no checkpoint 5; there are: 4, 8, 12", one_line(said))
    status, said, _ = run("--config.network.channels=(4, 6)")
    assert status == 2
    assert "is of another model or optimizer" in one_line(said)
    copy = copied(finished, tmp_path)
    shutil.rmtree(copy / "checkpoints")
    status, said, _ = run(workdir=copy)
    assert status == 2
    assert "checkpoints" in one_line(said)


def test_a_damaged_checkpoint_is_told_and_stays_in_its_place(run, tmp_path, finished):
    copy = copied(finished, tmp_path)
    arrays = max((copy / "checkpoints/12/state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    arrays.write_bytes(arrays.read_bytes()[:1000])
    before = content(copy)
    status, said, _ = run("--checkpoint=latest", workdir=copy)
    assert status == 2
    assert "checkpoints/12 is damaged" in one_line(said)
    assert content(copy) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shutil.rmtree(d), "there is no workdir .*copy"),
        (lambda d: (d / "experiment.py").unlink(), "copy holds no run: it has no experiment.py"),
        (lambda d: (d / "config.json").write_text("{"), "config.json can't be read"),
        (lambda d: edit(d, lambda c: c.update(colour=1)), "config.json does not fit .*has no field 'colour'"),
        (lambda d: edit(d, lambda c: c.pop("steps")), "config.json does not fit .*there is no value for 'steps'"),
        (lambda d: edit(d, lambda c: c.update(source=3)), r"config.source is of type str \(default 'arrays'\), not 3"),
    ],
)
def test_a_workdir_that_holds_no_whole_run_is_told(run, tmp_path, finished, spoil, message):
    copy = unsealed(finished, tmp_path)
    spoil(copy)
    status, said, _ = run(workdir=copy)
    assert status == 2
    assert re.search(message, one_line(said))


def edit(workdir, change):
    config = json.loads((workdir / "config.json").read_text())
    change(config)
    (workdir / "config.json").write_text(json.dumps(config))


def test_an_experiment_that_can_not_be_built_any_more_is_told(run, tmp_path, finished):
    copy = unsealed(finished, tmp_path)
    text = (copy / "experiment.py").read_text()
    looks = text.replace(
        "    dtype = jnp.dtype(config.precision)", "    folder.classes('gone')\n    dtype = jnp.float32"
    )
    assert looks != text
    (copy / "experiment.py").write_text(looks)
    status, said, _ = run(workdir=copy)
    assert status == 2
    assert re.search("the experiment of .*copy can't be built: gone is no folder", one_line(said))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--checkpoint=newest", "'newest' is none of: best, latest, the number of a step"),
        ("--output=nowhere/figures.json", "there is no folder nowhere to write figures.json into"),
        ("--output=.", ". is a folder, not a file"),
        ("--config.steps", "--config.steps needs a value"),
    ],
)
def test_usage_errors(option, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--workdir=x", option])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_config_comes_back_from_json_with_the_types_of_its_defaults():
    default = ConfigDict(
        {
            "sizes": (1,),
            "shares": [1.0],
            "nested": ((1, 2),),
            "mixed": ([1],),
            "anything": None,
            "rate": 1.0,
            "in": {"a": ()},
        }
    )
    values = {
        "sizes": (3, 4, 5),
        "shares": [2.0, 3.0],
        "nested": ((1, 2), (3, 4)),
        "mixed": ([1, 2],),
        "anything": ((1,), 2),
        "rate": float("inf"),
        "in": {"a": ("x",)},
    }
    found = restored(default, json.loads(json.dumps(values)))
    assert found.to_dict() == values
    with pytest.raises(AttributeError):
        found.other = 1


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"a": 1}, "there is no value for 'model.depth'"),
        ({"a": 1, "model": {"depth": 1, "width": 2}}, "has no field 'model.width'"),
        ({"a": 1, "model": 3}, "has no field 'model'; there is no value for 'model.depth'"),
        ({"a": "x", "model": {"depth": 1}}, r"config.a is of type int \(default 0\), not 'x'"),
        ({"a": 1, "model": {"depth": "x"}}, r"config.model.depth is of type int \(default 2\), not 'x'"),
    ],
)
def test_what_does_not_fit_the_config_is_named(saved, message):
    with pytest.raises(ConfigError, match=message):
        restored(ConfigDict({"a": 0, "model": {"depth": 2}}), saved)


def test_an_experiment_file_leaves_no_compiled_code_and_is_read_anew(tmp_path):
    path = tmp_path / "experiment.py"
    for value in (1, 2):  # the same length, within a second: compiled code would be taken for up to date
        path.write_text(f"answer = {value}\ndef get_config(): ...\ndef build(config): ...\n")
        module = load(path)
        assert module.answer == value
    assert [each.name for each in tmp_path.iterdir()] == ["experiment.py"]


def test_the_classes_of_a_run_come_from_its_workdir_or_else_from_its_data(tmp_path, finished):
    copy = unsealed(finished, tmp_path)
    (copy / "classes.json").unlink(missing_ok=True)
    assert restore.class_names(restore.restore(copy), "evaluation test") == CLASSES
    (copy / "classes.json").write_text('{"evaluation test": ["a", "b", "c"]}')
    assert restore.class_names(restore.restore(copy), "evaluation test") == ("a", "b", "c")


def test_figures_that_are_not_finite_are_null():
    text = evaluate.as_json(
        Results(3, "current", {"test": Evaluated({"log_loss": float("inf"), "accuracy": 0.5}, {})}), Path("c/3")
    )
    assert json.loads(text)["evaluations"] == {"test": {"log_loss": None, "accuracy": 0.5}}


@pytest.mark.slow
def test_another_number_of_devices_gives_the_same_figures(finished):
    """Some of them to rounding: the log loss sums in another order."""
    command = [sys.executable, "-m", "jaxvision.evaluate", f"--workdir={finished}", "--checkpoint=12"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = last(done.stdout)["evaluations"]["test"]
    assert figures == pytest.approx(logged(finished, 12, "test"), rel=1e-5)
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "a batch of 16 examples can't be split over 3 devices" in one_line(done.stderr)


def test_pictures_of_the_checkpoint_that_is_evaluated_are_drawn_on_request(run, finished, tmp_path):
    before = content(finished)
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "older.png").touch()
    status, said, printed = run("--checkpoint=4", "--eval=test", f"--report={folder}")
    assert status == 0, said
    written = {path.name for path in folder.iterdir()} - {"older.png"}
    assert written >= {"test_confusion.png", "test_predictions.png"}
    assert f"pictures in {folder}: {', '.join(sorted(written))}" in printed.splitlines()
    assert last(printed)["step"] == 4
    assert content(finished) == before


@pytest.fixture
def group_file(finished, tmp_path):
    """Writes a file of groups of the test images, its lines changed; and their number."""

    def write(change=lambda lines: lines):
        about = restore.restore(finished).experiment.evaluations["test"].stream.about()
        lines = [f"{about.name(i)},{('odd', 'even')[i % 2]},{'abc'[i % 3]}" for i in range(about.examples)]
        path = tmp_path / "groups.csv"
        path.write_text("\n".join(change(["file,parity,letter", *lines])) + "\n")
        return f"--groups={path}"

    return write


def test_figures_by_group_are_printed_and_written(run, group_file, tmp_path):
    flags = [group_file(), "--by=parity", "--by=class", "--eval=test", f"--report={tmp_path / 'report'}"]
    status, _, printed = run(*flags, f"--output={tmp_path / 'out.json'}")
    assert status == 0
    assert re.search(r"test, by parity\n\n +even \(12\) +odd \(12\)\naccuracy +[01]", printed)
    assert "fewer than 30 examples, not ranked: even (12), odd (12)" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    by, whole = written.pop("by")["test"], written["evaluations"]["test"]
    assert last(printed) == written
    assert {name: each["groups"] for name, each in by.items()} == {
        "parity": {"even": 12, "odd": 12},
        "class": dict.fromkeys(CLASSES, 8),
    }
    for of, n in (("parity", 12), ("class", 8)):
        values = [each[0] for each in by[of]["figures"]["accuracy"].values()]
        assert sum(n * value for value in values) / 24 == pytest.approx(whole["accuracy"])
    lines = list(csv.DictReader((tmp_path / "report" / "by_parity_test.csv").read_text().splitlines()))
    told = next(line for line in lines if line["figure"] == "accuracy" and line["group"] == "odd")
    assert [float(told[name]) for name in ("value", "low", "high")] == by["parity"]["figures"]["accuracy"]["odd"]
    assert by["parity"]["gaps"] == {}


WRONG_GROUPS = {
    "another attribute": (
        ["--by=colour"],
        "evaluation test: there are no groups by 'colour'; there are: brightness, class; a ",
    ),
    "no file": (["--by=x", "--groups=/nowhere/x.csv"], "can't be read: No such file"),
}


@pytest.mark.parametrize("case", WRONG_GROUPS)
def test_groups_that_are_not_there(run, case):
    flags, text = WRONG_GROUPS[case]
    status, said, _ = run("--eval=test", *flags)
    assert status == 2
    assert text in one_line(said)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda lines: lines[:-1], "lacks 1 image of 24"),
        (lambda lines: [*lines, "other.jpg,odd,a"], "1 name of no image of the data, the first is 'other.jpg'"),
        (lambda lines: [*lines, lines[1]], "and again in line"),
        (
            lambda lines: [lines[0], *(line.split(",")[0] + ",," for line in lines[1:])],
            "has no value in column 'parity'",
        ),
    ],
)
def test_a_file_of_groups_that_does_not_fit_the_data(run, group_file, change, text):
    status, said, _ = run("--eval=test", group_file(change), "--by=parity")
    assert status == 2
    assert text in one_line(said)


@pytest.mark.parametrize(
    ("flags", "text"), [(["--groups=x.csv"], "--groups needs --by"), (["--by=x,"], "an empty name")]
)
def test_flags_of_groups_that_do_not_fit(flags, text, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--workdir=x", *flags])
    assert text in capsys.readouterr().err

"""Whole runs of the command, on a tiny experiment: what it leaves behind, and what it says to bad input."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision import main
from jaxvision.data import samples
from jaxvision.run import interruption

TINY = Path(__file__).with_name("tiny_experiment.py")


@pytest.fixture
def run(tmp_path, capfd, caplog, imported):
    """Runs the tiny experiment in this process; gives the exit status and what it printed, warnings included."""

    def command(*options, workdir=tmp_path / "run", config=TINY, **fields):
        options = options if fields.get("report") else ("--no-report", *options)
        fields = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
        status = main.main([f"--config={config}", f"--workdir={workdir}", *fields, *options])
        printed = capfd.readouterr()
        warnings = "".join(record.getMessage() + "\n" for record in caplog.records)
        caplog.clear()
        return status, printed.out + printed.err + warnings

    command.workdir = tmp_path / "run"
    return command


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def one_line(printed: str) -> str:
    """What the command said about an error: a single line of its own, and no traceback."""
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("jaxvision: ")]
    assert len(lines) == 1, printed
    return lines[0]


@pytest.fixture
def image_folder(tmp_path):
    """Three classes of PNG files."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("circle", "cross", "dot")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 80, (20 + i, 24, 3), dtype=np.uint8)
            pixels[..., k] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_a_run_leaves_metrics_checkpoints_pictures_and_what_it_was(run):
    status, printed = run(report=True)
    assert status == 0, printed
    names = {path.name for path in run.workdir.iterdir()}
    assert names >= {"config.json", "experiment.py", "command.txt", "versions.json", "metrics.jsonl", "timing.jsonl"}
    assert names >= {"provenance.json", "starts.jsonl", "data.json", "classes.json", "tensorboard"}
    assert json.loads((run.workdir / "classes.json").read_text())["train"][0] == "T-shirt/top"
    pictures = list((run.workdir / "report").iterdir())
    names = {path.name for path in pictures}
    assert names == {"curves.png", "test_confusion.png", "test_predictions.png", "test_mistakes.png"}
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    steps = [row["step"] for row in rows(run.workdir) if "loss" in row]
    assert steps == [5, 10, 15, 20]
    evaluations = [row for row in rows(run.workdir) if "test/accuracy" in row]
    assert [row["step"] for row in evaluations] == [10, 20]
    assert evaluations[0].keys() >= {"test/precision_macro", "test/recall/7", "test/calibration_error"}
    assert json.loads((run.workdir / "config.json").read_text())["precision"] == "float32"
    told = re.search(r"done: 20 steps, in .*", printed)
    assert told
    assert all(f"{part} " in told[0] for part in ("data", "step", "evaluation", "checkpoint", "report"))

    before = (run.workdir / "metrics.jsonl").read_bytes()
    status, printed = run("--no-report", report=True)
    assert status == 0, printed
    assert (run.workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_tensorboard_reads_the_rows_of_the_log_and_the_pictures_also_after_a_resume(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(steps=10)[0] == 0
    assert run("--fork", "--profile=12:14", steps=20, report=True)[0] == 0
    board = EventAccumulator(str(run.workdir / "tensorboard"))
    board.Reload()
    for tag, name in (("train/loss", "loss"), ("test/accuracy", "test/accuracy")):
        expected = [(row["step"], row[name]) for row in rows(run.workdir) if name in row]
        assert [event.step for event in board.Scalars(tag)] == [step for step, _ in expected]
        np.testing.assert_allclose([event.value for event in board.Scalars(tag)], [x for _, x in expected], rtol=1e-6)
    assert board.Scalars("speed/images_per_second")
    pictures = EventAccumulator(str(run.workdir / "tensorboard" / "report"))
    pictures.Reload()
    assert set(pictures.Tags()["images"]) == {path.stem for path in (run.workdir / "report").iterdir()}
    (trace,) = (run.workdir / "profile").glob("plugins/profile/*/perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    assert any("train_step" in name for name in names)


def test_steps_to_profile_that_are_none_are_told(run):
    status, printed = run("--profile=5")
    assert status == 2
    assert "FIRST:LAST" in one_line(printed)
    assert not run.workdir.exists()


def test_another_experiment_in_the_workdir_is_refused_and_fork_goes_on(run):
    assert run(steps=10)[0] == 0
    before = {path: path.read_bytes() for path in run.workdir.rglob("*") if path.is_file()}
    status, printed = run(steps=15, learning_rate=0.1)
    assert status == 2
    assert "config.learning_rate is 0.003 there and 0.1 here; config.steps is 10 there and 15 here" in one_line(printed)
    assert {path: path.read_bytes() for path in run.workdir.rglob("*") if path.is_file()} == before
    status, printed = run("--fork", steps=15)
    assert status == 0, printed
    assert "going on from step 10 of 15" in printed
    assert [row["step"] for row in rows(run.workdir) if "loss" in row] == [5, 10, 15]
    status, printed = run("--fork", steps=20, network__channels="(4, 6)")
    assert status == 2
    assert "is of another model or optimizer" in one_line(printed)


def test_an_unreadable_newest_checkpoint_falls_back_loudly_to_the_same_end(run, tmp_path):
    assert run()[0] == 0
    shutil.copytree(run.workdir, tmp_path / "damaged")
    arrays = max((tmp_path / "damaged/checkpoints/20/state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    arrays.write_bytes(arrays.read_bytes()[:1000])
    status, printed = run(workdir=tmp_path / "damaged")
    assert status == 0, printed
    assert re.search(r"checkpoints/20 is damaged: .*going on from the checkpoint of step 1[05]", printed)
    assert (tmp_path / "damaged/metrics.jsonl").read_bytes() == (run.workdir / "metrics.jsonl").read_bytes()


def test_nan_is_traced_to_its_example_and_its_batch_is_saved(run):
    status, printed = run(blow_up_at=7)
    assert status == 2
    said = one_line(printed)
    name = re.search(r"step 7: .*; not finite for (.*?); the batch", said)
    assert name
    assert "nonfinite='skip'" in said
    batch = np.load(run.workdir / "nonfinite" / "batch_7.npz")
    assert batch["image"].shape == (16, 28, 28, 1)
    assert name[1] == f"arrays[{batch['index'][2]}]"
    assert [row["step"] for row in rows(run.workdir)] == [5]
    assert (run.workdir / "checkpoints" / "5").is_dir()
    assert (run.workdir / "nonfinite" / "checkpoints" / "7").is_dir()


def test_nan_can_be_skipped(run):
    status, printed = run(blow_up_at=7, nonfinite="skip")
    assert status == 0, printed
    assert [row.get("skipped") for row in rows(run.workdir) if "loss" in row] == [None, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "config has no field 'stepz'; did you mean 'steps'?"),
        ({"steps": "many"}, "config.steps is of type int (default 20), not 'many'"),
        ({"precision": "fp8"}, "config.precision is 'fp8'; allowed: auto, float32, bfloat16, float64"),
        ({"config": "nowhere.py"}, "no experiment file nowhere.py"),
        ({"network__dropout": "1.5"}, "dropout is 1.5; it must be at least 0 and less than 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 10**20}, "batch_size must be at most 2,147,483,647, got 100000000000000000000"),
        ({"seed": 2**63}, "seed is 9223372036854775808; it must be at least 0 and below 2**63"),
        ({"log": 0}, "log must be at least 1"),
        ({"source": "folder", "data_dir": "nowhere"}, "nowhere"),
    ],
    ids=str,
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(run, options, message):
    status, printed = run(**options)
    assert status == 2
    assert message in one_line(printed)
    assert not run.workdir.exists()


def test_a_missing_dataset_names_where_it_was_sought_and_how_to_prepare_it(run, tmp_path):
    config = TINY.parent.parent / "experiments" / "cifar10_cnn.py"
    status, printed = run(config=config, data_dir=tmp_path)
    assert status == 2
    assert re.search(rf"no prepared dataset 'cifar10' in {tmp_path}.*download_and_prepare", one_line(printed))
    assert not run.workdir.exists()


def test_an_empty_class_folder_is_named(run, image_folder):
    (image_folder / "empty").mkdir()
    status, printed = run(source="folder", data_dir=image_folder, classes=4, channels=3)
    assert status == 2
    assert "empty" in one_line(printed)
    assert not run.workdir.exists()


def test_a_best_figure_that_nothing_measures_is_named_with_those_that_are(run):
    status, printed = run(steps=5, keep_by="val/accuracy")
    assert status == 2
    assert "keep.by is 'val/accuracy'; the evaluations are: test" in one_line(printed)
    assert not run.workdir.exists()
    status, printed = run(steps=5, keep_by="test/acuracy")
    assert status == 2
    assert "keep.by is 'test/acuracy'; the evaluations give: test/accuracy, " in one_line(printed)
    assert (run.workdir / "checkpoints" / "5").is_dir()


def test_changed_data_are_another_run(run, image_folder):
    options = {"source": "folder", "data_dir": image_folder, "classes": 3, "channels": 3, "size": 24}
    assert run(**options, steps=5)[0] == 0
    (image_folder / "dot" / "7.png").unlink()
    status, printed = run(**options, steps=5)
    assert status == 2
    assert "the data of 'train' have changed" in one_line(printed)


def test_an_evaluation_that_fails_loses_no_step_before_it(run, image_folder, tmp_path):
    test_folder = tmp_path / "test_images"
    for name in ("circle", "cross", "dot"):
        (test_folder / name).mkdir(parents=True)
        (test_folder / name / "0.png").write_bytes(b"no image")
    options = {"source": "folder", "data_dir": image_folder, "classes": 3, "channels": 3, "size": 24, "steps": 10}
    options |= {"test_dir": test_folder, "checkpoint": 0}
    status, printed = run(**options)
    assert status == 2
    assert "circle/0.png: " in one_line(printed)
    assert (run.workdir / "checkpoints" / "10").is_dir()
    options["workdir"] = run.workdir.with_name("skipping")
    status, printed = run(**options, on_bad_image="skip")
    assert status == 2
    assert "evaluation 'test': there is no valid example" in one_line(printed)
    for name in ("circle", "cross", "dot"):
        shutil.copyfile(image_folder / name / "0.png", test_folder / name / "0.png")
    status, printed = run("--fork", **options, on_bad_image="skip")
    assert status == 0, printed
    assert [row["step"] for row in rows(options["workdir"]) if "test/accuracy" in row] == [10]
    assert [row["step"] for row in rows(options["workdir"]) if "loss" in row] == [5, 10]


@pytest.mark.parametrize("steps", [2, 40])
def test_a_run_that_can_use_no_image_fails(run, image_folder, steps):
    for file in image_folder.rglob("*.png"):
        file.write_bytes(b"junk")
    options = {"source": "folder", "data_dir": image_folder, "classes": 3, "channels": 3, "size": 24, "steps": steps}
    status, printed = run(**options, on_bad_image="skip", evaluate=100)
    assert status == 2
    lines = [line for line in printed.splitlines() if line.startswith("jaxvision: ") and "skipped an" not in line]
    assert [
        re.search(r"none of the .*(images could be used|had an image)|there is no valid example", line) is None
        for line in lines
    ] == [0]
    assert "Traceback" not in printed


def test_a_fork_can_not_go_back(run):
    assert run(steps=10)[0] == 0
    status, printed = run("--fork", steps=5)
    assert status == 2
    assert "is at step 10, past the 5 asked for" in one_line(printed)


def test_pretrained_weights_are_asked_for_once_and_wiring_faults_come_before_anything_is_written(run, tmp_path):
    text = TINY.read_text()
    wired = text.replace("nonfinite=config.nonfinite,", "nonfinite=config.nonfinite, start=start, stop=stop,")
    wired += "\n\ndef start(variables):\n    print('STARTED')\n    return variables\n"
    wired += "\n\ndef stop(history):\n    return history[-1]['step'] >= 10\n"
    path = tmp_path / "wired.py"
    path.write_text(wired)
    status, printed = run(config=path)
    assert status == 0, printed
    assert printed.count("STARTED") == 1
    assert "done: 10 steps, stopped early, of 20" in printed
    status, printed = run(config=path)
    assert (status, printed.count("STARTED")) == (0, 0), printed

    path.write_text(text.replace("nonfinite=config.nonfinite,", "gradient=accumulate(5),"))
    path.write_text("from jaxvision.gradient import accumulate\n" + path.read_text().split('"""', 2)[2])
    status, printed = run(config=path, workdir=tmp_path / "other")
    assert status == 2
    assert "a batch of 16 examples can't be split into 5 equal micro-batches" in one_line(printed)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("broken", ["truncated", "zero"])
def test_a_broken_image_ends_the_run_or_is_skipped_as_chosen(run, image_folder, broken):
    target = image_folder / "cross" / "3.jpg"
    Image.open(samples.photos_dir() / "coffee.jpg").resize((64, 64)).save(target)
    content = target.read_bytes()
    target.write_bytes(content[: len(content) // 2] if broken == "truncated" else b"")
    options = {"source": "folder", "data_dir": image_folder, "classes": 3, "channels": 3, "size": 24, "steps": 6}
    status, printed = run(**options)
    assert status == 2
    assert "cross/3.jpg" in one_line(printed)
    status, printed = run(**options, on_bad_image="skip", workdir=run.workdir.with_name("skipping"))
    assert status == 0, printed
    assert "cross/3.jpg" in printed
    assert rows(run.workdir.with_name("skipping"))[-1]["step"] == 6


def test_images_of_one_pixel_and_of_twenty_thousand_train(run, image_folder):
    Image.new("RGB", (1, 1), "red").save(image_folder / "dot" / "one.png")
    Image.new("L", (20_000, 2)).save(image_folder / "dot" / "wide.png")
    status, printed = run(source="folder", data_dir=image_folder, classes=3, channels=3, size=24, steps=5)
    assert status == 0, printed


def test_a_file_in_the_place_of_the_workdir_stays(run):
    run.workdir.write_text("mine")
    status, printed = run()
    assert status == 2
    assert f"can't write the workdir {run.workdir}" in one_line(printed)
    assert run.workdir.read_text() == "mine"


def test_a_flag_without_a_value_and_an_unknown_flag_are_usage_errors(capsys):
    for arguments in (["--config.steps"], ["--confg=x"], []):
        with pytest.raises(SystemExit) as stopped:
            main.main(["--config=a", "--workdir=b", *arguments] if arguments else [])
        assert stopped.value.code == 2
    assert "--config.steps needs a value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("--epochs=3", "unrecognized flag --epochs; a field of the config is set by --config.epochs=3"),
        ("--prefligth", "unrecognized flag --prefligth; did you mean --preflight?"),
        ("more", "unrecognized argument 'more'"),
    ],
)
def test_an_unknown_flag_is_told_with_what_was_meant(argument, advice, capsys):
    with pytest.raises(SystemExit):
        main.main(["--config=a", "--workdir=b", argument])
    assert advice in capsys.readouterr().err


def test_help_lists_the_fields_of_an_experiment(capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main([f"--config={TINY}", "--help"])
    assert stopped.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "steps=20" in printed
    assert "network.channels=" in printed
    with pytest.raises(SystemExit):
        main.main(["--config=nothing.py", "--help"])
    assert "nothing.py" in capsys.readouterr().err


def subprocess_run(workdir, *fields, start=("-m", "jaxvision.main")):
    command = [sys.executable, *start, f"--config={TINY}", f"--workdir={workdir}", *fields]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_rows(workdir, process, count):
    """Returns when the log has so many rows, or the process has ended."""
    path = workdir / "metrics.jsonl"
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= count):
        os.sched_yield()


def test_a_signal_in_the_last_step_leaves_its_evaluation_to_the_same_command(run, monkeypatch):
    def at_the_end(signals, step):
        signals.name = "SIGTERM" if step == 4 else None
        return step == 4

    fields = {"steps": 4, "checkpoint": 4, "evaluate": 4, "log": 2}
    with monkeypatch.context() as patched:
        patched.setattr(interruption.Interruption, "requested", at_the_end)
        status, printed = run(**fields)
    assert status == main.INTERRUPTED, printed
    assert "stopped by SIGTERM at step 4 of 4" in printed
    status, printed = run(**fields)
    assert status == 0, printed
    assert [row["step"] for row in rows(run.workdir) if "test/accuracy" in row] == [4]


def test_a_workdir_that_is_moved_under_a_run_ends_it_and_is_not_made_anew(run, monkeypatch):
    def move(signals, step):
        if step == 3:
            run.workdir.rename(run.workdir.with_name("elsewhere"))
        return False

    monkeypatch.setattr(interruption.Interruption, "requested", move)
    status, printed = run(steps=8, checkpoint=2, evaluate=4, log=2)
    assert status == 2
    assert "run was moved or removed while the run was in it" in one_line(printed)
    assert [path.name for path in run.workdir.parent.iterdir()] == ["elsewhere"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_how_to_go_on_and_the_same_command_does(tmp_path, number):
    fields = ["--config.steps=400", "--config.log=1", "--config.checkpoint=1000", "--config.evaluate=1000"]
    process = subprocess_run(tmp_path / "run", *fields)
    wait_for_rows(tmp_path / "run", process, 20)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == main.INTERRUPTED, printed
    stopped = re.search(r"stopped by (SIG\w+) at step (\d+) of 400; .*The same command goes on from there", printed)
    assert stopped
    assert stopped[1] == signal.Signals(number).name
    process = subprocess_run(tmp_path / "run", *fields)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert f"going on from step {stopped[2]} of 400" in printed
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row] == list(range(1, 401))


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_checkpoints_before_it_stay(tmp_path):
    process = subprocess_run(tmp_path / "run", "--config.steps=5")
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed

    small_files = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (7_000, 7_000)); "
    small_files += "runpy.run_module('jaxvision.main', run_name='__main__', alter_sys=True)"
    fork = ["--fork", "--config.steps=15"]
    process = subprocess_run(tmp_path / "run", *fork, start=("-c", small_files))
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2, printed
    assert re.search(r"checkpoint .*checkpoints/10 could not be written", one_line(printed))
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdigit()] == ["5"]
    process = subprocess_run(tmp_path / "run", *fork)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "going on from step 5 of 15" in printed
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row] == [5, 10, 15]

"""The predict command: the probabilities of the evaluation, a row an image, whatever the files are like."""

import csv
import json
import re
import shutil
import sys
import tracemalloc
from itertools import islice
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from finished_run import CLASSES, finished_run, noise, one_line, save
from PIL import Image

from jaxvision import predict
from jaxvision.data import media, placement
from jaxvision.data.decode import decode
from jaxvision.errors import ConfigError
from jaxvision.experiment import Selection, task_of
from jaxvision.run import devices, evaluation, prediction, records, restore
from jaxvision.types import Canvas, ClassScores

SIZE = 24
CANVAS = Canvas(np.zeros((SIZE, SIZE, 3), np.uint8), (SIZE, SIZE), (SIZE, SIZE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


@pytest.fixture
def run(finished, tmp_path, capfd, caplog):
    """Runs the command; gives the exit status and what it printed."""

    def command(*options, output=tmp_path / "out.jsonl", workdir=finished):
        capfd.readouterr()
        status = predict.main([f"--workdir={workdir}", *map(str, options), f"--output={output}"])
        printed = capfd.readouterr()
        return status, printed.out + printed.err + caplog.text

    command.output = tmp_path / "out.jsonl"
    return command


def read(path):
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def best(row):
    return row["classes"][0]["name"], row["classes"][0]["probability"]


def rows_of_the_evaluation(workdir, which):
    """Predicted class and confidence by file name, as the evaluation has them."""
    run, mesh = restore.restore(workdir), devices.device_mesh()
    saved = restore.load_checkpoint(run, which, mesh)
    stream = run.experiment.evaluations["test"].stream
    evaluator = evaluation.Evaluator(task_of(run.experiment), {"test": run.experiment.evaluations["test"]})
    evaluator.evaluate(saved.state.averaged, lambda stream: stream.batches(0))
    rows = evaluator.newest.results["test"].rows
    return {
        stream.about().name(int(index)): (CLASSES[predicted], float(confidence))
        for index, predicted, confidence in zip(rows["index"], rows["predicted"], rows["confidence"], strict=True)
    }


@pytest.mark.parametrize("options", [[], ["--checkpoint=4", "--batch-size=5", "--eval=test"]])
def test_probabilities_are_those_of_the_evaluation(run, finished, options):
    folder = finished.parent / "images"
    status, said = run(folder, *options)
    assert status == 0, said
    expected = rows_of_the_evaluation(finished, 4 if options else "best")
    found = {str(Path(row["file"]).relative_to(folder)): best(row) for row in read(run.output)}
    assert found.keys() == expected.keys()
    assert len(found) == 24
    for name, (predicted, confidence) in expected.items():
        assert found[name][0] == predicted
        assert found[name][1] == pytest.approx(confidence, abs=1e-6)
    assert len({probability for _, probability in found.values()}) > 20


def test_two_thousand_files_with_a_broken_one_in_the_middle(run, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    encoded = [save(tmp_path / "kinds" / f"{i}.png", noise(i, 8, 8)).read_bytes() for i in range(30)]
    for i in range(2000):
        (folder / f"{i:04}.png").write_bytes(encoded[i % 30])
    (folder / "1000.png").write_bytes(encoded[10][:60])
    status, said = run(folder)
    assert status == 0, said
    assert re.search(r"^jaxvision: skipped .*many/1000.png: can't be decoded: .+$", said, re.MULTILINE)
    assert "jaxvision: 1 of 2,000 files could not be read" in said
    assert "out.jsonl: 1,999 predictions, by step " in said
    rows = read(run.output)
    assert [row["file"] for row in rows] == [str(folder / f"{i:04}.png") for i in range(2000) if i != 1000]
    kinds = {}
    for row in rows:  # the same image gives the same row, wherever it stands in its batch
        kinds.setdefault(int(Path(row["file"]).stem) % 30, []).append(best(row)[1])
    assert all(np.ptp(same) < 1e-6 for same in kinds.values())
    assert len({same[0] for same in kinds.values()}) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kinds", "many", "out.jsonl"]

    status, said = run(folder, output=tmp_path / "out.csv")
    assert status == 0, said
    lines = table(tmp_path / "out.csv")
    assert list(lines[0]) == ["file", "frame", *(f"{what}_{i}" for i in (1, 2, 3) for what in ("class", "probability"))]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert (line["file"], line["frame"]) == (row["file"], "")
        told = [(line[f"class_{i}"], float(line[f"probability_{i}"])) for i in (1, 2, 3)]
        assert told == [(each["name"], each["probability"]) for each in row["classes"]]


def opened(finished):
    return prediction.load(finished)


def stream_of(model, pictures):
    images = prediction.readable(media.decoded(pictures, model.preprocessing), pytest.fail)
    return model.stream(images, Selection(model.classes))


def test_memory_does_not_grow_with_the_number_of_files(finished, tmp_path):
    model = opened(finished)
    data = save(tmp_path / "a.png", noise(0)).read_bytes()
    pictures = (media.Picture(f"{i}.png", None, lambda: bytes(bytearray(data))) for i in range(2000))
    found = stream_of(model, pictures)
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(found, 200)) == 200
        tracemalloc.reset_peak()
        assert sum(1 for _ in islice(found, 900)) == 900
        _, before = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert sum(1 for _ in found) == 900
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    canvases = 900 * SIZE * SIZE * 3
    assert peak - before < canvases / 10


def test_files_are_read_a_few_batches_ahead_at_most(finished, tmp_path):
    model, asked = opened(finished), 0

    def pictures():
        nonlocal asked
        while True:
            asked += 1
            yield media.Picture(f"{asked}.png", None, lambda: noise(0))

    found = stream_of(model, pictures())
    for done in range(1, 100):
        next(found)
        assert asked <= done + 4 * 16
    found.close()


def test_folders_are_searched_in_order_and_what_is_named_comes_as_named(run, tmp_path):
    for name in ("b/2.png", "b/10.PNG", "a.png", "b/c/1.png", "z.jpeg", ".hidden/1.png", "b/.hidden.png", "notes.txt"):
        path = tmp_path / "found" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(0)).save(path, format="JPEG" if path.suffix == ".jpeg" else "PNG")
    (tmp_path / "found" / "b" / "up").symlink_to(tmp_path / "found")
    shutil.copy(tmp_path / "found" / "a.png", tmp_path / "without_suffix")
    status, said = run(tmp_path / "without_suffix", "--top=1", tmp_path / "found", tmp_path / "found" / "a.png")
    assert status == 0, said
    names = [str(Path(row["file"]).relative_to(tmp_path)) for row in read(run.output)]
    inside = ["a.png", "b/10.PNG", "b/2.png", "b/c/1.png", "z.jpeg"]
    assert names == ["without_suffix", *(f"found/{name}" for name in inside), "found/a.png"]
    assert all(len(row["classes"]) == 1 for row in read(run.output))


def clip(path, frames, rotation=0):
    """A video without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "png", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if path.suffix == ".mkv" else "rgb24"
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["clip.mkv", "clip.MOV"])
def test_frames_of_a_video_are_predicted_as_images_of_the_same_pixels(run, tmp_path, name):
    frames = [noise(i, 32, 48) for i in range(20)]
    still = [save(tmp_path / "stills" / f"{i:02}.png", pixels) for i, pixels in enumerate(frames)]
    video = clip(tmp_path / name.lower(), frames).rename(tmp_path / name)
    status, said = run(still[0], video, still[1])
    assert status == 0, said
    rows = read(run.output)
    assert [row.get("frame") for row in rows] == [None, *range(20), None]
    assert {row["file"] for row in rows[1:21]} == {str(video)}
    status, said = run(tmp_path / "stills")
    for row, image in zip(rows[1:21], read(run.output), strict=True):
        assert best(row) == (best(image)[0], pytest.approx(best(image)[1], abs=1e-6))

    status, said = run(video, "--every=8", output=tmp_path / "out.csv")
    assert status == 0, said
    assert [line["frame"] for line in table(tmp_path / "out.csv")] == ["0", "8", "16"]
    assert float(table(tmp_path / "out.csv")[1]["probability_1"]) == best(rows[9])[1]


CODECS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp"), ("mpeg4", "mp4")),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), ("mpeg2video", "mpegts")),
    **dict.fromkeys((".mpg", ".mpeg"), ("mpeg1video", "mpeg")),
    **{".avi": ("mpeg4", "avi"), ".mkv": ("mpeg4", "matroska"), ".webm": ("libvpx", "webm")},
    **{".wmv": ("wmv2", "asf"), ".flv": ("flv", "flv")},
}


@pytest.mark.parametrize("suffix", media.VIDEOS)
def test_a_video_of_every_suffix_is_decoded(suffix, tmp_path):
    codec, kind = CODECS[suffix]
    pixels = np.full((48, 64, 3), (200, 40, 90), np.uint8)
    path = tmp_path / f"clip{suffix.upper()}"
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(30):
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    assert list(media.files([tmp_path])) == [path]
    frames = [picture.read() for picture in media.pictures([path])]
    assert len(frames) == 30
    assert np.abs(np.mean(frames, (0, 1, 2)) - (200, 40, 90)).max() < 8


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_every_frame_of_an_animation_is_taken_on_request(run, tmp_path, suffix):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    frames = [Image.new("RGB", (30, 20), colour) for colour in colours]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == ".webp" else {}))
    shown = list(media.pictures([path], animated=True))
    assert [picture.frame for picture in shown] == [0, 1, 2, 3]
    for picture, colour in zip(shown, colours, strict=True):
        np.testing.assert_array_equal(picture.read(), np.full((20, 30, 3), colour))
    assert [picture.frame for picture in media.pictures([path])] == [None]
    save(tmp_path / "still.png", noise(0))
    status, said = run(path, tmp_path / "still.png", "--animated", "--every=3")
    assert status == 0, said
    assert [row.get("frame") for row in read(run.output)] == [0, 3, None]


def test_a_broken_animation_is_reported(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    [picture] = media.pictures([tmp_path / "a.gif"], animated=True)
    with pytest.raises(ValueError, match="not an image|can't be decoded"):
        picture.read()


def test_files_that_are_left_out_are_counted_by_suffix(run, tmp_path):
    save(tmp_path / "in/a.png", noise(0))
    for name in ("b.heic", "c.HEIC", "deep/notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    status, said = run(tmp_path / "in")
    assert status == 0, said
    assert "jaxvision: left out 3 of 4 files: 2 .heic, 1 .txt\n" in said
    (tmp_path / "in/a.png").unlink()
    status, said = run(tmp_path / "in")
    assert status == 2
    assert one_line(said).endswith("; left out 3 of 3 files: 2 .heic, 1 .txt")


def test_the_pictures_of_a_run_are_not_among_the_images_below_a_folder(run, finished, tmp_path):
    save(tmp_path / "in/a.png", noise(0))
    save(shutil.copytree(finished, tmp_path / "in/run") / "report/curves.png", noise(1))
    status, said = run(tmp_path / "in")
    assert status == 0, said
    assert "jaxvision: left out 1 of 2 files: 1 workdir of a run\n" in said
    assert [row["file"] for row in read(run.output)] == [str(tmp_path / "in/a.png")]


def test_an_image_that_takes_too_much_memory_is_reported():
    def too_much(data):
        raise MemoryError

    [found] = media.decoded([media.Picture("a.png", None, lambda: b"")], too_much)
    assert (found.canvas, found.error) == (None, "there is not enough memory for it")


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_video_is_shown_upright(tmp_path, rotation):
    """FFmpeg's angle turns the picture counterclockwise when it is shown."""
    pixels = noise(0, 32, 48)
    pixels[:8, :8] = 255
    video = clip(tmp_path / "turned.mov", [pixels] * 2, rotation)
    with av.open(str(video)) as container:
        noted = next(container.decode(video=0)).rotation
    assert abs(noted) == abs(rotation)
    first, second = (picture.read() for picture in media.pictures([video]))
    np.testing.assert_array_equal(first, np.rot90(pixels, noted // 90))
    np.testing.assert_array_equal(first, second)


def test_a_broken_video_is_reported_and_the_others_go_on(run, tmp_path):
    whole = clip(tmp_path / "b.mkv", [noise(i, 32, 48) for i in range(30)])
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    (tmp_path / "c.avi").write_bytes(b"")
    status, said = run(tmp_path)
    assert status == 0, said
    assert re.search(r"skipped .*a\.mp4: Invalid data found", said)
    assert re.search(r"skipped .*c\.avi: .+", said)
    assert "2 of 3 files could not be read" in said
    assert [row["file"] for row in read(run.output)] == [str(whole)] * 30


def test_frames_that_the_stream_refuses_are_told_once():
    pictures = [media.Picture("a.mp4", i, lambda: noise(0, 40, 40)) for i in range(5)]
    pictures += [media.Picture("b.png", None, lambda: noise(0, 20, 20))]
    told = []
    decoded = media.decoded(pictures, lambda data: decode(data, placement.keep(32)))
    kept = [where for where, _ in prediction.readable(decoded, lambda file, error: told.append((file, error)))]
    assert kept == [("b.png", None)]
    assert [file for file, _ in told] == ["a.mp4"]
    assert told[0][1].startswith("frame 0: ")
    assert "40" in told[0][1]


def test_strict_ends_at_the_first_bad_file_and_leaves_nothing(run, tmp_path):
    for i in range(40):
        save(tmp_path / "in" / f"{i:02}.png", noise(i))
    (tmp_path / "in" / "30.png").write_bytes(b"broken")
    status, said = run(tmp_path / "in", "--strict")
    assert status == 2
    assert "in/30.png: not an image" in one_line(said)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_can_not_be_predicted_is_told_in_one_line_and_leaves_the_output_as_it_was(run, tmp_path):
    run.output.write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"broken")
    image = save(tmp_path / "a.png", noise(0))
    cases = [
        ([tmp_path / "gone"], f"there is no file or folder {tmp_path / 'gone'}"),
        ([tmp_path / "empty"], f"there is no image or video in {tmp_path / 'empty'} (known are .jpg, "),
        ([image, "--eval=tset"], "has no evaluation 'tset'; there are: blind, test"),
        ([image, "--eval=blind"], "evaluation 'blind' can't take other images; these can: test"),
        ([image, "--checkpoint=5"], "has no checkpoint 5; there are: 4, 8, 12"),
        ([image, "--config.network.channels=(4, 6)"], "is of another model or optimizer"),
        ([image, "--config.colour=1"], "config has no field 'colour'"),
        ([image, f"--draw={tmp_path / 'drawn'}"], "--draw is for a model whose predictions can be drawn"),
    ]
    for options, message in cases:
        status, said = run(*options)
        assert status == 2
        assert message in one_line(said)
    status, said = run(tmp_path / "bad")
    assert status == 2
    assert "jaxvision: none of the files could be read (1)" in said
    assert run.output.read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output=out.txt"], "'out.txt' must end in .csv or .jsonl"),
        (["--output=nowhere/out.csv"], "there is no folder nowhere to write out.csv into"),
        (["--output=out.csv", "--top=0"], "'0' is no whole number from 1 on"),
        (["--output=out.csv", "--score=50"], "'50' is no number from 0 to 1"),
        (["--output=out.csv", "--score=nan"], "'nan' is no number from 0 to 1"),
        (["--output=out.csv", "--every=x"], "'x' is no whole number from 1 on"),
        (["--output=out.csv", "--checkpoint=newest"], "'newest' is none of: best, latest, the number of a step"),
    ],
)
def test_usage_errors(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        predict.main(["--workdir=x", "a.png", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_videos_without_what_reads_them_name_the_extra(run, tmp_path, monkeypatch):
    video = clip(tmp_path / "clip.mkv", [noise(0, 32, 48)])
    monkeypatch.setitem(sys.modules, "av", None)
    status, said = run(video)
    assert status == 2
    assert "pip install 'jaxvision[video]'" in one_line(said)


def test_a_workdir_alone_is_enough_and_stays_as_it_is(run, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "data_dir": str(tmp_path / "gone")}))
    (copy / "checksums.json").unlink()  # as who edits a config by hand is told to
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    image = save(tmp_path / "a.png", noise(1))
    status, said = run(image)
    expected = read(run.output)
    status, said = run(image, workdir=copy)
    assert status == 0, said
    assert read(run.output) == expected
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_the_record_of_a_classifier():
    def told(logits, classes, top_k):
        return records.class_record(ClassScores(logits), CANVAS, Selection(classes, top_k))["classes"]

    record = {"classes": told(np.log(np.array([0.1, 0.6, 0.3], np.float32)), "abc", 2)}
    assert [each["name"] for each in record["classes"]] == ["b", "c"]
    np.testing.assert_allclose([each["probability"] for each in record["classes"]], [0.6, 0.3], rtol=1e-6)
    even = np.log(np.array([0.25, 0.5, 0.25], np.float32))
    assert [each["name"] for each in told(even, "abc", 3)] == ["b", "a", "c"]
    assert told(np.full(3, np.nan, np.float32), "abc", 1)[0]["probability"] is None
    first, second = (each["probability"] for each in told(np.array([0.0, -1e-12], np.float64), "ab", 2))
    assert first - second == pytest.approx(5e-13, rel=1e-3)
    half = jax.device_get(jax.numpy.array([1.0, 2.0], jax.numpy.bfloat16))
    total = sum(each["probability"] for each in told(half, "ab", 2))
    assert total == pytest.approx(1, abs=1e-6)


def test_predictions_that_can_not_be_written_are_told():
    message = "of type dict can't be written; those of type ClassScores, Detections, PixelScores can"
    with pytest.raises(ConfigError, match=message):
        records.output_of({}, ("a", "b"))
    with pytest.raises(ConfigError, match="scores for 3 classes, the data have 2"):
        records.output_of(ClassScores(jax.ShapeDtypeStruct((4, 3), np.float32)), ("a", "b"))

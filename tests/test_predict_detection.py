"""The predict command and the report of a detector, whose boxes are known."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
from boxes_experiment import CLASSES, COUNT, SCORES, scene
from finished_run import one_line, save
from matplotlib.colors import to_rgb
from PIL import Image
from pycocotools.coco import COCO

from jaxvision import main, predict
from jaxvision.draw.boxes import with_boxes
from jaxvision.draw.palette import COLOURS
from jaxvision.errors import ConfigError
from jaxvision.experiment import Selection
from jaxvision.run import films, prediction, records
from jaxvision.types import Canvas, Detections

HERE = Path(__file__).parent
SIZE = 32


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of `boxes_experiment.py`, and beside it its scenes as files."""
    place = tmp_path_factory.mktemp("detector")
    assert main.main([f"--config={HERE / 'boxes_experiment.py'}", f"--workdir={place / 'run'}"]) == 0
    for i in range(COUNT):
        save(place / "scenes" / f"{i}.png", scene(i)[0])
    return place / "run"


@pytest.fixture
def run(finished, tmp_path, capfd):
    def command(*options, name="out.jsonl"):
        output = tmp_path / name
        capfd.readouterr()
        status = predict.main([f"--workdir={finished}", *map(str, options), f"--output={output}"])
        printed = capfd.readouterr()
        return status, printed.out + printed.err, output

    return command


def expected(i, least=0.0):
    """What there is in a scene, as (label, score, box)."""
    return [(CLASSES[k], SCORES[k], box) for k, box in enumerate(scene(i)[1]) if SCORES[k] >= least]


def check(objects, i, least=0.0):
    """A pixel of the canvas is up to five of the file: so exact boxes can be, and no more."""
    height, width = scene(i)[0].shape[:2]
    there = expected(i, least)
    assert [each["label"] for each in objects] == [label for label, _, _ in there]
    for each, (label, score, box) in zip(objects, there, strict=True):
        assert each["score"] == pytest.approx(score)
        assert each["category_id"] == CLASSES.index(label) + 1
        limit = np.array([width, height] * 2) / SIZE
        assert (np.abs(each["box"] - box) <= 1.01 * limit).all()


def test_a_run_of_a_detector_has_its_figures_and_pictures(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    figures = next(row for row in rows if "test/AP" in row)
    assert figures["test/AP50"] > 0.9
    assert figures["test/recall"] == pytest.approx(12 / 15)  # blue has a score below 0.5
    pictures = {path.name for path in (finished / "report").iterdir()}
    assert {f"test_{what}.png" for what in ("predictions", "precision_recall", "confusion")} <= pictures


def test_boxes_are_in_pixels_of_the_files(run, finished):
    status, said, output = run(finished.parent / "scenes", "--score=0")
    assert status == 0, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(row["file"]).name for row in rows] == [f"{i}.png" for i in range(COUNT)]
    for i, row in enumerate(rows):
        assert (row["height"], row["width"]) == scene(i)[0].shape[:2]
        check(row["objects"], i)
    assert sum(len(row["objects"]) for row in rows) == 15

    status, said, output = run(finished.parent / "scenes")
    for i, line in enumerate(output.read_text().splitlines()):
        check(json.loads(line)["objects"], i, least=0.3)


def test_a_table_has_a_row_an_object(run, finished, tmp_path):
    dark = save(tmp_path / "dark.png", np.zeros((40, 50, 3), np.uint8))
    status, said, output = run(finished.parent / "scenes" / "1.png", dark, "--score=0", name="out.csv")
    assert status == 0, said
    assert "2 predictions" in said
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "frame", "label", "score", "x0", "y0", "x1", "y1"]
    assert [(Path(row["file"]).name, row["label"]) for row in rows] == [("1.png", name) for name in CLASSES]
    for row, (label, score, box) in zip(rows, expected(1), strict=True):
        assert float(row["score"]) == pytest.approx(score)
        assert np.abs([float(row[side]) for side in ("x0", "y0", "x1", "y1")] - box).max() < 6, label


def test_a_json_file_is_read_by_pycocotools(run, finished):
    status, said, output = run(finished.parent / "scenes", "--score=0.5", name="out.json")
    assert status == 0, said
    data = COCO(str(output))
    assert [data.cats[k]["name"] for k in (1, 2, 3)] == list(CLASSES)
    assert [Path(data.imgs[i + 1]["file_name"]).name for i in range(COUNT)] == [f"{i}.png" for i in range(COUNT)]
    for i in range(COUNT):
        found = data.loadAnns(data.getAnnIds(imgIds=[i + 1]))
        objects = [
            {
                **each,
                "label": CLASSES[each["category_id"] - 1],
                "box": np.cumsum([each["bbox"][:2], each["bbox"][2:]], 0),
            }
            for each in found
        ]
        check([{**each, "box": each["box"].reshape(-1)} for each in objects], i, least=0.5)
        assert all(each["area"] == pytest.approx(each["bbox"][2] * each["bbox"][3], abs=0.01) for each in found)
    assert sorted(data.anns) == list(range(1, 13))
    status, said, output = run(finished.parent / "scenes", "--score=1", name="out.json")
    assert json.loads(output.read_text())["annotations"] == []


def clip(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_images_and_frames_are_drawn_in_their_own_size(run, finished, tmp_path):
    image = scene(0)[0][:60, :59]
    image[10:30, 20:50, 1] = 250
    video = clip(tmp_path / "clip.mkv", [image] * 2)
    (tmp_path / "a_bad.png").write_bytes(b"no image")
    first = finished.parent / "scenes" / "0.png"
    status, said, output = run(first, tmp_path / "a_bad.png", video, first, f"--draw={tmp_path / 'drawn'}")
    assert status == 0, said
    names = ["000000_0.png", "000001_clip.mp4", "000003_0.png"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == names
    with av.open(str(tmp_path / "drawn" / names[1])) as container:
        assert container.streams.video[0].average_rate == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(60, 60, 3)] * 2  # its last column twice: the codec needs even sides
    first, last = (np.asarray(Image.open(tmp_path / "drawn" / name).convert("RGB")) for name in (names[0], names[2]))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    brightness = np.array([[0.299, 0.587, 0.114]]).T  # the codec keeps this sharp, colours at half the resolution
    for pixels, row, seen in zip([first, *frames, last], rows, (np.eye(3), *[brightness] * 2, np.eye(3)), strict=True):
        assert pixels.shape[:2] == (row["height"], row["width"] + (pixels.shape[1] == 60))
        x0, _, x1, y1 = row["objects"][0]["box"]
        below = pixels[round(y1) - 1, round(x0) + 2 : round(x1) - 2].mean(0)
        colour = 255 * np.asarray(to_rgb(COLOURS[row["objects"][0]["category_id"] - 1]))
        assert np.abs((below - colour) @ seen).max() < 40
    assert all(np.abs(frame[:, :59].astype(int) - image).mean() > 2 for frame in frames)


def test_a_video_is_there_once_all_of_its_frames_are(tmp_path):
    picture = Image.new("RGB", (32, 24), (200, 30, 30))
    album = films.Album(tmp_path / "drawn")
    album.add(0, ("first.mp4", 0), picture)
    album.add(1, ("first.mp4", 1), picture.resize((40, 24)))
    album.add(2, ("second.mp4", 0), picture)
    with pytest.raises(KeyboardInterrupt), album:
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["000000_first.mp4"]
    with av.open(str(tmp_path / "drawn/000000_first.mp4")) as container:
        assert container.streams.video[0].average_rate == films.USUAL_RATE
        assert [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)] == [(24, 32, 3)] * 2
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(OSError, match="file"), films.Album(tmp_path / "file") as album:
        album.add(0, ("first.mp4", 0), picture)


def test_pictures_are_not_written_among_the_images_that_are_read(run, finished, tmp_path):
    photos = tmp_path / "photos"
    save(photos / "0.png", scene(0)[0])
    (tmp_path / "link").symlink_to(photos)
    for folder in (photos, photos / "drawn", tmp_path / "link" / "drawn"):
        status, said, output = run(photos, f"--draw={folder}")
        assert status == 2
        assert (
            one_line(said) == f"jaxvision: {folder} lies in {photos}, whose images are read: name a place outside of it"
        )
        assert not output.exists()
    status, said, output = run(photos / "0.png", f"--draw={photos}")
    assert one_line(said) == f"jaxvision: {photos} is the folder of {photos / '0.png'}, which is read: name another"
    assert [path.name for path in photos.iterdir()] == ["0.png"]
    status, said, output = run(photos, f"--draw={tmp_path / 'drawn'}")
    assert status == 0, said


def test_a_picture_that_can_not_be_drawn_or_has_a_long_name_costs_no_prediction(run, finished, tmp_path):
    long = save(tmp_path / "in" / ("猫" * 80 + ".png"), scene(0)[0])
    (tmp_path / "drawn" / "000000_0.png").mkdir(parents=True)
    first = finished.parent / "scenes" / "0.png"
    status, said, output = run(first, long, f"--draw={tmp_path / 'drawn'}")
    assert status == 0, said
    assert f"jaxvision: not drawn {first}: " in said
    assert len(output.read_text().splitlines()) == 2
    assert (tmp_path / "drawn" / f"000001_{'猫' * 66}.png").is_file()
    status, said, output = run(first, long, f"--draw={tmp_path / 'drawn'}", "--strict", name="strict.jsonl")
    assert status == 2
    assert f"{first}: it could not be drawn: " in one_line(said)


def test_images_on_canvases_of_two_shapes_come_in_their_order(finished, tmp_path, capfd):
    command = [
        f"--config={HERE / 'boxes_experiment.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.buckets=True",
        "--no-report",
    ]
    assert main.main(command) == 0
    scenes, output = finished.parent / "scenes", tmp_path / "out.jsonl"
    assert predict.main([f"--workdir={tmp_path / 'run'}", str(scenes), "--score=0", f"--output={output}"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(row["file"]).name for row in rows] == [f"{i}.png" for i in range(COUNT)]
    assert {row["height"] > row["width"] for row in rows} == {True, False}
    for i, row in enumerate(rows):
        there = [box for _, _, box in expected(i)]
        pixel = max(row["height"], row["width"]) / SIZE
        assert np.abs(np.array([each["box"] for each in row["objects"]]) - there).max() <= 1.01 * pixel
    figures = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(row for row in figures if "test/AP" in row)["test/AP50"] > 0.9


def test_what_a_model_is_given_beside_an_image_is_found_for_every_file(finished, tmp_path, capfd):
    command = [
        f"--config={HERE / 'boxes_experiment.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.given=True",
        "--no-report",
    ]
    assert main.main(command) == 0
    (finished.parent / "bad.png").write_bytes(b"no image")
    files = [finished.parent / "bad.png", finished.parent / "scenes"]
    status = predict.main([f"--workdir={tmp_path / 'run'}", *map(str, files), f"--output={tmp_path / 'out.jsonl'}"])
    assert status == 0, capfd.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == COUNT
    for i, row in enumerate(rows):
        there = [box + [-1, -1, 1, 1] for _, _, box in expected(i, least=0.3)]
        assert np.abs(np.array([each["box"] for each in row["objects"]]) - there).max() < 0.01


def test_large_images_are_seen_in_tiles(run, tmp_path):
    for i in range(COUNT):
        save(tmp_path / "large" / f"{i}.png", scene(i)[0].repeat(4, 0).repeat(4, 1))
    status, said, output = run(
        *(tmp_path / "large", "--tiles=96", "--tile-overlap=48", "--score=0", f"--draw={tmp_path / 'drawn'}")
    )
    assert status == 0, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    for i, row in enumerate(rows):
        assert (row["height"], row["width"]) == tuple(4 * side for side in scene(i)[0].shape[:2])
        there = expected(i)
        assert [each["label"] for each in row["objects"]] == [label for label, _, _ in there]
        for each, (_, score, box) in zip(row["objects"], there, strict=True):
            assert each["score"] == pytest.approx(score)
            assert np.abs(each["box"] - 4 * box).max() <= 3.01  # a pixel of the canvas
    with Image.open(tmp_path / "drawn" / "000000_0.png") as picture:
        assert picture.size == (rows[0]["width"], rows[0]["height"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tile-overlap=10"], "--tile-overlap= needs --tiles="),
        (["--tiles=64", "--tile-overlap=40"], "tiles of 64 pixels that overlap by 40: allowed are sizes from 32"),
        (["--tiles=0"], "'0' is no whole number from 1 on"),
        (["--tiles=64", "--tile-overlap=-1"], "'-1' is no whole number from 0 on"),
    ],
)
def test_tiles_that_can_not_be(run, flags, message, capfd):
    with pytest.raises(SystemExit):
        run("x.png", *flags)
    assert message in capfd.readouterr().err


def test_tiles_that_the_model_can_not_take_are_told_before_any_file_is_read(run, monkeypatch, tmp_path):
    save(tmp_path / "images" / "0.png", scene(0)[0])

    def refused(data, *_):
        raise ValueError("300x300 is larger than the canvas 128x128")

    original = prediction.Model.decoder
    monkeypatch.setattr(
        prediction.Model, "decoder", lambda model, t=None: original(model._replace(preprocessing=refused), t)
    )
    status, said, _ = run(tmp_path / "images", "--tiles=300")
    assert status != 0
    assert "the model takes no tiles of 300 pixels: 300x300 is larger than the canvas 128x128" in said


def test_a_table_has_no_polygons(run, tmp_path):
    status, said, output = run("x.png", "--masks=polygons", name="out.csv")
    assert (status, output.exists()) == (2, False)
    assert "--masks=polygons is for .jsonl and .json; a table has no masks" in said


def test_a_folder_that_can_not_be_made(run, tmp_path, capfd):
    with pytest.raises(SystemExit):
        run("x.png", f"--draw={tmp_path / 'no' / 'where'}")
    assert "neither a folder nor one that can be made" in capfd.readouterr().err


def found(boxes, labels=None, scores=None, valid=None):
    n = len(boxes)
    ones = np.ones(n)
    labels = np.zeros(n, int) if labels is None else np.array(labels)
    scores = ones if scores is None else np.array(scores, np.float32)
    return Detections(np.array(boxes, np.float32), labels, scores, ones > 0 if valid is None else np.array(valid))


def canvas(size, original_size):
    return Canvas(np.zeros((*size, 3), np.uint8), size, original_size)


def test_boxes_are_scaled_and_cut_and_what_is_outside_goes():
    boxes = [[-5, 10, 30, 40], [90, 10, 120, 40], [100, 10, 120, 40], [1, 1, 2, 2], [0, 0, 5, 5], [3, 3, 4, 4]]
    detections = found(boxes, scores=[0.9, 0.8, 0.7, 0.1, np.nan, 0.6], valid=[True] * 5 + [False])
    record = records.objects_record(detections, canvas((50, 100), (25, 400)), Selection(("a",), 5, 0.3))
    assert (record["height"], record["width"]) == (25, 400)
    assert [each["box"] for each in record["objects"]] == [[0, 5, 120, 20], [360, 5, 400, 20]]
    assert [each["score"] for each in record["objects"]] == pytest.approx([0.9, 0.8])


def test_a_class_that_the_data_do_not_have_is_told():
    with pytest.raises(ConfigError, match="finds classes 0 to 2, the data have 2"):
        records.objects_record(found([[0, 0, 5, 5]] * 2, [0, 2]), canvas((9, 9), (9, 9)), Selection(("a", "b")))


def test_boxes_are_drawn_around_their_pixels():
    picture = np.asarray(
        with_boxes(np.zeros((100, 80, 3), np.uint8), np.array([[10, 40, 30, 60.0]]), ["a"], ["#FF0000"])
    )
    red = (picture == [255, 0, 0]).all(-1)
    assert red[59, 10:30].all()
    assert red[40:60, 10].all()
    assert red[40:60, 29].all()
    assert not red[60:].any()
    assert not red[:, 30:].any()
    assert not red[:, :10].any()
    assert (picture[:40] == 255).all(-1).any()  # the label above it is white on red


def test_unreadable_files_are_told(run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    status, said, output = run(tmp_path / "bad.png", name="out.json")
    assert status == 2
    assert "none of the files could be read (1)" in said
    assert not output.exists()
    assert not list(tmp_path.glob("*.partial"))
    assert one_line(said.replace("jaxvision: skipped", "skipped"))


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (CLASSES[:2], "the metric has the classes red, green, the data have red, green, blue: 2 and 3"),
        (
            CLASSES[::-1],
            "the metric has the classes blue, green, red, the data have red, green, blue: in another order",
        ),
    ],
)
def test_figures_of_other_classes_than_the_data_have_are_refused_before_training(tmp_path, capfd, classes, told):
    file = tmp_path / "other.py"
    text = (HERE / "boxes_experiment.py").read_text()
    file.write_text(text.replace("detection(CLASSES)", f"detection({classes!r})"))
    command = [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    assert main.main(command) == 2
    assert f"evaluation test: {told}" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main.main([*command, "--preflight"]) == 2
    assert told in capfd.readouterr().out

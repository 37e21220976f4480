"""Labelling of a folder: what is found in scenes that are known, bad files, and runs after a run."""

import hashlib
import json
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from boxes_experiment import CLASSES, SCORES, scene
from finished_run import save
from labelled_scenes import SIDE, detector, scenes
from PIL import Image

from jaxvision.annotate import reading, schema, streaming, verdicts
from jaxvision.annotate.labelling import label
from jaxvision.annotate.listing import Worker
from jaxvision.annotate.makers import Makers
from jaxvision.annotate.promises import USUAL, Calibration
from jaxvision.annotate.records import ImageRecord
from jaxvision.annotate.store import Change, Store
from jaxvision.errors import ConfigError, DataError, WorkdirError


@pytest.fixture
def place(tmp_path):
    scenes(tmp_path / "images", range(6))
    return tmp_path


def run(place, output="output", models=None, **options):
    return label(place / "images", place / output, models or {"bright": detector()}, **options)


def stored(place, output="output", name="annotations.sqlite"):
    with Store(place / output / name, readonly=True) as store:
        return {record.name: record for record in store.records()}


def content(place, output="output"):
    """All files of the output with their bytes and times."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (place / output).iterdir()}


def check_scene(record, number, classes=CLASSES):
    """A pixel of the canvas is up to five of the file."""
    image, boxes = scene(number)
    height, width = image.shape[:2]
    expected = [(classes[k], SCORES[k], box) for k, box in enumerate(boxes) if SCORES[k] >= 0.3]
    assert [each.label for each in record.objects] == [name for name, _, _ in expected]
    for each, (_, score, box) in zip(record.objects, expected, strict=True):
        assert each.score == pytest.approx(score)
        assert (np.abs(np.array(each.box) - box) <= 1.01 * np.array([width, height] * 2) / SIDE).all()
    assert record.size == (height, width)


def test_every_scene_is_a_record_with_its_boxes(place):
    save(place / "images" / "dark.png", np.zeros((40, 50, 3), np.uint8))
    told = run(place)
    assert (told.images, told.without_objects, told.objects, told.status) == (7, 1, {"green": 6, "red": 6}, 0)
    found = stored(place)
    for number in range(6):
        name = f"{number:04}.png"
        check_scene(found[name], number)
        assert found[name].sha256 == hashlib.sha256((place / "images" / name).read_bytes()).hexdigest()
        (source,) = found[name].objects[0].sources
        assert source.model == "bright"
        assert json.loads(source.settings) == {"score": 0.3}
    assert found["dark.png"].objects == ()
    written = json.loads((place / "output" / "summary.json").read_text())
    assert written["objects"] == {"green": 6, "red": 6}


def test_a_second_run_changes_no_byte(place, monkeypatch):
    run(place)
    before = content(place)
    monkeypatch.setattr(reading, "pixels_of", None)  # nothing is decoded
    told = run(place)
    assert (told.labelled, told.passed) == (0, 6)
    assert content(place) == before


def test_what_changed_is_labelled_again(place):
    run(place)
    scenes(place / "images", [6])
    save(place / "images" / "0001.png", scene(7)[0])
    told = run(place)
    assert (told.labelled, told.passed) == (2, 5)
    check_scene(stored(place)["0001.png"], 7)
    assert run(place, models={"bright": detector(scale=2)}).labelled == 7, "another checkpoint"
    assert run(place, models={"bright": detector(scale=2)}, score=0.1).objects["blue"] > 0, "other settings"
    (place / "images" / "0000.png").unlink()
    told = run(place, score=0.1)
    assert told.problems == {"0000.png": "it is not there any more; its record stays"}
    assert "0000.png" in stored(place)


def test_a_run_that_was_stopped_goes_on(place, monkeypatch):
    class Stop(Exception):
        pass

    def started(total):
        done = []

        def progress(count):
            done.append(count)
            if len(done) == 3:
                raise Stop

        return progress

    run(place, "whole")
    monkeypatch.setattr("jaxvision.annotate.streaming.RECORDS", 1)
    with pytest.raises(Stop):
        run(place, started=started)
    assert 0 < len(stored(place)) < 6
    told = run(place)
    assert told.labelled + told.passed == 6 > told.labelled
    assert stored(place) == stored(place, "whole")
    assert (place / "output" / "summary.json").read_text() == (place / "whole" / "summary.json").read_text()


def test_a_run_waits_for_another_process_that_writes_for_long(place, monkeypatch):
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    monkeypatch.setattr(streaming, "ATTEMPTS", 10_000)
    with Store(place / "store", create=True) as store, Store(place / "store") as other:
        run = streaming.Run(store, streaming.labelling([], None, []), False, lambda count: None)
        run._waiting = [ImageRecord(f"{number}.png", "12", (9, 9)) for number in range(3)]
        with other.together():
            thread = threading.Thread(target=run._write)
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
        thread.join(60)
        assert (store.names(), run.labelled, run._waiting) == (["0.png", "1.png", "2.png"], 3, [])


def test_a_run_gives_up_at_last(place, monkeypatch):
    monkeypatch.setattr(schema, "PATIENCE", 0.01)
    with Store(place / "store", create=True) as store, Store(place / "store") as other:
        run = streaming.Run(store, streaming.labelling([], None, []), False, lambda count: None)
        run._waiting = [ImageRecord("0.png", "12", (9, 9))]
        with other.together(), pytest.raises(WorkdirError, match="another process has been writing"):
            run._write()


def test_workers_merged_are_one(place):
    run(place, "one")
    parts = [run(place, "many", worker=Worker(k, 3)) for k in range(3)]
    assert sum(part.images for part in parts) == 6 > max(part.images for part in parts)
    told = run(place, "many")
    assert (told.labelled, told.passed) == (0, 6)
    assert stored(place, "many") == stored(place, "one")
    before = content(place, "many")
    run(place, "many")
    assert content(place, "many") == before


def test_what_a_person_touched_stays(place):
    run(place)
    names = sorted(stored(place))
    with Store(place / "output" / "annotations.sqlite") as store:
        for name, action, value in ((names[0], "rename", "crimson"), (names[1], "reject", None)):
            record = store.get(name)
            store.apply(name, Change(action, record.objects[0].id, value), who="human:a", version=record.version)
        record = store.get(names[2])
        store.apply(names[2], Change("reviewed", None, True), who="human:a", version=record.version)
    before = stored(place)
    told = run(place, models={"bright": detector(scale=2)})
    after = stored(place)
    assert told.reviewed == 1
    assert after[names[2]] == before[names[2]]
    for name in names[:2]:
        assert len(after[name].objects) == len(before[name].objects), "a guess beside what a person decided"
        assert before[name].objects[0] in after[name].objects

    save(place / "images" / names[0], scene(9)[0])
    told = run(place, models={"bright": detector(scale=2)})
    assert list(told.problems) == [names[0]]
    assert "another since a person worked" in told.problems[names[0]]
    assert told.status == 1
    assert stored(place)[names[0]] == after[names[0]]

    told = run(place, models={"bright": detector(scale=2)}, redo=True)
    check_scene(stored(place)[names[0]], 9)
    assert (told.status, told.reviewed, told.objects) == (0, 0, {"green": 6, "red": 6})
    (backup,) = told.backups
    with Store(backup, readonly=True) as copy:
        assert copy.get(names[0]) == after[names[0]]


def test_what_a_person_does_during_a_redo_stays_and_is_told(place):
    run(place)
    first, last = sorted(stored(place))[0], sorted(stored(place))[-1]
    with Store(place / "output" / "annotations.sqlite") as store:
        store.apply(first, Change("reviewed"), who="human:a", version=1)

        def progress(count):
            if store.get(last).version == 1:
                store.apply(last, Change("accept", 1), who="human:a", version=1)

        models = {"bright": detector(scale=2)}
        told = label(place / "images", place / "output", models, redo=True, started=lambda total: progress)
        work = store.get(last)
    assert list(told.problems) == [last]
    assert "a person has worked on its record meanwhile" in told.problems[last]
    assert (work.version, work.objects[0].human) == (2, True)
    assert len(told.backups) == 1
    assert stored(place)[first].state == "new"


def bad_files(folder):
    """Files that are no images, or odd ones, by name; the reason that is told where they can't be read."""
    red = np.zeros((30, 40, 3), np.uint8)
    red[5:20, 10:30, 0] = 255
    picture = Image.fromarray(red)
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    for sub in ("a", "b"):
        picture.save(folder / sub / "same.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no image")
    picture.save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:60])
    picture.save(folder / "large.png")
    claimed = struct.pack(">4sII", b"IHDR", 20_000, 15_000) + b"\x08\x02\x00\x00\x00"
    data = (folder / "large.png").read_bytes()
    (folder / "large.png").write_bytes(data[:12] + claimed + struct.pack(">I", zlib.crc32(claimed)) + data[33:])
    picture.save(folder / "png.jpg", "PNG")
    picture.save(folder / "jpeg.txt", "JPEG")
    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(red[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    picture.save(
        folder / "animated.gif", save_all=True, append_images=[Image.new("RGB", (40, 30), c) for c in ("grey", "blue")]
    )
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    return {
        "empty.jpg": "0 bytes",
        "text.jpg": "not an image",
        "cut.png": "can't be decoded",
        "large.png": "300000000 pixels",
        "a/loop": "a link back",
        "nowhere.png": "leads nowhere",
    }


def test_bad_files_are_told_and_nothing_is_lost(tmp_path):
    (tmp_path / "images").mkdir()
    reasons = bad_files(tmp_path / "images")
    told = run(tmp_path)
    assert told.status == 1
    assert sorted(told.problems) == sorted(reasons)
    for name, reason in reasons.items():
        assert reason in told.problems[name]
        assert str(tmp_path) not in told.problems[name]
    found = stored(tmp_path)
    for name in ("a/same.png", "b/same.png", "png.jpg", "cmyk.jpg", "animated.gif"):
        assert [each.label for each in found[name].objects] == ["red"], name
    assert [each.label for each in found["sixteen.png"].objects] == ["red", "green"], "grey is bright in all channels"
    assert told.remarks == {"animated.gif": "of 3 frames or pages, the first is labelled"}
    assert told.left_out == {".txt": 1}
    before = content(tmp_path)
    again = run(tmp_path)
    assert again._replace(labelled=told.labelled, passed=told.passed) == told
    assert content(tmp_path) == before


def test_a_name_that_is_not_utf8_is_told(tmp_path):
    scenes(tmp_path / "images", range(1))
    os.rename(tmp_path / "images" / "0000.png", os.fsencode(tmp_path / "images") + b"/\xff.png")
    assert run(tmp_path).problems == {"\\xff.png": "its name is not UTF-8"}


def test_each_image_is_decoded_once(place, monkeypatch):
    counted, original = [], reading.pixels_of
    monkeypatch.setattr(reading, "pixels_of", lambda data: counted.append(1) or original(data))
    run(place, models={"bright": detector(), "other": detector(scale=2)}, tta=True, attributes=["colour"])
    assert len(counted) == 6
    for record in stored(place).values():
        for each in record.objects:
            assert each.attributes["colour"] == each.label
            assert [source.model for source in each.sources] == ["bright", "other"]


def test_several_models_and_mirrored_views_agree(place):
    run(place, "one")
    run(place, "two", models={"bright": detector(), "other": detector(scale=2)}, tta=True)
    for one, two in zip(stored(place, "one").values(), stored(place, "two").values(), strict=True):
        assert [each.label for each in one.objects] == [each.label for each in two.objects]
        limit = 0.5 * one.size[1] / SIDE  # mirrored, a box lies on other pixels of the canvas
        for first, second in zip(one.objects, two.objects, strict=True):
            assert first.score == pytest.approx(second.score)
            np.testing.assert_allclose(first.box, second.box, atol=limit)


def test_a_model_has_no_say_in_classes_that_it_can_not_find(place):
    models = {"bright": detector(), "other": detector(scale=2, classes=("red", "leaf", "blue"))}
    with pytest.raises(ConfigError, match=r"other has 1 class .* 'leaf'"):
        run(place, models=models)
    run(place, models=models, renamed={"leaf": ""})
    for record in stored(place).values():
        red, green = record.objects
        assert (red.score, green.score) == pytest.approx(SCORES[:2])
        assert (len(red.sources), len(green.sources)) == (2, 1)


def test_guesses_have_the_probabilities_of_a_calibrated_store(place):
    (place / "images" / "0005.png").rename(place / "later.png")
    run(place)
    with Store(place / "output" / "annotations.sqlite") as store:
        (made_by,) = {Makers(store.settings).of(record) for record in store.records()}
        calibration = Calibration(USUAL, {"": 2.0}, (), made_by=made_by)
        verdicts.apply(store, calibration)
    (place / "later.png").rename(place / "images" / "0005.png")
    run(place, worker=Worker(0, 1))
    run(place, worker=Worker(0, 2))
    expected = [1 / (1 + ((1 - score) / score) ** 0.5) for score in SCORES[:2]]
    for record in (*stored(place).values(), *stored(place, name="annotations.0-of-2.sqlite").values()):
        assert [each.probability for each in record.objects] == pytest.approx(expected, abs=1e-4)
    run(place, models={"bright": detector(scale=2)})
    assert {each.probability for record in stored(place).values() for each in record.objects} == {None}
    run(place, attributes=["colour"])
    for record in stored(place).values():
        assert [each.probability for each in record.objects] == pytest.approx(expected, abs=1e-4)


def test_only_some_classes_are_written(place):
    told = run(place, renamed={"red": "crimson"}, classes=["crimson"])
    assert told.objects == {"crimson": 6}
    with pytest.raises(ConfigError, match="'crimsn' is no class of bright; did you mean 'crimson'"):
        run(place, renamed={"red": "crimson"}, classes=["crimsn"])


def test_the_output_lies_outside(place):
    with pytest.raises(ConfigError, match="name a place outside"):
        run(place, "images/labels")
    with pytest.raises(ConfigError, match="name a place outside"):
        run(place, "images")
    assert not (place / "images" / "annotations.sqlite").exists()


def test_a_store_is_of_one_folder(place):
    run(place)
    scenes(place / "others", range(1))
    with pytest.raises(ConfigError, match="name another --output"):
        label(place / "others", place / "output", {"bright": detector()})
    (place / "images").rename(place / "moved")
    assert label(place / "moved", place / "output", {"bright": detector()}).passed == 6


def test_another_file_is_no_store(place):
    (place / "output").mkdir()
    (place / "output" / "annotations.sqlite").write_text("notes" * 100)
    with pytest.raises(DataError, match="no store"):
        run(place)
    assert (place / "output" / "annotations.sqlite").read_text() == "notes" * 100

"""Predictions beside files that were made to do harm: each is named, and the others have their rows."""

import csv
import json
import os
import struct

import hostile_files
import pytest
from finished_run import finished_run, noise, one_line, save

from jaxvision import predict
from jaxvision.errors import cut, printable, shown
from jaxvision.run import first_use, records, restore

LONG = "x" * 250


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


def images(folder):
    """Two sound images, one with a name that steers a terminal, and seven of other kinds."""
    save(folder / "a.png", noise(0))
    save(folder / "z\n\x1b[31m\u202e.png", noise(1))
    contents = {
        "b.png": hostile_files.png(1, 1_000_000),
        "c.webp": hostile_files.webp(12_000),
        "d.gif": hostile_files.gif(13_000, 1),
        "e.jpg": hostile_files.jpeg(65_500),
        "f.tif": b"II*\0" + struct.pack("<I", 8) + b"\xff\xff" * 40,
        "g.png": b"",
        f"{LONG}.png": b"junk",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


def test_hostile_images_are_named_and_cost_no_other_prediction(finished, tmp_path, capfd):
    folder, output = tmp_path / "images", tmp_path / "out.jsonl"
    bad = images(folder)
    os.mkfifo(folder / "pipe.png")
    argv = [f"--workdir={finished}", str(folder), f"--output={output}"]
    assert predict.main(argv) == 0
    said = capfd.readouterr().err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [os.path.basename(row["file"])[0] for row in rows] == ["a", "z"]
    assert [name for name in bad if said.count(f"skipped {folder}/{name}: ") != 1] == []
    assert "7 of 9 files could not be read" in said
    assert "left out 1 of 10 files: 1 no regular file" in said
    assert predict.main([*argv, "--strict"]) == 2
    assert len(output.read_text().splitlines()) == 2


@pytest.mark.parametrize("make", [hostile_files.pipe, hostile_files.device], ids=["pipe", "device"])
def test_a_file_without_end_is_told(finished, tmp_path, capfd, make):
    make(tmp_path / "a.png")
    save(tmp_path / "b.png", noise(0))
    argv = [f"--workdir={finished}", str(tmp_path / "a.png"), str(tmp_path / "b.png"), f"--output={tmp_path}/o.csv"]
    assert predict.main(argv) == 0
    assert f"skipped {tmp_path}/a.png: " in capfd.readouterr().err
    assert (tmp_path / "o.csv").read_text().count("\n") == 2


def test_what_is_said_of_a_name_is_one_line_that_steers_nothing(finished, tmp_path, capfd):
    name = tmp_path / "a\n\x1b[2J\u202eb.png"
    name.write_bytes(b"junk")
    assert predict.main([f"--workdir={finished}", str(name), f"--output={tmp_path}/o.csv"]) == 2
    said = capfd.readouterr().err
    assert rf"{tmp_path}/a \x1b[2J\u202eb.png: not an image" in said
    assert not set("\x1b\u202e") & set(said)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "@SUM(1+1)", "+1(2)", "-2!A1", "\t=A(1)"])
def test_a_name_that_a_spreadsheet_would_run_is_a_text(name):
    assert records.cell(name) == f"'{name}"


@pytest.mark.parametrize("value", ["-", "+", "-1.png", "@home.png", "=", "a=(1)", -0.5, None, 3])
def test_any_other_value_of_a_table_is_as_it_is(value):
    assert records.cell(value) is value


def test_a_table_keeps_names_of_several_lines(finished, tmp_path):
    save(tmp_path / 'a\n"b",c.png', noise(0))
    assert predict.main([f"--workdir={finished}", str(tmp_path / 'a\n"b",c.png'), f"--output={tmp_path}/o.csv"]) == 0
    with (tmp_path / "o.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [str(tmp_path / 'a\n"b",c.png')]


def test_code_of_a_workdir_from_elsewhere_is_told_once(finished, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path))
    for _ in range(3):
        restore.restore(finished)
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.startswith(f"{finished}/experiment.py is run as a program, and was not trained here")
    caplog.clear()
    experiment = tmp_path / "mine.py"
    experiment.write_text("a = 1\n")
    assert first_use.note(experiment)
    assert not first_use.note(experiment)
    experiment.write_text("a = 2\n")
    assert first_use.note(experiment)


def test_a_cache_that_can_not_be_written_ends_nothing(finished, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "file"))
    restore.restore(finished)
    assert "is run as a program" in caplog.text


def test_texts_of_messages():
    assert printable("a\x1b[31m\u202eb\r\u200dc\n") == "a\\x1b[31m\\u202eb\\r\u200dc\n"
    assert printable("naïve 日本 مرحبا") == "naïve 日本 مرحبا"
    assert cut("abcdefghij" * 100, 30) == "abcdefghijabcdefghij...fghij"[:20] + "..." + ("abcdefghij" * 100)[-7:]
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) <= 120
    assert len(shown({"a" * 1000: list(range(10**6))})) <= 120
    assert shown([1, "a"]) == "[1, 'a']"
    assert one_line("jaxvision: a\n") == "jaxvision: a"

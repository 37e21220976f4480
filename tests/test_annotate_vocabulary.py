"""Names of classes of several models, and the listing of a folder."""

import os

import pytest

from jaxvision.annotate.listing import Worker, listing, worker
from jaxvision.annotate.vocabulary import read_map, vocabulary
from jaxvision.errors import ConfigError

MODELS = {"ssd": ("cat", "airplane", "tv"), "yolo": ("cat", "aeroplane", "tvmonitor")}


def test_classes_of_one_model_keep_their_names():
    found = vocabulary({"ssd": MODELS["ssd"]})
    assert found.classes == MODELS["ssd"]
    assert found.translations == ({name: name for name in MODELS["ssd"]},)


def test_the_map_names_what_others_call_otherwise():
    found = vocabulary(MODELS, {"aeroplane": "airplane", "tvmonitor": ""})
    assert found.classes == MODELS["ssd"]
    assert found.translations[1] == {"cat": "cat", "aeroplane": "airplane"}


def test_classes_that_the_map_does_not_name_are_told_with_the_nearest():
    with pytest.raises(ConfigError, match=r"yolo has 2 classes .*'aeroplane' \(nearest: 'airplane'\)") as told:
        vocabulary(MODELS)
    assert "'tvmonitor'" in str(told.value)
    with pytest.raises(ConfigError, match=r"yolo has 1 class .*'tvmonitor'"):
        vocabulary(MODELS, {"aeroplane": "airplane"})
    many = {"ssd": ("cat",), "other": tuple(f"class {k}" for k in range(99))}
    with pytest.raises(ConfigError, match="and 94 more"):
        vocabulary(many)


def test_a_class_of_the_map_that_no_model_has_is_told():
    with pytest.raises(ConfigError, match="'aeroplan', which is no class of ssd or yolo; did you mean 'aeroplane'"):
        vocabulary(MODELS, {"aeroplan": "airplane"})


def test_wanted_classes_are_those_of_the_map():
    found = vocabulary(MODELS, {"aeroplane": "airplane"}, ["airplane", "tv"])
    assert found.classes == ("airplane", "tv")
    assert found.translations == ({"airplane": "airplane", "tv": "tv"}, {"aeroplane": "airplane"})
    assert found.remarks == ("yolo has no class 'tv'; there are: cat, airplane, tvmonitor",)
    with pytest.raises(ConfigError, match="'aeroplane' is no class"):
        vocabulary(MODELS, {"aeroplane": "airplane"}, ["aeroplane"])


@pytest.mark.parametrize(
    "text",
    ["a=b,c d=e f,g=", '{"a": "b", "c d": "e f", "g": ""}', "a=b\n\nc d = e f\r\ng=\n"],
    ids=["pairs", "json", "lines"],
)
def test_a_map_is_pairs_or_a_file(tmp_path, text):
    (tmp_path / "map.txt").write_text(text)
    expected = {"a": "b", "c d": "e f", "g": ""}
    assert (read_map(text) if "," in text and text[0] == "a" else read_map(str(tmp_path / "map.txt"))) == expected


@pytest.mark.parametrize("text", ["a=b,c", "a=b,a=c", "=b", "none.json", '{"a": 1}', '{"a": "b", "a": "c"}', "{"])
def test_what_is_no_map_is_told(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    if text[0] == "{":
        (tmp_path / "map.json").write_text(text)
        text = "map.json"
    with pytest.raises(ConfigError):
        read_map(text)


def test_names_are_paths_in_order(tmp_path):
    for name in ("b.jpg", "a/same.png", "c/same.png", "c/d/e.JPG", "notes.txt", ".hidden.jpg", "clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "up").symlink_to("..")
    (tmp_path / "c" / "self.png").symlink_to("self.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "provenance.json").touch()
    found = listing(tmp_path)
    assert found.names == ("a/same.png", "b.jpg", "c/d/e.JPG", "c/same.png")
    assert found.left_out == {".mp4": 1, ".txt": 1, "workdir of a run": 1}
    assert set(found.problems) == {"c/up", "c/self.png"}
    with pytest.raises(ConfigError, match="no folder"):
        listing(tmp_path / "none")


def test_workers_part_the_images(tmp_path):
    for k in range(200):
        (tmp_path / f"{k}.png").touch()
    parts = [set(listing(tmp_path, Worker(k, 4)).names) for k in range(4)]
    assert sorted(name for part in parts for name in part) == sorted(os.listdir(tmp_path))
    assert all(30 < len(part) < 70 for part in parts)


def test_a_worker_is_of_a_number():
    assert worker("3/4") == Worker(3, 4)
    for text in ("4/4", "-1/4", "1", "1/0", "a/b", "0/99999", ""):
        with pytest.raises(ConfigError, match="0/N to N-1/N"):
            worker(text)

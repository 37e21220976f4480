"""Choice of images: expected errors by hand, the greedy choice against a plain loop, spread over clusters."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from jaxvision.annotate import __main__ as annotate
from jaxvision.annotate import choosing
from jaxvision.annotate.changes import Change
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.store import Store

SOURCE = Source("model", "0")
BOX = (0.0, 0.0, 1.0, 1.0)


def test_expected_errors_are_those_of_the_better_decision():
    objects = [
        Annotation(1, "cat", BOX, score=0.2, probability=0.9),
        Annotation(2, "cat", BOX, score=0.3),
        Annotation(3, "cat", BOX, probability=0.5),
        Annotation(4, "cat", BOX),
        Annotation(5, "cat", BOX, score=0.4, human=True),  # a note decides nothing
        Annotation(6, "cat", BOX, score=0.5, verdict="accepted"),
    ]
    assert choosing.expected_errors(objects) == pytest.approx(0.1 + 0.3 + 0.5 + 0.4)
    assert choosing.expected_errors([]) == 0


def plain(errors, features, count, reviewed):
    """As the docstring says it, without a running minimum."""
    every = np.concatenate([reviewed, features])
    scale = np.where(every.std(0) > 1e-9, every.std(0), np.inf)
    points, centres = features / scale, list(reviewed / scale)
    chosen = []
    for _ in range(min(count, len(points))):
        gains = [
            -1
            if i in chosen
            else (errors[i] + 1e-6) * (min(np.linalg.norm(point - c) for c in centres) if centres else 1)
            for i, point in enumerate(points)
        ]
        chosen.append(int(np.argmax(gains)))
        centres.append(points[chosen[-1]])
    return chosen


@pytest.mark.parametrize("reviewed", [0, 5])
def test_the_choice_is_the_greedy_one(reviewed):
    rng = np.random.default_rng(reviewed)
    errors, features, before = rng.exponential(size=40), rng.normal(size=(40, 6)), rng.normal(size=(reviewed, 6))
    features[:, 5] = before[:, 5] = 3.0
    found = choosing.choose(errors, features, 15, before if reviewed else None)
    assert found.tolist() == plain(errors, features, 15, before)


def test_distances_in_blocks_are_those_of_each_pair(monkeypatch):
    rng = np.random.default_rng(3)
    points, centres = rng.normal(size=(50, 7)), rng.normal(size=(9, 7))
    points[4] = centres[2]
    expected = cdist(points, centres).min(1)
    for block in (1, 20, choosing.BLOCK):
        monkeypatch.setattr(choosing, "BLOCK", block)
        np.testing.assert_allclose(choosing._nearest(points, centres), expected, rtol=1e-12)
        assert choosing._nearest(points, centres)[4] == 0
    assert np.isinf(choosing._nearest(points, centres[:0])).all()
    assert choosing._nearest(points[:0], centres).shape == (0,)


def test_a_choice_is_spread_over_clusters_and_goes_where_errors_are():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(8), 25)
    features = rng.normal(size=(8, 4))[cluster] + rng.normal(scale=0.02, size=(200, 4))
    errors = rng.uniform(0.5, 1, 200)
    errors[cluster == 7] = 0
    found = choosing.choose(errors, features, 7)
    assert set(cluster[found]) == set(range(7))
    best = np.argsort(-errors)[:7]
    assert len(set(cluster[best])) < 7
    assert set(cluster[choosing.choose(errors, features, 6, features[cluster == 2])]) == {0, 1, 3, 4, 5, 6}


def test_all_are_chosen_where_there_are_fewer_and_alike_images_once_each():
    assert sorted(choosing.choose(np.zeros(3), np.zeros((3, 2)), 9)) == [0, 1, 2]
    assert choosing.choose(np.zeros(0), np.zeros((0, 2)), 4).tolist() == []
    with pytest.raises(ValueError, match=r"choose\(count=0\)"):
        choosing.choose(np.zeros(3), np.zeros((3, 2)), 0)


def test_a_descriptor_tells_colours_places_and_textures_apart_and_not_sizes():
    rng = np.random.default_rng(0)
    grey, red = np.full((64, 96, 3), 90, np.uint8), np.full((64, 96, 3), 90, np.uint8)
    red[:32, :48] = 200, 0, 0
    striped = grey.copy()
    striped[:, ::6] = 250
    noisy = rng.integers(0, 255, grey.shape, np.uint8)
    found = [choosing.descriptor(each) for each in (grey, red, striped, noisy, red[:, ::-1])]
    assert {each.shape for each in found} == {(96,)}
    distances = [np.linalg.norm(a - b) for i, a in enumerate(found) for b in found[:i]]
    assert min(distances) > 0.1
    large = choosing.descriptor(red.repeat(4, 0).repeat(4, 1))
    assert np.linalg.norm(large - found[1]) < 0.02
    assert 0 <= min(map(np.min, found)) <= max(map(np.max, found)) <= 1


@pytest.fixture
def store(tmp_path):
    """A store of red, green and unlike images; the errors expected rise with their numbers, one of each is reviewed."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    path = tmp_path / "annotations.sqlite"
    with Store(path, create=True) as store:
        store.settings["images"] = json.dumps(str(folder))
        for number in range(9):
            pixels = rng.integers(0, 30, (20, 30, 3), np.uint8)
            pixels[..., number % 3] += 200
            Image.fromarray(pixels).save(folder / f"{number}.png")
            objects = tuple(Annotation(0, "cat", BOX, score=0.5, sources=(SOURCE,)) for _ in range(number))
            store.put(ImageRecord(f"{number}.png", "0" * 64, (20, 30), objects), who="model")
        store.apply("6.png", Change("reviewed", None, True), who="human:a", version=store.get("6.png").version)
    return path


def test_the_command_lists_images_of_each_look_those_with_errors_first(store, capsys):
    assert annotate.main(["next", str(store), "--count=2"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [["8.png", "4.00"], ["7.png", "3.50"]]
    assert annotate.main(["next", str(store.parent), "--count=20"]) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(names) == sorted(f"{number}.png" for number in range(9) if number != 6)


def test_an_image_is_decoded_once_and_again_when_it_is_another(store, capsys, monkeypatch):
    def called(count=9):
        assert annotate.main(["next", str(store), f"--count={count}"]) == 0
        return capsys.readouterr().out, [decoded.pop() for _ in decoded[:]]

    decoded, pixels_of = [], choosing.pixels_of
    monkeypatch.setattr(choosing, "pixels_of", lambda data: decoded.append(data) or pixels_of(data))
    kept, images = store.with_name("annotations.descriptors.npz"), store.parent / "images"
    first, read = called()
    assert (len(read), kept.is_file()) == (9, True)
    assert called() == (first, [])
    red, green = (images / f"{number}.png" for number in (0, 1))
    red.write_bytes(green.read_bytes())
    assert called()[1] == []
    content = kept.read_bytes()
    Image.new("RGB", (9, 9)).save(red)
    assert called()[1] == [red.read_bytes()]
    for damaged in (content[:100], b"", content.replace(b"form", b"norm"), None):
        kept.unlink()
        kept.mkdir() if damaged is None else kept.write_bytes(damaged)
        assert (len(called()[1]), sorted(each.name for each in store.parent.glob(".*"))) == (9, [])


def test_what_can_not_be_read_is_left_out_and_told(store, capsys, tmp_path):
    (store.parent / "images" / "8.png").write_bytes(b"no image")
    assert annotate.main(["next", str(store), "--count=1"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("7.png\t")
    assert "left out 8.png" in told.err
    assert annotate.main(["next", str(tmp_path / "none.sqlite")]) == 2
    with pytest.raises(SystemExit):
        annotate.main(["next", str(store), "--count=0"])
    with Store(tmp_path / "bare.sqlite", create=True):
        pass
    assert annotate.main(["next", str(tmp_path / "bare.sqlite")]) == 2
    assert "--images=DIR" in capsys.readouterr().err
